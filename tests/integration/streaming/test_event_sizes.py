"""No event exceeds 64 KB, of whatever kind it is and whatever is in it; what it leaves out is found elsewhere."""

import json
from collections.abc import Callable
from typing import Any, get_args

import httpx
import pytest
from sqlalchemy import Engine

from backend.core.events import EventType, NewEvent
from backend.core.states import TaskState
from backend.db.questions import question_payload
from backend.db.runs import errors, events, traces
from backend.db.runs.traces import Place
from backend.observation.recording.observer import AgentObserver
from backend.observation.recording.tokens import TokenStream
from tests.kit.recorded_runs import RecordedRun

DAG = "visual_ai_workflow"
RUN = f"/workflow-status/{DAG}/run"
STREAM = f"/workflow-status/stream/{DAG}/run"

WIDE = "\x85"
"""A character that takes six bytes in a stream; the most that any takes."""

LONG = WIDE * 200_000


def error(run: RecordedRun, engine: Engine, **more: Any) -> None:
    with engine.begin() as connection:
        place = Place(DAG, "run", "task", -1, 1, "agent")
        values = {"category": "server", "exception_type": "Error", "message": "broke", "action": "retry", **more}
        payload = errors.add(connection, run.id, place, **values)
        events.append(connection, run.id, [NewEvent("error", payload)])


def agent(run: RecordedRun, engine: Engine, **more: Any) -> None:
    class Recorder:
        def put(self, record: Any) -> None:
            records.append(record)

    records: list[Any] = []
    observer = AgentObserver(Recorder(), Place(DAG, "run", "task", -1, 1, "agent", "text"), model=None, trace_id="t")  # type: ignore[arg-type]  # the two methods that are called
    observer.uses(more.get("model"), more.get("notice"))
    for number in range(more.get("notices", 0)):
        observer.noticed(f"{number} {LONG[:2_000]}")
    observer.node_started("key", more.get("node", "node"), None)
    observer.node_finished("key", None, None)
    observer.finish("success", None)
    with engine.begin() as connection:
        traces.write(connection, [{**record.values(), "execution_id": run.id} for record in records])
        events.append(connection, run.id, [record.event for record in records])


def asked(run: RecordedRun, engine: Engine, **more: Any) -> None:
    row = {
        "id": run.id, "task_id": "task", "map_index": -1, "agent": "agent", "node": "node", "kind": "question",
        "subject": "Who?", "answer_schema": None, "expires_at": None, "assignees": [], "item_index": None, **more,
    }  # fmt: skip
    with engine.begin() as connection:
        events.append(connection, run.id, [NewEvent("question", question_payload(row))])


def mapped(run: RecordedRun) -> None:
    """A run of thousands of tasks, and the results of some of them."""
    run.is_now("running", *(TaskState("each", index, 1, "success") for index in range(3_000)))
    for index in range(10):
        run.returns(WIDE * 1_600, "each", index)


CASES: dict[str, Callable[[RecordedRun, Engine], object]] = {
    "error: message": lambda run, engine: error(run, engine, message=LONG),
    "error: context": lambda run, engine: error(run, engine, message=LONG, context={"a": LONG, "b": [LONG] * 100}),
    "error: many keys": lambda run, engine: error(run, engine, context={f"{WIDE * 900}{n}": n for n in range(99)}),
    "error: names": lambda run, engine: error(run, engine, exception_type=LONG, model=LONG, node=LONG),
    "agent_update: model": lambda run, engine: agent(run, engine, model=LONG),
    "agent_update: notice": lambda run, engine: agent(run, engine, notice=LONG),
    "agent_update: notices": lambda run, engine: agent(run, engine, notices=100),
    "agent_update: node": lambda run, engine: agent(run, engine, node=LONG),
    "token": lambda run, _: run.say("task", "agent", "node", LONG),
    "token: node": lambda run, _: run.say("task", "agent", LONG, "text"),
    "task_update": lambda run, _: run.task(WIDE * 250, "running"),
    "workflow_update: result": lambda run, _: run.returns({"output": WIDE * 16_000}),
    "workflow_update: mapped tasks": lambda run, _: mapped(run),
    "question: schema": lambda run, engine: asked(run, engine, answer_schema={"enum": [LONG] * 5}),
    "question: node": lambda run, engine: asked(run, engine, node=LONG),
    "question: assignees": lambda run, engine: asked(run, engine, assignees=[WIDE * 250] * 100),
    "answer": lambda run, _: run.tell("answer", question_id=run.id, by=WIDE * 250, decision="approve"),
    "custom": lambda run, _: run.tell("custom", task_id="t", agent="a", node=WIDE * 250, data=WIDE * 10_000),
    "end": lambda *_: None,
}


def test_the_table_has_all_kinds_of_events() -> None:
    assert {case.partition(":")[0] for case in CASES} == set(get_args(EventType))


def received(body: bytes) -> list[tuple[bytes, str, Any]]:
    """Each event of a stream, with its type and its data."""
    found = []
    for block in body.split(b"\n\n"):
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line and line[:1] != b":")
        if b"data" in fields:
            found.append((block, fields[b"event"].decode(), json.loads(fields[b"data"])))
    return found


@pytest.mark.parametrize("case", CASES)
async def test_no_event_exceeds_64_kb(ulla_http: httpx.AsyncClient, engine: Engine, case: str) -> None:
    run = RecordedRun(engine, DAG)
    run.is_now("running")
    CASES[case](run, engine)
    run.is_now("success")
    kind = case.partition(":")[0]
    for path in (STREAM, f"{STREAM}?last_event_id=0", f"/workflow-status/streams?run={DAG}/run&last_event_id=0"):
        found = received((await ulla_http.get(path)).content)
        assert found[-1][1] == "end"
        assert max(len(block) for block, _, _ in found) <= 65_536, [(name, len(block)) for block, name, _ in found]
        # Of a run that has ended, the state that comes first has no texts and nothing that waits.
        assert kind in {name for _, name, _ in found} or (
            kind in ("token", "question", "answer", "custom") and path == STREAM
        )
    assert len((await ulla_http.get(RUN)).content) <= 262_144


async def test_what_an_event_leaves_out_is_found_elsewhere(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    run = RecordedRun(engine, DAG)
    run.is_now("running")
    error(run, engine, context={"a": LONG, "b": [LONG] * 100}, message=LONG)
    result = {"output": WIDE * 16_000}
    run.returns(result)
    run.is_now("success")
    [full] = (await ulla_http.get(f"{RUN}/errors")).json()["errors"]
    assert full["context"]["a"].startswith(WIDE * 1_000)
    sent = {name: data for _, name, data in received((await ulla_http.get(f"{STREAM}?last_event_id=0")).content)}
    assert sent["error"]["context"]["truncated"] is True
    assert sent["error"]["message"] == full["message"]
    shown = sent["workflow_update"]["result"]
    whole = await ulla_http.get(shown["url"])
    assert (whole.json(), len(whole.content)) == (result, shown["bytes"])


async def test_a_long_answer_is_streamed_in_events_of_its_own(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    """As a model that doesn't stream returns it."""
    new: list[NewEvent] = []
    stream = TokenStream(new.extend, Place(DAG, "run", "task", -1, 1, WIDE * 100, "text"))
    stream.add({"langgraph_node": LONG, "langgraph_checkpoint_ns": "node:id"}, LONG)
    stream.flush()
    run = RecordedRun(engine, DAG)
    run.is_now("running")
    with engine.begin() as connection:
        events.append(connection, run.id, new)
    run.is_now("success")
    found = received((await ulla_http.get(f"{STREAM}?last_event_id=0")).content)
    assert "".join(data["text"] for _, name, data in found if name == "token") == LONG
    assert max(len(block) for block, _, _ in found) <= 65_536
