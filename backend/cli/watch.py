"""`watch`: show a run until it finishes."""

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

from rich.console import Console

from backend.cli import formatting
from backend.cli.connection import Backend, run_path
from backend.cli.errors import EXIT_CODES, NO_RESPONSE, CliError
from backend.cli.event_stream import EventStream, Reset, StreamEvent
from backend.cli.session import command_line, say
from backend.cli.timeline import Timeline
from backend.cli.views import REFRESH_SECONDS, JsonView, LineView, TreeView, View

RESULT_LINES = 25
"""How many lines of a result are shown when a run finishes."""

REASON_READINGS = 8
REASON_PAUSE = 1.0
"""How often the snapshot of a failed run is read until it says why it failed, and the seconds in between."""


class Watch:
    """Watches one run. Called again after a sign-in, it continues where it stopped."""

    def __init__(
        self,
        dag_id: str,
        dag_run_id: str,
        *,
        as_json: bool,
        give_up_after: float,
        cursor: int | None = None,
        known: bool = False,
    ) -> None:
        self._timeline = Timeline(dag_id, dag_run_id)
        self._view = _view(self._timeline, as_json=as_json)
        self._stream = EventStream(
            dag_id, dag_run_id, cursor=cursor, give_up_after=give_up_after, known=known, whole=self._view.whole
        )

    async def __call__(self, backend: Backend) -> int:
        """Show the run until it finishes; return the exit code for the state in which it ended."""
        run = self._timeline
        try:
            await self._show_events(backend)
            if not isinstance(self._view, JsonView):
                await _print_summary(backend, run, brief=isinstance(self._view, LineView))
        except asyncio.CancelledError:
            say(how_to_watch(run.dag_id, run.dag_run_id))
            raise
        except CliError as error:
            if self._stream.known:
                error.add_note(how_to_watch(run.dag_id, run.dag_run_id))
            raise
        return EXIT_CODES.get(run.end or "", NO_RESPONSE)

    async def _show_events(self, backend: Backend) -> None:
        self._view.begin()
        incomplete = False
        refreshing = asyncio.create_task(self._refresh())
        try:
            async for item in self._stream.events(backend):
                if isinstance(item, Reset):
                    incomplete = True
                self._view.show(item)
                if incomplete and isinstance(item, StreamEvent) and item.seq is not None:  # the state's last event
                    incomplete = False
                    await self._complete(backend)
        finally:
            refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await refreshing
            self._view.end()

    async def _complete(self, backend: Backend) -> None:
        """Read the task instances that the current state of a large run leaves out."""
        run, cursor = self._timeline, None
        while len(run.tasks) < run.tasks_total:
            query = {"limit": 200, **({"cursor": cursor} if cursor else {})}
            page = await backend.get(run_path(run.dag_id, run.dag_run_id, "/tasks"), params=query)
            run.add_missing(page["tasks"])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def _refresh(self) -> None:
        while True:
            self._view.refresh()
            await asyncio.sleep(REFRESH_SECONDS)


def how_to_watch(dag_id: str, dag_run_id: str) -> str:
    """Tell somebody who stops watching a run how to resume."""
    return f"The run continues. To watch it: {command_line('watch', dag_id, dag_run_id)}"


def _view(timeline: Timeline, *, as_json: bool) -> View:
    if as_json:
        return JsonView(timeline)
    console = Console(file=sys.stdout, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        return TreeView(timeline, console)
    return LineView(timeline)


async def _print_summary(backend: Backend, run: Timeline, *, brief: bool) -> None:
    """Print how the run ended, with its totals, and say what to do next."""
    snapshot = await _explained(backend, run)
    usage = snapshot["usage"]["input_tokens"] + snapshot["usage"]["output_tokens"]
    started, finished = snapshot["started_at"], snapshot["finished_at"]
    facts = [str(run.end), formatting.tokens(usage)]
    if started and finished:
        facts.insert(1, formatting.duration(formatting.age(started, finished)))
    if snapshot["cost_usd"] is not None:
        facts.append(formatting.cost(snapshot["cost_usd"]))
    if brief:
        print(f"end  {'  '.join(facts)}", flush=True)
    if reason := snapshot.get("reason"):
        say(f"Reason: {formatting.safe(reason)}")
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
        say(f"To retry what failed: {command_line('retry', *ids)}")


async def _explained(backend: Backend, run: Timeline) -> Any:
    """The snapshot of a finished run; of a failed one as soon as it says why, which may become known after the end."""
    for _ in range(REASON_READINGS):
        snapshot = await backend.get(run_path(run.dag_id, run.dag_run_id))
        if snapshot["state"] != "failed" or snapshot.get("reason", "") is not None:
            break
        await asyncio.sleep(REASON_PAUSE)
    return snapshot


def _show_result(result: Any) -> None:
    lines = formatting.safe(_answer(result)).splitlines()
    print("\n" + "\n".join(lines[:RESULT_LINES]), flush=True)
    if len(lines) > RESULT_LINES:
        print(f"… {len(lines) - RESULT_LINES} more lines", flush=True)


def _answer(result: Any) -> str:
    """The part of a result to read first: a team's summary, an agent's answer, or else its whole output."""
    found = result if isinstance(result, dict) else {}
    if found.get("truncated") is True and str(found.get("url")).startswith("/workflow-status/"):
        return f"{found['excerpt']}\n… the first of {formatting.size(found['bytes'])}"
    output = found.get("output", result)
    fields = output if isinstance(output, dict) else {}
    for text in (found.get("summary"), fields.get("answer"), fields.get("summary"), output):
        if isinstance(text, str) and text.strip():
            return text
    return json.dumps(output, indent=2, ensure_ascii=False)
