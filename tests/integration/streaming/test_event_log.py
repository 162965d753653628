"""The event log and the recorded state of runs: gapless, fenced against superseded tries, and finally consistent."""

import json
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine

from backend.core.events import CHANNEL, Event, NewEvent
from backend.core.jsonable import dumps
from backend.core.run_envelope import signed
from backend.core.states import TaskState
from backend.core.workflow_error_handler import as_failure
from backend.db.address import plain_url
from backend.db.run_keys import run_key
from backend.db.runs import errors, events, executions, observations, pages, results
from backend.db.runs.events import TryEvents
from backend.db.runs.executions import RunState
from backend.db.runs.results import TaskResult
from backend.db.runs.traces import Place
from backend.services.recording.listener import Notice, record

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url, pool_size=12, json_serializer=dumps)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection that commits each statement at once, as if by separate processes."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def run(state: str | None = "running", **more: Any) -> RunState:
    return RunState("dag", "run", state, **more)


def task(state: str | None, task_id: str = "work", try_number: int = 1) -> TaskState:
    return TaskState(task_id, -1, try_number, state, START)


def log_of(connection: Connection, execution_id: str) -> list[Event]:
    return events.read_after(connection, execution_id, 0, limit=10_000)


def summary(connection: Connection, execution_id: str) -> list[str]:
    """A short form of the log."""
    short = []
    for event in log_of(connection, execution_id):
        state = event.payload.get("state", event.payload.get("message"))
        name = event.payload.get("task_id")
        short.append(f"{event.type} {name} {state}" if name else f"{event.type} {state}")
    return short


def errors_of(connection: Connection, execution_id: str) -> Sequence[Any]:
    return pages.ERRORS.page(connection, execution_id, limit=100).rows


def row(connection: Connection) -> dict[str, Any]:
    found = executions.get(connection, "dag", "run")
    assert found is not None
    return dict(found)


def test_seq_has_no_gap_under_concurrent_writers(engine: Engine, connection: Connection) -> None:
    execution_id = executions.ensure(connection, run())
    seen: list[int] = []
    done = threading.Event()

    def write(writer: int) -> None:
        for number in range(25):
            size = 1 + number % 3
            with engine.begin() as own:
                new = [NewEvent("token", {"writer": writer, "n": number, "i": i}) for i in range(size)]
                events.append(own, execution_id, new)
                if number % 5 == 4:
                    own.rollback()

    def read() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as own:
            while not done.is_set() or events.read_after(own, execution_id, len(seen), limit=1):
                seen.extend(e.seq for e in events.read_after(own, execution_id, len(seen), limit=100))

    with ThreadPoolExecutor(9) as pool:
        reader = pool.submit(read)
        list(pool.map(write, range(8)))
        done.set()
        reader.result(30)

    log = log_of(connection, execution_id)
    assert [event.seq for event in log] == list(range(1, len(log) + 1))
    assert row(connection)["last_seq"] == len(log)
    assert seen == list(range(1, len(log) + 1)), "a reader that follows the log saw a gap"
    for writer in range(8):
        own = [(e.payload["n"], e.payload["i"]) for e in log if e.payload.get("writer") == writer]
        assert own == [(n, i) for n in range(25) if n % 5 != 4 for i in range(1 + n % 3)]


def test_seq_has_no_gap_when_events_of_many_runs_are_appended_together(engine: Engine, connection: Connection) -> None:
    """Some writers have the same runs in different orders, others append to single runs."""
    ids = [executions.ensure(connection, RunState("dag", f"run {number}", "running")) for number in range(4)]
    writers, rounds = 6, 20
    follows = threading.Event()
    seen: dict[str, list[int]] = {execution_id: [] for execution_id in ids}

    def write(writer: int) -> None:
        chosen = random.Random(writer)
        for number in range(rounds):
            with engine.begin() as own:
                if writer % 3 == 0:
                    events.append(own, ids[number % 4], [NewEvent("token", {"writer": writer, "n": number})])
                    continue
                new = NewEvent("token", {"writer": writer, "n": number})
                place = Place("dag", "run", f"task {writer}", -1, 1)
                entries = [
                    TryEvents(execution_id, place, [new] * size)
                    for execution_id, size in zip(chosen.sample(ids, 3), (1, 0, 2), strict=True)
                ]
                assert events.append_from_tries(own, [*entries, entries[0]]) == {0, 2, 3}
                if number % 5 == 4:
                    own.rollback()

    def read() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as own:
            while not follows.is_set():
                for execution_id, known in seen.items():
                    known.extend(e.seq for e in events.read_after(own, execution_id, len(known), limit=100))

    with ThreadPoolExecutor(writers + 1) as pool:
        reader = pool.submit(read)
        list(pool.map(write, range(writers)))
        follows.set()
        reader.result(30)
    for execution_id in ids:
        log = log_of(connection, execution_id)
        assert [event.seq for event in log] == list(range(1, len(log) + 1))
        assert seen[execution_id] == list(range(1, len(seen[execution_id]) + 1)), "a reader saw a gap"
        for writer in range(writers):
            own = [event.payload["n"] for event in log if event.payload.get("writer") == writer]
            assert own == sorted(own)


def test_a_notification_arrives_with_the_commit(engine: Engine, connection: Connection, database_url: str) -> None:
    execution_id = executions.ensure(connection, run())
    with psycopg.connect(plain_url(database_url), autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        with engine.begin() as own:
            assert events.append(own, execution_id, [NewEvent("token", {}), NewEvent("token", {})]) == 3
            assert not list(listener.notifies(timeout=0.1))
        assert [n.payload for n in listener.notifies(timeout=2, stop_after=1)] == [f"{execution_id} 3"]


def test_an_unknown_execution_is_rejected(connection: Connection) -> None:
    unknown = "00000000-0000-0000-0000-000000000001"
    with pytest.raises(LookupError):
        events.append(connection, unknown, [NewEvent("token", {})])
    place = Place("dag", "run", "work", -1, 1)
    assert events.append_from_tries(connection, [TryEvents(unknown, place, [NewEvent("token", {})])]) == set()


def test_what_postgres_can_not_store_is_replaced(connection: Connection) -> None:
    execution_id = executions.ensure(connection, run(conf={"text": "a\x00b\ud83d", "n": float("nan")}))
    events.append(connection, execution_id, [NewEvent("token", {"text": "x\x00y\ud83d", "n": float("inf")})])
    assert log_of(connection, execution_id)[-1].payload == {"text": "x\ufffdy\ufffd", "n": None}
    assert row(connection)["input_data"] == {"text": "a\ufffdb\ufffd", "n": None}
    place = Place("dag", "run", "work", -1, 1, "a", "text")
    errors.add(
        connection, execution_id, place, category="internal", exception_type="E", message="a\x00b\ud83d",
        action="fail", context={"chain": ["c\x00d"]},
    )  # fmt: skip
    assert [error["message"] for error in errors_of(connection, execution_id)] == ["a\ufffdb\ufffd"]


@pytest.mark.parametrize(
    ("known", "run_state", "speaks", "heard"),
    [
        (task("running"), "running", 1, True),
        (None, "queued", 1, True),
        (task("success"), "running", 1, True),
        (task("running", try_number=2), "running", 2, True),
        (task("running", try_number=2), "running", 1, False),
        (task("running", "another", 2), "running", 1, True),
        (task("running"), "success", 1, False),
        (task("running"), "failed", 1, False),
        (task("running"), "cancelled", 1, False),
    ],
)
def test_events_of_a_superseded_try_are_not_appended(
    connection: Connection, known: TaskState | None, run_state: str, speaks: int, heard: bool
) -> None:
    execution_id = observations.observe(connection, run(run_state), [known] if known else [])
    before = row(connection)["last_seq"]
    told = TryEvents(execution_id, Place("dag", "run", "work", -1, speaks), [NewEvent("token", {"text": "hello"})])
    assert events.append_from_tries(connection, [told]) == ({0} if heard else set())
    assert row(connection)["last_seq"] == (before + 1 if heard else before)


def test_map_indexes_are_separate_tasks(connection: Connection) -> None:
    execution_id = observations.observe(connection, run(), [TaskState("work", 1, 5, "running")])
    places = [Place("dag", "run", "work", map_index, 1) for map_index in (0, 1)]
    told = [TryEvents(execution_id, place, [NewEvent("token", {})]) for place in places]
    assert events.append_from_tries(connection, told) == {0}


def test_a_run_from_start_to_end(connection: Connection) -> None:
    execution_id = observations.observe(connection, run("queued"))
    observations.observe(connection, run("running", started_at=START), [task(None), task(None, "next")])
    observations.observe(connection, run(None), [task("running")])
    observations.observe(connection, run(None), [task("success")])
    observations.observe(connection, run(None), [task("running", "next")])
    observations.observe(connection, run(None), [task("success", "next")])
    results.record(connection, [TaskResult(execution_id, {"answer": 42})])
    observations.observe(connection, run("success", finished_at=START + timedelta(seconds=3)))
    assert summary(connection, execution_id) == [
        "workflow_update queued",
        "workflow_update running",
        "task_update work running",
        "task_update work success",
        "workflow_update running",
        "task_update next running",
        "task_update next success",
        "workflow_update running",
        "workflow_update success",
        "end success",
    ]
    updates = [event.payload for event in log_of(connection, execution_id) if event.type == "workflow_update"]
    assert [update["progress"] for update in updates] == [0, 0, 50, 99, 100]
    assert [(update["tasks_done"], update["tasks_total"]) for update in updates][-1] == (2, 2)
    assert updates[-1]["result"] == {"answer": 42}
    assert "result" not in updates[-2]
    assert row(connection)["finished_at"] == START + timedelta(seconds=3)


@pytest.mark.parametrize(("letters", "whole"), [(16_000, True), (17_000, False), (5_000_000, False)])
def test_a_large_result_travels_by_reference(connection: Connection, letters: int, whole: bool) -> None:
    execution_id = observations.observe(connection, run("running", started_at=START))
    result = {"output": "ü" * letters, "exact": 2**60 + 1}
    results.record(connection, [TaskResult(execution_id, result)])
    observations.observe(connection, run("success", finished_at=START + timedelta(seconds=3)))
    (last,) = [event for event in log_of(connection, execution_id) if event.payload.get("progress") == 100]
    assert len(dumps(last.payload).encode()) < 64 * 1024
    if whole:
        assert last.payload["result"] == result
        return
    shown = last.payload["result"]
    text = json.dumps({"exact": 2**60 + 1, "output": "ü" * letters}, ensure_ascii=False)
    assert (shown["truncated"], shown["bytes"]) == (True, len(text.encode()))
    assert (shown["url"], shown["media_type"]) == ("/workflow-status/dag/run/result", "application/json")
    assert len(shown["excerpt"]) == 4_000
    assert shown["excerpt"] == text[:4_000]
    assert row(connection)["output_data"] is None, "who reads the run's row does not read its result"


NOTICES: list[tuple[RunState, list[TaskState]]] = [
    (run("running", started_at=START), [task(None), task(None, "next")]),
    (run(None), [task("running")]),
    (run(None), [task("up_for_retry")]),
    (run(None), [task("running", try_number=2)]),
    (run(None), [task("success", try_number=2)]),
    (run("success", started_at=START, finished_at=START), [task("success", try_number=2), task("skipped", "next")]),
]


def test_a_repeated_notice_changes_nothing(connection: Connection) -> None:
    for notice in NOTICES:
        execution_id = observations.observe(connection, *notice)
        before = summary(connection, execution_id)
        observations.observe(connection, *notice)
        assert summary(connection, execution_id) == before
    everything = summary(connection, execution_id)
    for notice in NOTICES:  # all of it again, late
        observations.observe(connection, *notice)
    assert summary(connection, execution_id) == everything
    assert everything[-1] == "end success"
    assert (row(connection)["attempt"], row(connection)["state"]) == (1, "success")


def test_concurrent_observers_append_each_change_once(engine: Engine, connection: Connection) -> None:
    def observe(_: int) -> None:
        for notice in NOTICES:
            with engine.begin() as own:
                observations.observe(own, *notice)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(observe, range(8)))
    execution_id = executions.ensure(connection, run())
    log = [f"{event.type} {dumps(event.payload)}" for event in log_of(connection, execution_id)]
    assert len(log) == len(set(log))
    assert summary(connection, execution_id)[-1] == "end success"


def test_a_cleared_run_starts_again(connection: Connection) -> None:
    execution_id = observations.observe(connection, run("running", started_at=START), [task("running")])
    over = START + timedelta(seconds=5)
    observations.observe(connection, run("failed", started_at=START, finished_at=over), [task("failed")])
    assert (row(connection)["attempt"], row(connection)["progress"]) == (1, 0)
    again = run("running", started_at=over + timedelta(minutes=1))
    observations.observe(connection, again, [task(None, try_number=2)])
    now = row(connection)
    assert (now["attempt"], now["state"], now["progress"], now["finished_at"]) == (2, "running", 0, None)
    assert now["started_at"] == again.started_at
    observations.observe(connection, run("success"), [task("success", try_number=2)])
    assert summary(connection, execution_id)[-4:] == [
        "workflow_update running", "task_update work success", "workflow_update success", "end success",
    ]  # fmt: skip
    assert row(connection)["attempt"] == 2


def test_a_late_running_does_not_start_a_finished_run_again(connection: Connection) -> None:
    """Two schedulers write their notices independently of each other."""
    over = START + timedelta(seconds=5)
    observations.observe(connection, run("success", started_at=START, finished_at=over), [task("success")])
    observations.observe(connection, run("running", started_at=START), [task("running")])
    assert (row(connection)["state"], row(connection)["attempt"], row(connection)["progress"]) == ("success", 1, 100)


@pytest.mark.parametrize("state", ["success", "failed", "cancelled"])
def test_nothing_is_appended_after_the_end(connection: Connection, state: str) -> None:
    execution_id = observations.observe(connection, run("running"), [task("running"), task("running", "next")])
    observations.observe(connection, run(state))
    assert summary(connection, execution_id)[-1] == f"end {state}"
    for late in (task("success"), task("failed", "next"), task("running", "third"), task("running", try_number=2)):
        observations.observe(connection, run(None), [late])
        observations.observe(connection, run(state), [late])
    assert summary(connection, execution_id)[-1] == f"end {state}"
    known = {task.task_id: task.state for task in executions.list_tasks(connection, execution_id)}
    assert known == {"work": "running", "next": "failed", "third": "running"}, "the snapshot still learns of it"


def test_a_second_end_is_appended(connection: Connection) -> None:
    """Someone marks a successful run as failed."""
    execution_id = observations.observe(connection, run("success"), [task("success")])
    observations.observe(connection, run("failed"), [task("failed")], observed_at=executions.clock(connection))
    assert summary(connection, execution_id)[-3:] == ["task_update work failed", "workflow_update failed", "end failed"]


def test_a_cancelled_run_stays_cancelled_when_airflow_calls_it_failed(connection: Connection) -> None:
    execution_id = observations.observe(connection, run("cancelled"))
    observations.observe(connection, run("failed"))
    observations.observe(connection, run("failed"), observed_at=executions.clock(connection))
    assert summary(connection, execution_id)[-1] == "end cancelled"


def test_a_reading_of_airflow_replaces_what_was_recorded_before_it(connection: Connection) -> None:
    execution_id = observations.observe(connection, run("success"), [task("success")])
    observations.observe(connection, run("running"), [task(None)], observed_at=executions.clock(connection))
    assert row(connection)["state"] == "running"
    assert [task.state for task in executions.list_tasks(connection, execution_id)] == [None]


def test_a_reading_that_began_before_a_notice_does_not_replace_it(connection: Connection) -> None:
    execution_id = observations.observe(connection, run("running"), [task("running")])
    began = executions.clock(connection)
    observations.observe(connection, run("success"), [task("success")])
    observations.observe(connection, run("running"), [task("running")], observed_at=began)
    assert row(connection)["state"] == "success"
    assert [task.state for task in executions.list_tasks(connection, execution_id)] == ["success"]
    assert summary(connection, execution_id)[-1] == "end success"


def test_a_reading_between_the_listeners_word_and_the_schedulers_commit_revives_nothing(connection: Connection) -> None:
    """The listener speaks inside the scheduler's transaction: until it commits, Airflow's API says `running`."""
    execution_id = observations.observe(connection, run("running", started_at=START), [task("running")])
    over = START + timedelta(seconds=5)
    observations.observe(connection, run("failed", started_at=START, finished_at=over), [task("failed")])
    before = summary(connection, execution_id)
    began = executions.clock(connection)
    observations.observe(connection, run("running", started_at=START), [task("running")], observed_at=began)
    now = row(connection)
    assert (now["state"], now["attempt"], now["finished_at"]) == ("failed", 1, over)
    # The transaction commits, and the next reading says so.
    committed = run("failed", started_at=START, finished_at=over)
    observations.observe(connection, committed, [task("failed")], observed_at=executions.clock(connection))
    assert summary(connection, execution_id) == before


@pytest.mark.parametrize("start", [None, START + timedelta(minutes=1)], ids=["reset", "later"])
def test_a_reading_revives_a_run_that_airflow_started_again(connection: Connection, start: datetime | None) -> None:
    over = START + timedelta(seconds=5)
    observations.observe(connection, run("failed", started_at=START, finished_at=over), [task("failed")])
    again = run("queued" if start is None else "running", started_at=start)
    observations.observe(connection, again, [task(None, try_number=1)], observed_at=executions.clock(connection))
    assert (row(connection)["state"], row(connection)["attempt"]) == (again.state, 2)


def test_a_run_awaits_input_while_only_a_person_can_move_it_on(connection: Connection) -> None:
    def read(*tasks: TaskState) -> str:
        seen = run("running", started_at=START)
        observations.observe(connection, seen, tasks, observed_at=executions.clock(connection))
        return str(row(connection)["state"])

    assert read(task("awaiting_input"), task("running", "other")) == "running"
    assert read(task("success", "other")) == "awaiting_input"
    execution_id = executions.ensure(connection, run())
    assert summary(connection, execution_id)[-1] == "workflow_update awaiting_input"
    assert read(task("scheduled")) == "running"
    observations.observe(connection, run("success", started_at=START), [task("success")])
    assert summary(connection, execution_id)[-2:] == ["workflow_update success", "end success"]


def test_the_placeholder_of_a_mapped_task_is_no_task(connection: Connection) -> None:
    """Airflow lists one with map_index -1 until it knows what the task maps over."""
    running = run("running", started_at=START, tasks_total=2)
    execution_id = observations.observe(connection, running, [task("success", "list"), task(None, "each")])
    mapped = [TaskState("each", index, 1, "success", START) for index in range(3)]
    observations.observe(
        connection, run("success", started_at=START, tasks_total=4), [task("success", "list"), *mapped]
    )
    now = row(connection)
    assert (now["tasks_done"], now["tasks_total"]) == (4, 4)
    listed = [(task.task_id, task.map_index) for task in executions.list_tasks(connection, execution_id)]
    assert listed == [("each", 0), ("each", 1), ("each", 2), ("list", -1)]


def test_a_task_that_was_renamed_meanwhile_is_not_counted_twice(connection: Connection) -> None:
    first = [task("success", "first"), task("running", "old")]
    observations.observe(connection, run("running", started_at=START, tasks_total=2), first)
    observations.observe(connection, run("running", started_at=START, tasks_total=3), [task(None, "new")])
    last = [task("success", "first"), task("removed", "old"), task("success", "new")]
    observations.observe(connection, run("success", started_at=START, tasks_total=3), last)
    assert (row(connection)["tasks_done"], row(connection)["tasks_total"]) == (2, 2)


def test_only_what_succeeded_of_a_failed_run_is_done(connection: Connection) -> None:
    tasks = [task("success", "a"), task("failed", "b"), task("upstream_failed", "c")]
    observations.observe(connection, run("failed", started_at=START, tasks_total=3), tasks)
    now = row(connection)
    assert (now["tasks_done"], now["tasks_total"], now["progress"]) == (1, 3, 33)


def test_a_late_queued_does_not_reset_a_running_run(connection: Connection) -> None:
    observations.observe(connection, run("running"))
    observations.observe(connection, run("queued"))
    assert row(connection)["state"] == "running"


def test_a_running_task_makes_its_run_running(connection: Connection) -> None:
    execution_id = observations.observe(connection, run(None), [task("running")])
    assert summary(connection, execution_id) == [
        "workflow_update queued", "task_update work running", "workflow_update running",
    ]  # fmt: skip


def test_the_row_is_the_same_whoever_writes_it_first(engine: Engine, connection: Connection) -> None:
    wanted = "11111111-2222-4333-8444-555555555555"
    given = {"execution_id": wanted, "user_id": "ulla", "triggered_by": "otto", "idempotency_key": "k", "budget": 5.0}
    conf = {"query": "?", "api_key": "sk-verysecretkey", "_visual_ai": signed(run_key(connection), "dag", "run", given)}

    def ensure(_: int) -> str:
        with engine.begin() as own:
            return str(executions.ensure(own, run("queued", conf=conf, user="airflow")))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ensure, range(16))) == {wanted}
    found = row(connection)
    assert (found["user_id"], found["triggered_by"], found["idempotency_key"]) == ("ulla", "otto", "k")
    assert found["input_data"] == {"query": "?", "api_key": "[redacted]"}
    assert summary(connection, wanted) == ["workflow_update queued"]

    copied = executions.ensure(connection, RunState("dag", "copied conf", "queued", conf=conf, user="uwe"))
    assert copied != wanted
    other = executions.read(connection, copied)
    assert (other["user_id"], other["triggered_by"], other["idempotency_key"]) == ("uwe", "uwe", None)
    assert other["input_data"]["_visual_ai"]["user_id"] == "ulla"  # as the caller's own input


@pytest.mark.parametrize(
    "conf",
    [
        {"_visual_ai": "x"},
        {"_visual_ai": {"user_id": 5, "execution_id": "?", "template_version": "x"}},
        {"_visual_ai": {"user_id": "anna", "triggered_by": "anna", "signature": "0" * 64}},
        {"_visual_ai": {"user_id": "anna", "signature": "ä"}},
        {"_visual_ai": {"user_id": "anna", "signature": None}},
    ],
)
def test_a_conf_with_a_forged_system_key_is_still_recorded(connection: Connection, conf: dict[str, Any]) -> None:
    assert executions.ensure(connection, run("queued", conf=conf, user="uwe"))
    found = row(connection)
    assert found["input_data"] == conf
    assert (found["user_id"], found["triggered_by"]) == ("uwe", "uwe")


def test_usage_adds_up_and_an_unknown_price_does_not_erase_the_cost(connection: Connection) -> None:
    execution_id = executions.ensure(connection, run())
    used = {"id": execution_id, "input_tokens": 10, "output_tokens": 1}
    executions.add_usage(connection, [{**used, "cost_usd": None}])
    assert row(connection)["cost_usd"] is None
    for _ in range(3):
        executions.add_usage(connection, [{**used, "cost_usd": Decimal("0.00000001")}])
    found = row(connection)
    assert (found["input_tokens"], found["output_tokens"], found["cost_usd"]) == (40, 4, Decimal("0.00000003"))


def test_the_error_of_a_failed_task_precedes_its_state(connection: Connection) -> None:
    execution_id = observations.observe(connection, run("running"), [task("running")])
    error = TimeoutError("postgresql://me:secret@db said no")
    record(connection, Notice(run(None), (task("up_for_retry"),), error, "task_retry"))
    assert summary(connection, execution_id)[-2:] == [
        "error work postgresql://[redacted]@db said no",
        "task_update work up_for_retry",
    ]
    [found] = errors_of(connection, execution_id)
    assert (found["category"], found["action"], found["attempt"]) == ("timeout", "task_retry", 1)
    recorded = as_failure(ValueError("once is enough")).as_recorded()
    record(connection, Notice(run(None), (task("failed", try_number=2),), recorded, "fail"))
    assert len(errors_of(connection, execution_id)) == 1


def test_many_cursors_are_read_with_one_query(connection: Connection) -> None:
    ids = [executions.ensure(connection, RunState("dag", f"run {i}", "queued")) for i in range(3)]
    for execution_id in ids:
        events.append(connection, execution_id, [NewEvent("token", {"n": n}) for n in range(5)])
    found = events.read_many_after(connection, {ids[0]: 2, ids[1]: 6, ids[2]: 0}, per_execution=3)
    by_id = {execution_id: [e.seq for e in found if e.execution_id == execution_id] for execution_id in ids}
    assert by_id == {ids[0]: [3, 4, 5], ids[1]: [], ids[2]: [1, 2, 3]}
