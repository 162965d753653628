"""The log of events and what is recorded of runs: gapless, fenced, and right in the end."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine

from backend.core.events import CHANNEL, Event, NewEvent
from backend.core.jsonable import dumps
from backend.core.states import TaskState
from backend.db.address import plain_url
from backend.db.runs import errors, events, executions, observations, run_usage
from backend.db.runs.events import TryEvents
from backend.db.runs.executions import RunState
from backend.db.runs.run_usage import UsageIncrement
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
    """Each statement is committed at once, as if by a process of its own."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def run(state: str | None = "running", **more: Any) -> RunState:
    return RunState("dag", "run", state, **more)


def task(state: str | None, task_id: str = "work", try_number: int = 1) -> TaskState:
    return TaskState(task_id, -1, try_number, state, START)


def log_of(connection: Connection, execution_id: str) -> list[Event]:
    return events.read_after(connection, execution_id, 0, limit=10_000)


def told(connection: Connection, execution_id: str) -> list[str]:
    """The log in short."""
    short = []
    for event in log_of(connection, execution_id):
        state = event.payload.get("state", event.payload.get("message"))
        name = event.payload.get("task_id")
        short.append(f"{event.type} {name} {state}" if name else f"{event.type} {state}")
    return short


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
    assert seen == list(range(1, len(log) + 1)), "a reader that follows the log saw a hole"
    for writer in range(8):
        own = [(e.payload["n"], e.payload["i"]) for e in log if e.payload.get("writer") == writer]
        assert own == [(n, i) for n in range(25) if n % 5 != 4 for i in range(1 + n % 3)]


def test_seq_has_no_gap_when_many_runs_are_told_of_at_once(engine: Engine, connection: Connection) -> None:
    """Writers with the same runs in different orders, among others that append to single ones."""
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
                told = [
                    TryEvents(
                        execution_id,
                        f"task {writer}",
                        -1,
                        1,
                        [new] * size,
                    )
                    for execution_id, size in zip(chosen.sample(ids, 3), (1, 0, 2), strict=True)
                ]
                assert events.append_from_tries(own, [*told, told[0]]) == {0, 2, 3}
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
        assert seen[execution_id] == list(range(1, len(seen[execution_id]) + 1)), "a reader saw a hole"
        for writer in range(writers):
            own = [event.payload["n"] for event in log if event.payload.get("writer") == writer]
            assert own == sorted(own)


def test_a_notification_comes_with_the_commit(engine: Engine, connection: Connection, database_url: str) -> None:
    execution_id = executions.ensure(connection, run())
    with psycopg.connect(plain_url(database_url), autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        with engine.begin() as own:
            assert events.append(own, execution_id, [NewEvent("token", {}), NewEvent("token", {})]) == 3
            assert not list(listener.notifies(timeout=0.1))
        assert [n.payload for n in listener.notifies(timeout=2, stop_after=1)] == [f"{execution_id} 3"]


def test_an_unknown_execution(connection: Connection) -> None:
    unknown = "00000000-0000-0000-0000-000000000001"
    with pytest.raises(LookupError):
        events.append(connection, unknown, [NewEvent("token", {})])
    assert events.append_from_tries(connection, [TryEvents(unknown, "work", -1, 1, [NewEvent("token", {})])]) == set()


def test_what_postgres_does_not_take_is_left_out(connection: Connection) -> None:
    execution_id = executions.ensure(connection, run(conf={"text": "a\x00b\ud83d", "n": float("nan")}))
    events.append(connection, execution_id, [NewEvent("token", {"text": "x\x00y\ud83d", "n": float("inf")})])
    assert log_of(connection, execution_id)[-1].payload == {"text": "xy?", "n": None}
    assert row(connection)["input_data"] == {"text": "ab?", "n": None}
    place = Place("dag", "run", "work", -1, 1, "a", "text")
    errors.add(
        connection, execution_id, place, category="internal", exception_type="E", message="a\x00b\ud83d",
        action="fail", context={"chain": ["c\x00d"]},
    )  # fmt: skip
    assert [error["message"] for error in errors.list_for(connection, execution_id)] == ["ab?"]


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
def test_a_try_that_lost_its_place_is_not_heard(
    connection: Connection, known: TaskState | None, run_state: str, speaks: int, heard: bool
) -> None:
    execution_id = observations.observe(connection, run(run_state), [known] if known else [])
    before = row(connection)["last_seq"]
    told = TryEvents(execution_id, "work", -1, speaks, [NewEvent("token", {"text": "hello"})])
    assert events.append_from_tries(connection, [told]) == ({0} if heard else set())
    assert row(connection)["last_seq"] == (before + 1 if heard else before)


def test_another_map_index_is_another_task(connection: Connection) -> None:
    execution_id = observations.observe(connection, run(), [TaskState("work", 1, 5, "running")])
    told = [TryEvents(execution_id, "work", map_index, 1, [NewEvent("token", {})]) for map_index in (0, 1)]
    assert events.append_from_tries(connection, told) == {0}


def test_a_whole_run(connection: Connection) -> None:
    execution_id = observations.observe(connection, run("queued"))
    observations.observe(connection, run("running", started_at=START), [task(None), task(None, "next")])
    observations.observe(connection, run(None), [task("running")])
    observations.observe(connection, run(None), [task("success")])
    observations.observe(connection, run(None), [task("running", "next")])
    observations.observe(connection, run(None), [task("success", "next")])
    executions.set_results(connection, {execution_id: {"answer": 42}})
    observations.observe(connection, run("success", finished_at=START + timedelta(seconds=3)))
    assert told(connection, execution_id) == [
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


NOTICES: list[tuple[RunState, list[TaskState]]] = [
    (run("running", started_at=START), [task(None), task(None, "next")]),
    (run(None), [task("running")]),
    (run(None), [task("up_for_retry")]),
    (run(None), [task("running", try_number=2)]),
    (run(None), [task("success", try_number=2)]),
    (run("success", started_at=START, finished_at=START), [task("success", try_number=2), task("skipped", "next")]),
]


def test_notices_may_come_twice(connection: Connection) -> None:
    for notice in NOTICES:
        execution_id = observations.observe(connection, *notice)
        before = told(connection, execution_id)
        observations.observe(connection, *notice)
        assert told(connection, execution_id) == before
    everything = told(connection, execution_id)
    for notice in NOTICES:  # all of it again, late
        observations.observe(connection, *notice)
    assert told(connection, execution_id) == everything
    assert everything[-1] == "end success"
    assert (row(connection)["attempt"], row(connection)["state"]) == (1, "success")


def test_concurrent_observers_tell_each_change_once(engine: Engine, connection: Connection) -> None:
    def observe(_: int) -> None:
        for notice in NOTICES:
            with engine.begin() as own:
                observations.observe(own, *notice)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(observe, range(8)))
    execution_id = executions.ensure(connection, run())
    log = [f"{event.type} {dumps(event.payload)}" for event in log_of(connection, execution_id)]
    assert len(log) == len(set(log))
    assert told(connection, execution_id)[-1] == "end success"


def test_a_cleared_run_starts_again(connection: Connection) -> None:
    execution_id = observations.observe(connection, run("running", started_at=START), [task("running")])
    over = START + timedelta(seconds=5)
    observations.observe(connection, run("failed", started_at=START, finished_at=over), [task("failed")])
    assert (row(connection)["attempt"], row(connection)["progress"]) == (1, 99)
    again = run("running", started_at=over + timedelta(minutes=1))
    observations.observe(connection, again, [task(None, try_number=2)])
    now = row(connection)
    assert (now["attempt"], now["state"], now["progress"], now["finished_at"]) == (2, "running", 0, None)
    assert now["started_at"] == again.started_at
    observations.observe(connection, run("success"), [task("success", try_number=2)])
    assert told(connection, execution_id)[-4:] == [
        "workflow_update running", "task_update work success", "workflow_update success", "end success",
    ]  # fmt: skip
    assert row(connection)["attempt"] == 2


def test_a_late_running_does_not_start_a_finished_run_again(connection: Connection) -> None:
    """Two schedulers write their notices independently."""
    over = START + timedelta(seconds=5)
    observations.observe(connection, run("success", started_at=START, finished_at=over), [task("success")])
    observations.observe(connection, run("running", started_at=START), [task("running")])
    assert (row(connection)["state"], row(connection)["attempt"], row(connection)["progress"]) == ("success", 1, 100)


@pytest.mark.parametrize("state", ["success", "failed", "cancelled"])
def test_nothing_follows_the_end(connection: Connection, state: str) -> None:
    execution_id = observations.observe(connection, run("running"), [task("running"), task("running", "next")])
    observations.observe(connection, run(state))
    assert told(connection, execution_id)[-1] == f"end {state}"
    for late in (task("success"), task("failed", "next"), task("running", "third"), task("running", try_number=2)):
        observations.observe(connection, run(None), [late])
        observations.observe(connection, run(state), [late])
    assert told(connection, execution_id)[-1] == f"end {state}"
    known = {task.task_id: task.state for task in executions.list_tasks(connection, execution_id)}
    assert known == {"work": "running", "next": "failed", "third": "running"}, "the snapshot still learns of it"


def test_another_end_is_told(connection: Connection) -> None:
    """Somebody marks a run that succeeded as failed."""
    execution_id = observations.observe(connection, run("success"), [task("success")])
    observations.observe(connection, run("failed"), [task("failed")], observed_at=executions.clock(connection))
    assert told(connection, execution_id)[-3:] == ["task_update work failed", "workflow_update failed", "end failed"]


def test_a_cancelled_run_stays_cancelled_when_airflow_calls_it_failed(connection: Connection) -> None:
    execution_id = observations.observe(connection, run("cancelled"))
    observations.observe(connection, run("failed"))
    observations.observe(connection, run("failed"), observed_at=executions.clock(connection))
    assert told(connection, execution_id)[-1] == "end cancelled"


def test_a_reading_of_airflow_corrects_what_was_written_before_it(connection: Connection) -> None:
    execution_id = observations.observe(connection, run("success"), [task("success")])
    observations.observe(connection, run("running"), [task(None)], observed_at=executions.clock(connection))
    assert row(connection)["state"] == "running"
    assert [task.state for task in executions.list_tasks(connection, execution_id)] == [None]


def test_a_reading_of_airflow_that_began_before_a_notice_is_only_a_notice(connection: Connection) -> None:
    execution_id = observations.observe(connection, run("running"), [task("running")])
    began = executions.clock(connection)
    observations.observe(connection, run("success"), [task("success")])
    observations.observe(connection, run("running"), [task("running")], observed_at=began)
    assert row(connection)["state"] == "success"
    assert [task.state for task in executions.list_tasks(connection, execution_id)] == ["success"]
    assert told(connection, execution_id)[-1] == "end success"


def test_a_late_queued_does_not_stop_a_run(connection: Connection) -> None:
    observations.observe(connection, run("running"))
    observations.observe(connection, run("queued"))
    assert row(connection)["state"] == "running"


def test_a_task_that_is_seen_first_starts_the_run(connection: Connection) -> None:
    execution_id = observations.observe(connection, run(None), [task("running")])
    assert told(connection, execution_id) == [
        "workflow_update queued", "task_update work running", "workflow_update running",
    ]  # fmt: skip


def test_whoever_writes_first_the_row_is_the_same(engine: Engine, connection: Connection) -> None:
    wanted = "11111111-2222-4333-8444-555555555555"
    conf = {
        "query": "?", "api_key": "sk-verysecretkey",
        "_visual_ai": {"execution_id": wanted, "user_id": "ulla", "triggered_by": "otto", "idempotency_key": "k"},
    }  # fmt: skip

    def ensure(_: int) -> str:
        with engine.begin() as own:
            return str(executions.ensure(own, run("queued", conf=conf, user="airflow")))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ensure, range(16))) == {wanted}
    found = row(connection)
    assert (found["user_id"], found["triggered_by"], found["idempotency_key"]) == ("ulla", "otto", "k")
    assert found["input_data"] == {"query": "?", "api_key": "[redacted]"}
    assert told(connection, wanted) == ["workflow_update queued"]

    copied = executions.ensure(connection, RunState("dag", "copied conf", "queued", conf=conf))
    assert copied != wanted


@pytest.mark.parametrize(
    "conf", [{"_visual_ai": "x"}, {"_visual_ai": {"user_id": 5, "execution_id": "?", "template_version": "x"}}]
)
def test_a_conf_that_imitates_ours_is_recorded_all_the_same(connection: Connection, conf: dict[str, Any]) -> None:
    assert executions.ensure(connection, run("queued", conf=conf))
    assert row(connection)["input_data"] == {}


def test_usage_adds_up_and_an_unknown_price_spoils_nothing(connection: Connection) -> None:
    execution_id = executions.ensure(connection, run())
    run_usage.add(connection, [UsageIncrement(execution_id, 10, 1, None)])
    assert row(connection)["cost_usd"] is None
    for _ in range(3):
        run_usage.add(connection, [UsageIncrement(execution_id, 10, 1, Decimal("0.00000001"))])
    found = row(connection)
    assert (found["input_tokens"], found["output_tokens"], found["cost_usd"]) == (40, 4, Decimal("0.00000003"))


class Recorded(Exception):
    visual_ai_recorded = True


def test_a_failed_tasks_error_stands_before_its_state(connection: Connection) -> None:
    execution_id = observations.observe(connection, run("running"), [task("running")])
    error = TimeoutError("postgresql://me:secret@db said no")
    record(connection, Notice(run(None), (task("up_for_retry"),), error, "task_retry"))
    assert told(connection, execution_id)[-2:] == [
        "error work postgresql://[redacted]@db said no",
        "task_update work up_for_retry",
    ]
    [found] = errors.list_for(connection, execution_id)
    assert (found["category"], found["action"], found["attempt"]) == ("timeout", "task_retry", 1)
    record(connection, Notice(run(None), (task("failed", try_number=2),), Recorded("once is enough"), "fail"))
    assert len(errors.list_for(connection, execution_id)) == 1


def test_many_cursors_are_read_at_once(connection: Connection) -> None:
    ids = [executions.ensure(connection, RunState("dag", f"run {i}", "queued")) for i in range(3)]
    for execution_id in ids:
        events.append(connection, execution_id, [NewEvent("token", {"n": n}) for n in range(5)])
    found = events.read_many_after(connection, {ids[0]: 2, ids[1]: 6, ids[2]: 0}, per_execution=3)
    by_id = {execution_id: [e.seq for e in found if e.execution_id == execution_id] for execution_id in ids}
    assert by_id == {ids[0]: [3, 4, 5], ids[1]: [], ids[2]: [1, 2, 3]}
