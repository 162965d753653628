"""`watch`: follow a run to its end."""

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from rich.console import Console

from backend.cli import amounts
from backend.cli.connection import Backend, run_path
from backend.cli.errors import EXIT_CODES, NO_ANSWER, CliError
from backend.cli.follow import Follower
from backend.cli.safe_text import harmless
from backend.cli.session import command_line, say
from backend.cli.timeline import Timeline
from backend.cli.views import REDRAWN, JsonView, LineView, TreeView, View

RESULT_LINES = 25
"""So many lines of a result are shown at a run's end."""


class Following:
    """One run that is followed; called again after a sign-in it goes on where it was."""

    def __init__(
        self,
        dag_id: str,
        dag_run_id: str,
        *,
        as_json: bool,
        patience: float,
        cursor: int | None = None,
        known: bool = False,
    ) -> None:
        self._timeline = Timeline(dag_id, dag_run_id)
        self._view = _view(self._timeline, as_json=as_json)
        self._follower = Follower(
            dag_id, dag_run_id, cursor=cursor, patience=patience, known=known, whole=self._view.whole
        )

    async def __call__(self, backend: Backend) -> int:
        """Show what happens until the run is over; gives the exit code that says how it ended."""
        run = self._timeline
        try:
            await self._to_the_end(backend)
            if not isinstance(self._view, JsonView):
                await _conclude(backend, run, brief=isinstance(self._view, LineView))
        except asyncio.CancelledError:
            say(come_back(run.dag_id, run.dag_run_id))
            raise
        except CliError as error:
            if self._follower.known:
                error.advice = come_back(run.dag_id, run.dag_run_id)
            raise
        return EXIT_CODES.get(run.end or "", NO_ANSWER)

    async def _to_the_end(self, backend: Backend) -> None:
        self._view.begin()
        redrawing = asyncio.create_task(self._redraw())
        try:
            async for item in self._follower.events(backend):
                self._view.show(item)
        finally:
            redrawing.cancel()
            with suppress(asyncio.CancelledError):
                await redrawing
            self._view.end()

    async def _redraw(self) -> None:
        while True:
            self._view.refresh()
            await asyncio.sleep(REDRAWN)


def come_back(dag_id: str, dag_run_id: str) -> str:
    """What to tell somebody who leaves a run."""
    return f"The run goes on. To watch it: {command_line('watch', dag_id, dag_run_id)}"


def _view(timeline: Timeline, *, as_json: bool) -> View:
    if as_json:
        return JsonView(timeline)
    console = Console(file=sys.stdout, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        return TreeView(timeline, console)
    return LineView(timeline)


async def _conclude(backend: Backend, run: Timeline, *, brief: bool) -> None:
    """The end in a line, with the run's totals, and what to do next."""
    snapshot = await backend.get(run_path(run.dag_id, run.dag_run_id))
    usage = snapshot["usage"]["input_tokens"] + snapshot["usage"]["output_tokens"]
    started, finished = snapshot["started_at"], snapshot["finished_at"]
    facts = [str(run.end), amounts.tokens(usage)]
    if started and finished:
        facts.insert(1, amounts.duration(amounts.age(started, finished)))
    if snapshot["cost_usd"] is not None:
        facts.append(amounts.cost(snapshot["cost_usd"]))
    if brief:
        print(f"end  {'  '.join(facts)}", flush=True)
    ids = (run.dag_id, run.dag_run_id)
    if run.end == "success" and snapshot["result"] is not None:
        if not brief:
            _show_result(snapshot["result"])
        say(f"The whole result: {command_line('result', *ids)}")
    for task in run.tasks.values():
        if task.state == "failed":
            index = () if task.map_index < 0 else ("--map-index", str(task.map_index))
            say(f"Its log: {command_line('logs', *ids, task.task_id, *index)}")
            break
    if run.end in ("failed", "cancelled"):
        say(f"To run again what failed: {command_line('retry', *ids)}")


def _show_result(result: Any) -> None:
    lines = harmless(_answer(result)).splitlines()
    print("\n" + "\n".join(lines[:RESULT_LINES]), flush=True)
    if len(lines) > RESULT_LINES:
        print(f"… {len(lines) - RESULT_LINES} more lines", flush=True)


def _answer(result: Any) -> str:
    """What of a result people want to read first: a team's summary, an agent's answer, or else all of its output."""
    found = result if isinstance(result, dict) else {}
    output = found.get("output", result)
    fields = output if isinstance(output, dict) else {}
    for text in (found.get("summary"), fields.get("answer"), fields.get("summary"), output):
        if isinstance(text, str) and text.strip():
            return text
    return json.dumps(output, indent=2, ensure_ascii=False)
