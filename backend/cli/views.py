"""Views of a run in progress: a live tree for a terminal, lines for everything else, JSON for scripts."""

import json
import sys
import time
from collections import Counter
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live

from backend.cli import formatting
from backend.cli.event_stream import Lost, Reset, StreamEvent
from backend.cli.timeline import FAILED, LargeTask, Timeline
from backend.cli.tree import draw, error_text

REFRESH_SECONDS = 0.125
"""How often a changing tree is redrawn; an unchanged one is redrawn every second, for its durations."""

COUNT_SECONDS = 5.0
"""How often the instances of large mapped tasks are counted in lines."""

NAMED = 10
"""How many failures of each of them have lines of their own."""


class View:
    """Shows events. `begin` and `end` are called once for each call of `Watch`, `refresh` every REFRESH_SECONDS."""

    whole = True
    """Whether the current state replaces events that were lost."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def begin(self) -> None:
        """Prepare the terminal."""

    def show(self, item: StreamEvent | Lost | Reset) -> None:
        """Take in an event."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Redraw what has changed."""

    def end(self) -> None:
        """Release the terminal."""


class TreeView(View):
    """Shows the run as a tree that is redrawn as it changes."""

    def __init__(self, timeline: Timeline, console: Console) -> None:
        super().__init__(timeline)
        self._console = console
        self._note = ""
        self._live: Live | None = None
        self._changed = True
        self._drawn = 0.0

    def begin(self) -> None:
        """Take over the lower part of the terminal."""
        self._live = Live(
            console=self._console, auto_refresh=False, get_renderable=self._draw, vertical_overflow="crop"
        )
        self._live.start(refresh=True)

    def show(self, item: StreamEvent | Lost | Reset) -> None:
        """Take in an event; the next refresh shows it."""
        self._changed = True
        if isinstance(item, Lost):
            self._note = f"{item.reason}; retrying in {item.wait:.0f} s"
            return
        if isinstance(item, StreamEvent):
            if item.type == "gap":
                self._print_note(gap_text(item))
            self._note = ""
        self._timeline.apply(item)

    def refresh(self) -> None:
        """Redraw the tree if it has changed."""
        now = time.monotonic()
        if self._live is not None and (self._changed or now - self._drawn >= 1):
            self._changed, self._drawn = False, now
            self._live.refresh()

    def end(self) -> None:
        """Release the terminal, leaving the last tree on it; of a finished run, the whole tree."""
        if self._live is None:
            return
        live, self._live = self._live, None
        finished = self._timeline.end is not None
        live.transient = finished
        live.stop()
        if finished:
            self._console.print(draw(self._timeline, self._console, whole=True))

    def _print_note(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, style="yellow", highlight=False, markup=False)

    def _draw(self) -> RenderableType:
        return draw(self._timeline, self._console, note=self._note)


class LineView(View):
    """Prints a line for each change, without the agents' answers. Of a run with large mapped tasks, it prints the
    progress and how many instances are in which state from time to time, and the first failures."""

    def __init__(self, timeline: Timeline) -> None:
        super().__init__(timeline)
        self._printed: dict[Any, Any] = {}
        self._lost = False
        self._named: Counter[str] = Counter()
        """Failures that were named of each large mapped task."""
        self._uncounted = False
        """Something has changed in a large mapped task since its instances were counted."""
        self._counted = 0.0

    def show(self, item: StreamEvent | Lost | Reset) -> None:
        """Print what has changed."""
        self._timeline.apply(item) if not isinstance(item, Lost) else None
        if isinstance(item, Lost):
            self._print(f"{item.reason}; retrying in {item.wait:.0f} s", error=True)
            self._lost = True
            return
        if isinstance(item, Reset):
            return
        if self._lost:
            self._print("Reconnected.", error=True)
            self._lost = False
        data = item.data
        if self._timeline.is_large(data.get("task_id")) and not self._to_be_named(item):
            self._uncounted = True
            return
        match item.type:
            case "workflow_update":
                if not self._timeline.has_large or data.get("finished_at") is not None:
                    self._count()
                else:
                    self._uncounted = True
            case "task_update":
                task = _place(data)
                if data["state"] is not None:
                    took = f"  {formatting.duration(data['duration'])}" if data.get("duration") is not None else ""
                    again = f"  try {data['try_number']}" if data["try_number"] > 1 else ""
                    now = (data["state"], data["try_number"])
                    self._once(("task", task), now, f"{task}  {data['state']}{again}{took}")
            case "agent_update":
                self._agent(data)
            case "error":
                where = f"{_place(data)}  " if data.get("task_id") else ""
                self._once(("error", json.dumps(data, sort_keys=True)), True, f"{where}error  {error_text(data)}")
            case "gap":
                self._print(gap_text(item), error=True)

    def refresh(self) -> None:
        """Count what has changed in large mapped tasks, from time to time."""
        if self._uncounted and time.monotonic() - self._counted >= COUNT_SECONDS:
            self._count()

    def _count(self) -> None:
        self._uncounted, self._counted = False, time.monotonic()
        for part in self._timeline.parts():
            if isinstance(part, LargeTask):
                self._once(("task", part.task_id), part.summary, f"{part.task_id}  {part.summary}")
        run = self._timeline
        done = f"{run.state}  {run.progress} %  {run.tasks_done}/{run.tasks_total} tasks"
        self._once("run", (done, run.attempt), f"run  {done}")

    def _to_be_named(self, event: StreamEvent) -> bool:
        """Whether an event of a large mapped task is one of its first failures."""
        if event.type != "error" and not (event.type == "task_update" and event.data["state"] in FAILED):
            return False
        self._named[event.data["task_id"]] += 1
        return self._named[event.data["task_id"]] <= NAMED

    def _agent(self, data: dict[str, Any]) -> None:
        name = f"{_place(data)} / {data['agent']}" + (f" / {data['node']}" if data.get("node") else "")
        facts = [str(data["state"])]
        if batch := data.get("batch"):
            facts.append(f"{batch['succeeded'] + batch['failed']}/{batch['items']} inputs")
        if data["state"] != "running":
            if data.get("model"):
                facts.append(str(data["model"]))
            if used := (data.get("input_tokens") or 0) + (data.get("output_tokens") or 0):
                facts.append(formatting.tokens(used))
            if data.get("cost_usd") is not None:
                facts.append(formatting.cost(data["cost_usd"]))
            if data.get("latency_ms") is not None:
                facts.append(formatting.duration(data["latency_ms"] / 1000))
        self._once(("agent", name), (*facts, data["try_number"]), f"{name}  {'  '.join(facts)}")

    def _once(self, key: Any, now: Any, line: str) -> None:
        """Print the line unless the last one for `key` was the same: a current state repeats what is already known."""
        if self._printed.get(key) != now:
            self._printed[key] = now
            self._print(line)

    @staticmethod
    def _print(line: str, *, error: bool = False) -> None:
        text = " ".join(formatting.safe(line).splitlines())
        print(f"{datetime.now():%H:%M:%S}  {text}", file=sys.stderr if error else sys.stdout, flush=True)


class JsonView(View):
    """Prints the events unchanged, each as a JSON object on a line: `{"id", "event", "data"}`."""

    whole = False

    def show(self, item: StreamEvent | Lost | Reset) -> None:
        """Print an event; report a lost connection on standard error."""
        if isinstance(item, Lost):
            print(f"{item.reason}; retrying in {item.wait:.0f} s", file=sys.stderr, flush=True)
            return
        self._timeline.apply(item)
        if isinstance(item, StreamEvent):
            print(json.dumps({"id": item.seq, "event": item.type, "data": item.data}), flush=True)


def gap_text(event: StreamEvent) -> str:
    """What a `gap` event means, for people."""
    return f"Events {event.data['from']} to {event.data['to']} are no longer stored; the current state follows."


def _place(data: dict[str, Any]) -> str:
    index = int(data.get("map_index", -1))
    return str(data["task_id"]) if index < 0 else f"{data['task_id']}[{index}]"
