"""One writer for the records of many tasks: written in order per task, and isolated when one is rejected."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, text

from backend.core.events import NewEvent
from backend.core.states import TaskState
from backend.db.engine import Database
from backend.db.runs import errors, events, executions, observations, results, takeover, threads, traces
from backend.db.runs.executions import RunState
from backend.db.runs.threads import ClaimRequest, SupersededError
from backend.db.runs.traces import Place
from backend.observation.recording import recorder as recorder_module
from backend.observation.recording.recorder import Recorder
from backend.observation.recording.records import (
    Events,
    Record,
    RowsWithEvents,
    RunResult,
    RunUsage,
    StateChange,
    TraceRow,
    write_records,
)
from backend.observation.recording.writer import RecordWriter
from tests.kit.servers.postgres import Postgres
from tests.kit.waiting import eventually

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def admin(pg: Postgres) -> Iterator[Engine]:
    engine = create_engine(pg.admin_url)
    yield engine
    engine.dispose()


def recorder_of(
    writer: RecordWriter, run: str, *, task: str = "task", try_number: int = 1, map_index: int = -1
) -> Recorder:
    return Recorder(writer, Place("dag", run, task, map_index, try_number), RunState("dag", run, None))


def token_record(payload: Any) -> Record:
    return Events([NewEvent("token", {"said": payload})])


def fails(connection: Connection, _execution_id: str) -> list[NewEvent]:
    connection.execute(text("SELECT 1 / 0"))
    return []


refused = RowsWithEvents(fails)


def row_of(recorder: Recorder, state: str) -> Record:
    row: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "state": state,
        "started_at": NOW,
        "input_tokens": 0,
        "output_tokens": 0,
    }
    place = replace(recorder.place, agent="text", agent_type="text")
    return TraceRow(lambda: traces.row(place, **row), NewEvent("agent_update", {"said": state}))


async def log_of(database: Database, recorder: Recorder) -> list[tuple[int, Any]]:
    """The sequence numbers and contents of the reported events."""
    assert recorder.execution_id is not None
    found = await database.run(events.read_after, recorder.execution_id, 0, limit=10_000)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    return [(event.seq, event.payload.get("said", event.payload.get("state"))) for event in found]


async def reported(database: Database, recorder: Recorder) -> list[Any]:
    return [word for _, word in await log_of(database, recorder)]


async def take(recorder: Recorder, *, input_hash: str = "input") -> threads.Claim:
    return await recorder.take_thread([recorder.thread_id], input_hash, instance=None)


async def test_tasks_that_start_and_end_together_share_transactions(database: Database) -> None:
    transactions = 0
    real = database.run

    async def counted(function: Callable[..., Any], *args: Any, **given: Any) -> Any:
        nonlocal transactions
        transactions += function is write_records
        return await real(function, *args, **given)

    database.run = counted  # type: ignore[method-assign]
    writer = RecordWriter(database, shared=True)
    recorders = [recorder_of(writer, f"run {number}") for number in range(30)]
    for recorder in recorders:
        recorder.put(StateChange(TaskState("task", -1, 1, "running", NOW)))
    await asyncio.gather(*(take(recorder) for recorder in recorders))
    for number, recorder in enumerate(recorders):
        recorder.put(row_of(recorder, "failed"))
        recorder.put(RunUsage(number, 1, None))
        recorder.put(RunUsage(1, 1, None))
        recorder.put(RunResult({"answer": number}))
        recorder.put(StateChange(TaskState("task", -1, 1, "success", NOW, NOW, 0.0)))
        recorder.put(token_record("the last word"))
    await asyncio.gather(*(recorder.flush() for recorder in recorders))
    assert transactions == 2
    for number, recorder in enumerate(recorders):
        assert await reported(database, recorder) == [
            "queued", "running", "running", "failed", "success", "running", "the last word",
        ]  # fmt: skip
        row: Any = await database.run(executions.read, str(recorder.execution_id))
        assert (row["input_tokens"], row["output_tokens"]) == (number + 1, 2)
        assert row["output_data"] == {"answer": number}
        assert not recorder.superseded
    assert await database.run(_count, "workflow_threads WHERE completed AND epoch = 1") == 30


async def test_each_instance_of_a_mapped_task_keeps_its_result(database: Database) -> None:
    """Also when their records are written together, and when a later try returns something else."""
    writer = RecordWriter(database, shared=True)
    recorders = [recorder_of(writer, "run", map_index=index) for index in range(20)]
    await asyncio.gather(*(take(recorder) for recorder in recorders))
    for number, recorder in enumerate(recorders):
        recorder.put(RunResult({"answer": number}))
    await asyncio.gather(*(recorder.flush() for recorder in recorders))
    second = recorder_of(writer, "run", try_number=2, map_index=3)
    await take(second)
    second.put(RunResult({"answer": "again"}))
    await second.flush()
    row = await database.run(executions.get, "dag", "run")
    assert row is not None
    expected: list[Any] = [{"answer": number} for number in range(20)]
    expected[3] = {"answer": "again"}
    assert await database.run(results.shown, row) == expected


def _count(connection: Connection, what: str) -> int:
    return int(connection.execute(text(f"SELECT count(*) FROM visual_ai.{what}")).scalar_one())


async def test_writers_of_the_same_runs_leave_no_gap_and_keep_each_ones_order(database: Database, pg: Postgres) -> None:
    """As two triggerers that run tasks of the same runs, beside listeners that write to single ones."""
    runs, rounds = [f"run {number}" for number in range(8)], 25
    writers = [RecordWriter(database, shared=True) for _ in range(3)]
    recorders = [
        recorder_of(writer, run, task=f"task {number}")
        for number, writer in enumerate(writers)
        for run in (runs if number % 2 else reversed(runs))
    ]
    await asyncio.gather(*(take(recorder) for recorder in recorders))

    async def tell(recorder: Recorder) -> None:
        for number in range(rounds):
            recorder.put(token_record([recorder.place.task_id, number]))
            recorder.put(row_of(recorder, "running"))
            if number % 5 == 0:
                await recorder.flush()
        await recorder.flush()

    async def notice(run: str) -> None:
        for number in range(rounds):
            seen = TaskState("another", -1, number + 1, "running", NOW)
            await database.run(observations.observe, RunState("dag", run, None), [seen])

    await asyncio.gather(*(tell(recorder) for recorder in recorders), *(notice(run) for run in runs))
    for recorder in recorders:
        words = [word for word in await reported(database, recorder) if isinstance(word, list)]
        own = [number for task, number in words if task == recorder.place.task_id]
        assert own == list(range(rounds))
        assert len(words) == 3 * rounds
        assert recorder.dropped == 0


async def test_only_the_superseded_of_many_tries_reports_nothing(database: Database) -> None:
    writer = RecordWriter(database, shared=True)
    recorders = [recorder_of(writer, f"run {number}") for number in range(5)]
    await asyncio.gather(*(take(recorder) for recorder in recorders))
    another = recorder_of(RecordWriter(database), "run 2")  # the same try in another triggerer
    await take(another)
    for recorder in recorders:
        recorder.put(row_of(recorder, "success"))
        recorder.put(RunUsage(10, 1, None))
        recorder.put(RunResult({"answer": "late"}))
        recorder.put(StateChange(TaskState("task", -1, 1, "success", NOW, NOW, 0.0)))
    await asyncio.gather(*(recorder.flush() for recorder in recorders))
    assert [recorder.superseded for recorder in recorders] == [False, False, True, False, False]
    for number, recorder in enumerate(recorders):
        row = await database.run(executions.read, str(recorder.execution_id))
        assert row["output_data"] == (None if number == 2 else {"answer": "late"})
        assert row["input_tokens"] == 10, "what was used was used"
        contents = await reported(database, recorder)
        assert contents == (["queued"] if number == 2 else ["queued", "success", "success", "running"])
    assert await database.run(_count, "workflow_tasks WHERE state = 'success'") == 4


async def test_a_rejected_record_does_not_affect_other_tasks(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    writer = RecordWriter(database, shared=True)
    recorders = [recorder_of(writer, f"run {number}") for number in range(5)]
    for number, recorder in enumerate(recorders):
        recorder.put(token_record("before"))
        if number in (1, 3):
            recorder.put(refused)
        recorder.put(token_record("after"))
    claims = await asyncio.gather(*(take(recorder) for recorder in recorders))
    assert [claim.epoch for claim in claims] == [1] * 5
    for recorder in recorders:
        assert await reported(database, recorder) == ["queued", "before", "after"]
    assert [recorder.dropped for recorder in recorders] == [0, 1, 0, 1, 0]
    assert caplog.text.count("a record could not be written") == 2


async def test_a_locked_run_does_not_delay_others(database: Database, admin: Engine) -> None:
    writer = RecordWriter(database, shared=True)
    recorders = [recorder_of(writer, f"run {number}") for number in range(3)]
    await asyncio.gather(*(take(recorder) for recorder in recorders))
    locked = recorders[1]
    with admin.begin() as connection:
        executions.read(connection, str(locked.execution_id), lock=True)
        for recorder in recorders:
            recorder.put(token_record("first"))
        async with asyncio.timeout(10):
            await asyncio.gather(recorders[0].flush(), recorders[2].flush())
        locked.put(refused)
        locked.put(token_record("second"))
        recorders[0].put(token_record("second"))
        async with asyncio.timeout(10):
            await recorders[0].flush()
        assert await reported(database, locked) == ["queued"]
    await locked.flush()
    assert await reported(database, locked) == ["queued", "first", "second"]
    assert locked.dropped == 1


async def test_an_uncommitted_error_row_does_not_delay_others(database: Database, admin: Engine) -> None:
    """A row that refers to a run shares its key; a transaction that inserts one and then reports it waits for us."""
    writer = RecordWriter(database, shared=True)
    recorder = recorder_of(writer, "run")
    await take(recorder)
    with admin.begin() as connection:
        place = replace(recorder.place, agent="text")
        error: dict[str, Any] = {"category": "internal", "exception_type": "E", "message": "", "action": "fail"}
        errors.add(connection, str(recorder.execution_id), place, **error)
        recorder.put(StateChange(TaskState("task", -1, 1, "success", NOW, NOW, 0.0)))
        async with asyncio.timeout(10):
            await recorder.flush()
        assert await reported(database, recorder) == ["queued", "success", "running"]


async def test_a_task_that_ran_ahead_still_waits_for_its_last_records(
    database: Database, admin: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = recorder_of(RecordWriter(database), "run")
    await take(recorder)
    with admin.begin() as connection:
        connection.execute(text("LOCK TABLE visual_ai.workflow_events IN ACCESS EXCLUSIVE MODE"))
        recorder.put(token_record("said"))
        monkeypatch.setattr(recorder_module, "FLUSH_SECONDS", 0.1)
        await recorder.room(0)
        monkeypatch.setattr(recorder_module, "FLUSH_SECONDS", 30)
        last = asyncio.create_task(recorder.flush())
        await asyncio.sleep(0.1)
        assert not last.done()
    await last
    assert "said" in await reported(database, recorder)


async def test_a_deleted_run_loses_only_its_own_records(database: Database, admin: Engine) -> None:
    writer = RecordWriter(database, shared=True)
    gone, stays = recorder_of(writer, "gone"), recorder_of(writer, "stays")
    await asyncio.gather(take(gone), take(stays))
    with admin.begin() as connection:
        connection.execute(text("DELETE FROM visual_ai.workflow_executions WHERE dag_run_id = 'gone'"))
    for recorder in (gone, stays):
        recorder.put(token_record("still here"))
        await recorder.flush()
    assert (gone.dropped, stays.dropped) == (1, 0)
    assert await reported(database, stays) == ["queued", "still here"]


async def test_concurrent_claims_are_independent(database: Database) -> None:
    writer = RecordWriter(database, shared=True)
    first = [recorder_of(writer, f"run {number}") for number in range(4)]
    await asyncio.gather(*(take(recorder) for recorder in first))
    first[0].put(row_of(first[0], "running"))  # left open
    await first[0].flush()
    again = [recorder_of(writer, f"run {number}", try_number=0 if number == 3 else 1) for number in range(4)]
    found = await asyncio.gather(
        take(again[0]),
        take(again[1], input_hash="another"),
        take(again[2]),
        take(again[3]),
        return_exceptions=True,
    )
    assert [isinstance(one, SupersededError) for one in found] == [False, False, False, True]
    claims = [one for one in found if isinstance(one, threads.Claim)]
    assert [(claim.epoch, claim.resumes) for claim in claims] == [(2, True), (2, False), (2, True)]
    lost = await database.run(_count, f"workflow_errors WHERE exception_type = '{takeover.PROCESS_LOST}'")
    assert lost == 1
    assert (await reported(database, again[0]))[-2:] == ["cancelled", None]  # the row, and the error that reports it


async def test_two_tries_that_claim_the_same_thread_get_it_in_turn(database: Database) -> None:
    writer = RecordWriter(database, shared=True)
    claims = await asyncio.gather(*(take(recorder_of(writer, "run")) for _ in range(3)))
    assert sorted(claim.epoch for claim in claims) == [1, 2, 3]


async def test_a_takeover_during_writes_does_not_deadlock(database: Database) -> None:
    """A claim ends what the one before left open, whose recorder completes just that."""
    late = RecordWriter(database, shared=True)
    recorders = [recorder_of(late, f"run {number}") for number in range(6)]
    await asyncio.gather(*(take(recorder) for recorder in recorders))
    values: dict[str, Any] = {"started_at": NOW, "input_tokens": 0, "output_tokens": 0}

    def completed(recorder: Recorder, state: str) -> Record:
        key = str(uuid.uuid5(uuid.NAMESPACE_OID, recorder.thread_id))
        place = replace(recorder.place, agent="text", agent_type="text")
        return TraceRow(lambda: traces.row(place, id=key, state=state, **values))

    for _ in range(10):
        for recorder in recorders:
            recorder.put(completed(recorder, "running"))
        await recorders[0].flush()
        writer = RecordWriter(database, shared=True)
        for recorder in recorders:
            recorder.put(completed(recorder, "success"))
        await asyncio.gather(
            *(take(recorder_of(writer, recorder.run.dag_run_id)) for recorder in reversed(recorders)),
            *(recorder.flush() for recorder in recorders),
        )
    assert not any(recorder.dropped for recorder in recorders)


async def test_queued_records_are_written_after_the_loop_cancelled_the_writer(database: Database) -> None:
    writer = RecordWriter(database, shared=True)
    recorder = recorder_of(writer, "run")
    await take(recorder)
    recorder.put(token_record("goodbye"))
    await asyncio.sleep(0)  # it has begun to wait for others
    writer.close()
    recorder.put(token_record("really"))
    await recorder.flush()
    assert await reported(database, recorder) == ["queued", "goodbye", "really"]


async def test_an_abandoned_claim_is_not_made(database: Database, admin: Engine) -> None:
    writer = RecordWriter(database, shared=True)
    recorder = recorder_of(writer, "run")
    recorder.put(token_record("here"))
    await recorder.flush()
    with admin.begin() as connection:
        executions.read(connection, str(recorder.execution_id), lock=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await take(recorder)
    await recorder.flush()
    await eventually(lambda: recorder._unwritten == 0)
    assert await database.run(_count, "workflow_threads") == 0
    assert recorder.claim is None


def test_claims_of_many_threads_in_one_statement(admin: Engine, database_url: str) -> None:
    with admin.begin() as connection:
        ids = [executions.ensure(connection, RunState("dag", f"run {number}", None)) for number in range(3)]
        wanted = [ClaimRequest(key, f"thread {key}", 1, ["one", "two"], "hash", "instance") for key in ids]
        claims = threads.begin(connection, wanted)
        assert all(isinstance(claim, threads.Claim) and claim.epoch == 1 and not claim.resumes for claim in claims)
        assert threads.held(connection, {claim for claim in claims if isinstance(claim, threads.Claim)}) == set(claims)
        (second,) = threads.begin(connection, [wanted[1]])
        assert isinstance(second, threads.Claim)
        assert second.resumes
        lasting = threads.held(connection, {*(one for one in claims if isinstance(one, threads.Claim)), second})
        assert lasting == {claims[0], second, claims[2]}
