"""What a run looks like on a terminal, assembled from its events."""

import io
from typing import Any

import pytest
from rich.console import Console

from backend.cli import formatting
from backend.cli.event_stream import Reset, StreamEvent
from backend.cli.formatting import first_line, last_line, safe
from backend.cli.timeline import Timeline
from backend.cli.tree import draw

AGENT: dict[str, Any] = {
    "task_id": "work", "map_index": -1, "try_number": 1, "agent": "vision", "type": "vision", "node": None,
    "state": "running", "model": None, "input_tokens": 0, "output_tokens": 0, "cost_usd": None, "latency_ms": None,
    "notice": None,
}  # fmt: skip


ERROR: dict[str, Any] = {
    "task_id": "work", "map_index": -1, "agent": "vision", "category": "server", "message": "500", "action": "retry",
    "retry_in": 2.5,
}  # fmt: skip


def timeline_of(*events: tuple[str, dict[str, Any]]) -> Timeline:
    timeline = Timeline("dag", "run")
    for kind, data in events:
        timeline.apply(StreamEvent(None, kind, data))
    return timeline


def run(state: str = "running", **more: Any) -> tuple[str, dict[str, Any]]:
    data = {"state": state, "progress": 0, "tasks_total": 1, "tasks_done": 0, "started_at": None, "finished_at": None}
    return "workflow_update", data | more


def task(
    state: str | None, task_id: str = "work", try_number: int = 1, map_index: int = -1
) -> tuple[str, dict[str, Any]]:
    return "task_update", {
        "task_id": task_id, "map_index": map_index, "state": state, "try_number": try_number, "started_at": None,
        "finished_at": None, "duration": None,
    }  # fmt: skip


def agent(state: str = "running", **more: Any) -> tuple[str, dict[str, Any]]:
    return "agent_update", AGENT | {"state": state} | more


def says(text: str, node: str = "analyse", **more: Any) -> tuple[str, dict[str, Any]]:
    return "token", {
        "task_id": "work",
        "map_index": -1,
        "try_number": 1,
        "agent": "vision",
        "node": node,
        "text": text,
        **more,
    }


def shown(
    timeline: Timeline, *, height: int = 24, width: int = 80, encoding: str = "utf-8", whole: bool = False
) -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, height=height, color_system=None, force_terminal=True)
    with console.capture() as capture:
        console.print(draw(timeline, console, whole=whole))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_run_with_its_agents_and_nodes() -> None:
    timeline = timeline_of(
        run(progress=33, tasks_done=1, tasks_total=3),
        task("success", "first"),
        task("running"),
        agent(model="openai:gpt-4.1"),
        agent("success", node="load", latency_ms=20.0),
        agent(node="analyse"),
        says("The total "),
        says("is 79.50"),
    )
    assert shown(timeline)[0] == "● dag  run  running"
    assert shown(timeline)[1].endswith(" 33 %   1/3 tasks")
    assert shown(timeline)[2:] == [
        "✓ first  success",
        "● work  running",
        "└── ● vision  running  openai:gpt-4.1",
        "    ├── ✓ load  0.0 s",
        "    ├── ● analyse",
        "    └── The total is 79.50",
    ]


def test_a_terminal_without_unicode() -> None:
    lines = shown(timeline_of(run(), task("success", "a"), task("failed", "b"), task(None, "c")), encoding="ascii")
    assert "\n".join(lines).isascii()
    assert lines[2:] == ["+ a  success", "x b  failed", ". c  not started"]


def test_a_new_try_replaces_its_agents_and_counts_nothing_twice() -> None:
    used = {"input_tokens": 100, "output_tokens": 10, "cost_usd": 0.5}
    timeline = timeline_of(
        run(),
        task("running"),
        agent(),
        agent("success", node="load", **used),
        agent("failed", node="analyse", **used),
        agent("failed", **used),
        ("error", ERROR),
        task("up_for_retry"),
        task("running", try_number=2),
        agent(try_number=2),
        agent("success", node="analyse", try_number=2, **used),
    )  # fmt: skip
    assert (timeline.used.tokens, timeline.used.cost_usd) == (330, 1.5)
    [one] = timeline.tasks.values()
    assert (one.agents["vision"].tokens, set(one.agents["vision"].nodes)) == (110, {"analyse"})
    timeline.apply(StreamEvent(None, *agent("failed", **used)))
    assert one.agents["vision"].state == "running", "a superseded try changes nothing"
    assert shown(timeline)[2] == "● work  running  try 2"
    assert shown(timeline)[-1] == "└── vision: server: 500 (retry in 2.5 s)"


def test_a_batch_is_counted_by_its_total() -> None:
    batch = {"items": 1_000, "succeeded": 120, "failed": 3, "running": 50}
    timeline = timeline_of(
        run(),
        task("running"),
        agent("success", agent="text[0]", node="n", input_tokens=5, output_tokens=5),
        agent("success", agent="text[0]", input_tokens=5, output_tokens=5),
        agent(agent="text", batch=batch, input_tokens=9_000, output_tokens=1_000, cost_usd=0.25),
    )
    assert (timeline.used.tokens, timeline.used.cost_usd) == (10_000, 0.25)
    assert "└── ● text  running  123/1000 inputs, 3 failed  10,000 tokens  $0.2500" in shown(timeline)


def test_the_current_state_replaces_earlier_events() -> None:
    timeline = timeline_of(run(), task("running"), task("running", "removed meanwhile"), agent(), says("old"))
    timeline.apply(Reset())
    for event in (run("success", progress=100, attempt=2), task("success")):
        timeline.apply(StreamEvent(None, *event))
    assert shown(timeline)[0] == "✓ dag  run  success  attempt 2"
    assert shown(timeline)[2:] == ["✓ work  success"]


def test_agents_of_a_stopped_task_are_not_shown_as_running() -> None:
    lines = shown(timeline_of(run("cancelled"), task("failed"), agent(), agent(node="analyse"), says("I am")))
    assert lines[2:] == ["✗ work  failed", "└── ■ vision  cancelled", "    └── ■ analyse"]


@pytest.mark.parametrize("height", [6, 10, 24, 60])
def test_a_tree_fits_the_terminal_and_keeps_what_matters(height: int) -> None:
    events = [run()]
    for index in range(300):
        state = "failed" if index == 150 else "running" if index == 200 else "success"
        events.append(task(state, f"each-{index}"))
        for node in ("load", "analyse"):
            events.append(agent("running" if state == "running" else "success", task_id=f"each-{index}", node=node))
    lines = shown(timeline_of(*events), height=height)
    assert len(lines) < height
    assert any("each-200" in line for line in lines)
    assert any("each-150" in line for line in lines) or height == 6
    hidden = 300 - sum("each-" in line for line in lines)
    assert lines[-1].startswith(f"and {hidden} more: ")
    assert len(shown(timeline_of(*events), height=height, whole=True)) > 600


def test_lines_are_cut_to_the_width() -> None:
    notice = "offline " * 30
    lines = shown(timeline_of(run(), task("running"), agent(notice=notice), says("word " * 200 + "end")), width=50)
    assert max(map(len, lines)) <= 50
    assert lines[-1].endswith("word end")


def test_control_characters_are_removed_from_text() -> None:
    assert safe("a\x1b[2J\x00\x9b31m\r\x7fb\u202e\tc\nd") == "a[2J31mb\tc\nd"
    assert first_line("a\n b  c\x1b", 80) == "a b c"
    assert first_line("abcdef", 4) == "abc…"
    assert last_line("abcdef", 4) == "…def"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (-0.1, "0.0 s"), (0.44, "0.4 s"), (59.94, "59.9 s"), (185, "3 min 05 s"), (7_380, "2 h 03 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [(None, "–"), (0.0, "$0.00"), (0.0123, "$0.0123"), (0.0000421, "$0.000042"), (1234.5, "$1,234.50")],
)
def test_costs(usd: float | None, text: str) -> None:
    assert formatting.cost(usd) == text
