"""Ways to show a run that goes on: a live tree for a terminal, lines for everything else, JSON for scripts."""

import json
import sys
import time
from datetime import datetime
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.live import Live

from backend.cli import amounts
from backend.cli.follow import Begin, Lost, StreamEvent
from backend.cli.safe_text import harmless
from backend.cli.timeline import Timeline
from backend.cli.tree import draw, error_text

REDRAWN = 0.125
"""Seconds between two drawings of a tree that changes; one that doesn't is drawn each second, for its times."""


class View(Protocol):
    """Shows what happens. It is begun and ended once for each time that the run is followed."""

    whole: bool
    """Whether lost events are to be made up for by the present state."""

    def begin(self) -> None: ...
    def show(self, item: StreamEvent | Lost | Begin) -> None: ...
    def refresh(self) -> None: ...
    def end(self) -> None: ...


class TreeView:
    """The run as a tree, drawn again as it changes."""

    whole = True

    def __init__(self, timeline: Timeline, console: Console) -> None:
        self._timeline = timeline
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

    def show(self, item: StreamEvent | Lost | Begin) -> None:
        """Take in what happened; it is seen with the next refresh."""
        self._changed = True
        if isinstance(item, Lost):
            self._note = f"{item.reason}; trying again in {item.wait:.0f} s"
            return
        if isinstance(item, StreamEvent):
            if item.type == "gap":
                self._print_note(gap_text(item))
            self._note = ""
        self._timeline.apply(item)

    def refresh(self) -> None:
        """Draw the tree again if it has changed."""
        now = time.monotonic()
        if self._live is not None and (self._changed or now - self._drawn >= 1):
            self._changed, self._drawn = False, now
            self._live.refresh()

    def end(self) -> None:
        """Give the terminal back; the tree stays as it was last drawn, all of it when the run is over."""
        if self._live is None:
            return
        live, self._live = self._live, None
        over = self._timeline.end is not None
        live.transient = over
        live.stop()
        if over:
            self._console.print(draw(self._timeline, self._console, whole=True))

    def _print_note(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, style="yellow", highlight=False, markup=False)

    def _draw(self) -> RenderableType:
        return draw(self._timeline, self._console, note=self._note)


class LineView:
    """A line for each change, without what an agent says."""

    whole = True

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._told: dict[Any, Any] = {}
        self._lost = False

    def begin(self) -> None:
        """Nothing to prepare."""

    def show(self, item: StreamEvent | Lost | Begin) -> None:
        """Print what is new."""
        self._timeline.apply(item) if not isinstance(item, Lost) else None
        if isinstance(item, Lost):
            self._say(f"{item.reason}; trying again in {item.wait:.0f} s", error=True)
            self._lost = True
            return
        if isinstance(item, Begin):
            return
        if self._lost:
            self._say("Connected again.", error=True)
            self._lost = False
        data = item.data
        match item.type:
            case "workflow_update":
                done = f"{data['state']}  {data['progress']} %  {data['tasks_done']}/{data['tasks_total']} tasks"
                self._once("run", (done, data.get("attempt")), f"run  {done}")
            case "task_update":
                task = _place(data)
                if data["state"] is not None:
                    took = f"  {amounts.duration(data['duration'])}" if data.get("duration") is not None else ""
                    again = f"  try {data['try_number']}" if data["try_number"] > 1 else ""
                    now = (data["state"], data["try_number"])
                    self._once(("task", task), now, f"{task}  {data['state']}{again}{took}")
            case "agent_update":
                self._agent(data)
            case "error":
                where = f"{_place(data)}  " if data.get("task_id") else ""
                self._once(("error", json.dumps(data, sort_keys=True)), True, f"{where}error  {error_text(data)}")
            case "gap":
                self._say(gap_text(item), error=True)

    def refresh(self) -> None:
        """Lines stay as they are."""

    def end(self) -> None:
        """Nothing to give back."""

    def _agent(self, data: dict[str, Any]) -> None:
        name = f"{_place(data)} / {data['agent']}" + (f" / {data['node']}" if data.get("node") else "")
        facts = [str(data["state"])]
        if batch := data.get("batch"):
            facts.append(f"{batch['succeeded'] + batch['failed']}/{batch['items']} inputs")
        if data["state"] != "running":
            if data.get("model"):
                facts.append(str(data["model"]))
            if used := (data.get("input_tokens") or 0) + (data.get("output_tokens") or 0):
                facts.append(amounts.tokens(used))
            if data.get("cost_usd") is not None:
                facts.append(amounts.cost(data["cost_usd"]))
            if data.get("latency_ms") is not None:
                facts.append(amounts.duration(data["latency_ms"] / 1000))
        self._once(("agent", name), (*facts, data["try_number"]), f"{name}  {'  '.join(facts)}")

    def _once(self, key: Any, now: Any, line: str) -> None:
        """Say it unless it was the last thing said of this: a present state repeats what is known."""
        if self._told.get(key) != now:
            self._told[key] = now
            self._say(line)

    @staticmethod
    def _say(line: str, *, error: bool = False) -> None:
        text = " ".join(harmless(line).splitlines())
        print(f"{datetime.now():%H:%M:%S}  {text}", file=sys.stderr if error else sys.stdout, flush=True)


class JsonView:
    """The events as they came, each a JSON object on a line: `{"id", "event", "data"}`."""

    whole = False

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline

    def begin(self) -> None:
        """Nothing to prepare."""

    def show(self, item: StreamEvent | Lost | Begin) -> None:
        """Print an event; a lost connection is told on standard error."""
        if isinstance(item, Lost):
            print(f"{item.reason}; trying again in {item.wait:.0f} s", file=sys.stderr, flush=True)
            return
        self._timeline.apply(item)
        if isinstance(item, StreamEvent):
            print(json.dumps({"id": item.seq, "event": item.type, "data": item.data}), flush=True)

    def refresh(self) -> None:
        """Lines stay as they are."""

    def end(self) -> None:
        """Nothing to give back."""


def gap_text(event: StreamEvent) -> str:
    """What a `gap` means."""
    return f"Events {event.data['from']} to {event.data['to']} are no longer kept; the present state follows."


def _place(data: dict[str, Any]) -> str:
    index = int(data.get("map_index", -1))
    return str(data["task_id"]) if index < 0 else f"{data['task_id']}[{index}]"
