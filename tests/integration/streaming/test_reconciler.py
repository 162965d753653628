"""The recorded state converges on Airflow's, whoever changed what there and whatever notices were lost."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text

from backend.clients.airflow import AirflowClient, AirflowUnavailable
from backend.core.states import TaskState
from backend.db.address import plain_url
from backend.db.engine import Database, make_async_engine
from backend.db.runs import events, executions, leftovers, observations, traces
from backend.db.runs.executions import RunState
from backend.db.runs.traces import Place
from backend.services.recording import reconciler as reconciler_module
from backend.services.recording.reconciler import Reconciler
from tests.kit.airflow import FakeAirflow
from tests.kit.application import make_settings
from tests.kit.waiting import eventually

DAG = "some_dag"


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag(DAG, params={})
    return airflow


@asynccontextmanager
async def made(url: str, airflow: FakeAirflow, **changes: Any) -> AsyncIterator[tuple[Reconciler, AirflowClient]]:
    """A reconciler that has not been started, and its Airflow client."""
    settings = make_settings(url, **changes)
    database = Database(make_async_engine(url, application="test", pool_size=3))
    client = AirflowClient(settings, airflow.transport)
    try:
        yield Reconciler(settings, client, database, database), client
    finally:
        await client.close()
        await database.close()


@pytest.fixture
async def reconciler(database_url: str, airflow: FakeAirflow) -> AsyncIterator[Reconciler]:
    async with made(database_url, airflow) as (reconciler, _):
        yield reconciler


def observe(engine: Engine, run_id: str, state: str | None, *tasks: TaskState) -> str:
    with engine.begin() as connection:
        return observations.observe(connection, RunState(DAG, run_id, state), tasks)


def row(engine: Engine, run_id: str = "run") -> dict[str, Any] | None:
    with engine.connect() as connection:
        found = executions.get(connection, DAG, run_id)
    return dict(found) if found else None


def state(engine: Engine, run_id: str = "run") -> tuple[str, dict[str, str | None]] | None:
    """The recorded state of a run and its tasks."""
    found = row(engine, run_id)
    if found is None:
        return None
    with engine.connect() as connection:
        return found["state"], {
            task.task_id: task.state for task in executions.list_tasks(connection, str(found["id"]))
        }


def told(engine: Engine, run_id: str = "run") -> list[str]:
    found = row(engine, run_id)
    assert found is not None
    with engine.connect() as connection:
        log = events.read_after(connection, str(found["id"]), 0, limit=1000)
    return [f"{e.type} {e.payload.get('task_id', '')} {e.payload.get('state')}".replace("  ", " ") for e in log]


async def test_a_run_started_elsewhere_is_recorded(
    reconciler: Reconciler, airflow: FakeAirflow, engine: Engine
) -> None:
    conf = {"query": "?", "password": "secret"}
    tasks = {"a": "success", "b": "running", "c": None, "d": "up_for_retry", "e": "skipped"}
    airflow.add_run(DAG, "run", "running", tasks, conf=conf, triggering_user_name="anna")
    assert await reconciler.reconcile() == 1
    assert state(engine) == ("running", tasks)
    found = row(engine)
    assert found is not None
    assert (found["run_type"], found["triggered_by"], found["progress"]) == ("scheduled", "anna", 40)
    assert (found["tasks_total"], found["tasks_done"]) == (5, 2)
    assert found["input_data"] == {"query": "?", "password": "[redacted]"}

    for task_id in tasks:
        airflow.set_task(DAG, "run", task_id, "success")
    airflow.set_run(DAG, "run", "success")
    assert await reconciler.reconcile() == 0
    assert state(engine) == ("success", dict.fromkeys(tasks, "success"))
    assert told(engine)[-2:] == ["workflow_update success", "end success"]


async def test_a_run_that_started_and_finished_unnoticed_is_recorded(
    reconciler: Reconciler, airflow: FakeAirflow, engine: Engine
) -> None:
    airflow.add_run(DAG, "run", "failed", {"a": "failed", "b": "upstream_failed"})
    assert await reconciler.reconcile() == 0
    assert state(engine) == ("failed", {"a": "failed", "b": "upstream_failed"})


async def test_agents_whose_end_was_lost_are_closed(
    reconciler: Reconciler, airflow: FakeAirflow, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the state of their task, once no record can be on its way any more, and silently after the run's end."""

    def closed() -> list[tuple[str, str, bool]]:
        with engine.connect() as connection:
            query = text("SELECT agent_name, state, finished_at IS NOT NULL FROM visual_ai.agent_traces ORDER BY 1")
            return [(name, state, finished) for name, state, finished in connection.execute(query)]

    async def pass_later() -> None:
        """A full reading."""
        reconciler._last_full_reading = None
        await reconciler.reconcile()

    tasks = {"a": "success", "b": "failed", "c": "running"}
    airflow.add_run(DAG, "run", "running", tasks)
    await reconciler.reconcile()
    found = row(engine)
    assert found is not None
    with engine.begin() as connection:
        for task in tasks:
            new = traces.row(
                Place(DAG, "run", task, -1, 1, task, "text"), id=str(uuid.uuid4()), execution_id=str(found["id"]),
                state="running", started_at=datetime.now(UTC), input_tokens=0, output_tokens=0,
            )  # fmt: skip
            traces.write(connection, [new])
    opened = [(task, "running", False) for task in tasks]
    await pass_later()
    assert closed() == opened
    monkeypatch.setattr(leftovers, "GRACE_SECONDS", 0)
    await pass_later()
    assert closed() == [("a", "success", True), ("b", "cancelled", True), ("c", "running", False)]
    assert told(engine)[-2:] == ["agent_update a success", "agent_update b cancelled"]

    airflow.set_run(DAG, "run", "failed")
    await pass_later()
    await pass_later()
    assert closed()[2] == ("c", "cancelled", True)
    assert told(engine)[-1] == "end failed"


async def test_an_old_run_is_not_recorded(reconciler: Reconciler, airflow: FakeAirflow, engine: Engine) -> None:
    airflow.add_run(DAG, "run", "success")
    airflow.set_run(DAG, "run", "success", updated_at=datetime.now(UTC) - timedelta(hours=1))
    await reconciler.reconcile()
    assert state(engine) is None


async def test_the_reconciler_records_what_lost_notices_would_have(
    reconciler: Reconciler, airflow: FakeAirflow, engine: Engine
) -> None:
    observe(engine, "run", "queued")
    airflow.add_run(DAG, "run", "running", {"a": "running"})
    await reconciler.reconcile()
    airflow.set_task(DAG, "run", "a", "success")
    await reconciler.reconcile()
    airflow.set_run(DAG, "run", "success", updated_at=datetime.now(UTC) - timedelta(hours=1))  # missed by the lists
    await reconciler.reconcile()
    assert told(engine) == [
        "workflow_update queued", "task_update a running", "workflow_update running",
        "task_update a success", "workflow_update running", "workflow_update success", "end success",
    ]  # fmt: skip
    before = row(engine)
    for _ in range(3):
        await reconciler.reconcile()
    assert row(engine) == before, "what agrees is not written again"


async def test_a_cleared_task_loses_its_state(reconciler: Reconciler, airflow: FakeAirflow, engine: Engine) -> None:
    airflow.add_run(DAG, "run", "running", {"a": "success", "b": "running"})
    await reconciler.reconcile()
    airflow.set_task(DAG, "run", "a", None)
    await reconciler.reconcile()
    assert state(engine) == ("running", {"a": None, "b": "running"})


async def test_a_cleared_run_starts_again(reconciler: Reconciler, airflow: FakeAirflow, engine: Engine) -> None:
    airflow.add_run(DAG, "run", "failed", {"a": "failed"})
    await reconciler.reconcile()
    airflow.set_run(DAG, "run", "queued")
    airflow.set_task(DAG, "run", "a", None)
    await reconciler.reconcile()
    assert state(engine) == ("queued", {"a": None})
    found = row(engine)
    assert found is not None
    assert (found["attempt"], found["finished_at"], found["progress"]) == (2, None, 0)


@pytest.mark.parametrize("set_to", ["success", "failed"])
async def test_a_state_set_by_hand_is_recorded(
    reconciler: Reconciler, airflow: FakeAirflow, engine: Engine, set_to: str
) -> None:
    was = "failed" if set_to == "success" else "success"
    airflow.add_run(DAG, "run", was, {"a": was})
    await reconciler.reconcile()
    airflow.set_task(DAG, "run", "a", set_to)
    airflow.set_run(DAG, "run", set_to)
    await reconciler.reconcile()
    assert state(engine) == (set_to, {"a": set_to})
    assert told(engine)[-1] == f"end {set_to}"


async def test_a_run_deleted_in_airflow_is_cancelled(
    reconciler: Reconciler, airflow: FakeAirflow, engine: Engine
) -> None:
    airflow.add_run(DAG, "run", "running", {"a": "running"})
    await reconciler.reconcile()
    airflow.delete_run(DAG, "run")
    await reconciler.reconcile()
    assert told(engine)[-1] == "end cancelled"
    found = row(engine)
    assert found is not None
    assert found["state"] == "cancelled"
    assert found["finished_at"] is not None


async def test_a_cancelled_run_stays_cancelled_while_airflow_calls_it_failed(
    reconciler: Reconciler, airflow: FakeAirflow, engine: Engine
) -> None:
    observe(engine, "run", "cancelled")
    airflow.add_run(DAG, "run", "failed")
    await reconciler.reconcile()
    assert told(engine)[-1] == "end cancelled"


async def test_a_notice_newer_than_a_reading_is_kept_until_the_next_reading(
    reconciler: Reconciler, airflow: FakeAirflow, engine: Engine
) -> None:
    """The task was cleared in Airflow during a pass, just after its success had been recorded."""
    airflow.add_run(DAG, "run", "running", {"a": "running"})
    await reconciler.reconcile()
    clock = executions.clock

    def noticed_meanwhile(connection: Any) -> datetime:
        moment = clock(connection)
        observe(engine, "run", None, TaskState("a", -1, 1, "success"))
        airflow.set_task(DAG, "run", "a", None)
        return moment

    executions.clock = noticed_meanwhile
    try:
        await reconciler.reconcile()
    finally:
        executions.clock = clock
    assert state(engine) == ("running", {"a": "success"})
    await reconciler.reconcile()
    assert state(engine) == ("running", {"a": None}), "it alone can tell"


async def test_a_run_that_can_not_be_recorded_does_not_affect_others(
    reconciler: Reconciler, airflow: FakeAirflow, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    airflow.add_run(DAG, "bad", "running", run_type={"no": "text"})
    airflow.add_run(DAG, "run", "running", {"a": "running"})
    await reconciler.reconcile()
    assert state(engine) == ("running", {"a": "running"})
    assert "bad" in caplog.text


async def test_a_conf_with_a_forged_system_key(reconciler: Reconciler, airflow: FakeAirflow, engine: Engine) -> None:
    airflow.add_run(DAG, "run", "running", conf={"_visual_ai": {"execution_id": "x", "template_version": "y"}})
    await reconciler.reconcile()
    assert state(engine) == ("running", {})


async def test_a_pass_costs_the_same_however_many_runs_have_finished(database_url: str, airflow: FakeAirflow) -> None:
    async with made(database_url, airflow) as (reconciler, client):
        for number in range(120):
            airflow.add_run(DAG, f"done {number}", "success", {"a": "success"})
        await reconciler.reconcile()
        costs = []
        for more in (0, 2, 100):
            for number in range(more):
                airflow.add_run(DAG, f"active {number}", "running", {"a": "running", "b": None})
                airflow.set_run(DAG, f"active {number}", "running", updated_at=datetime.now(UTC) - timedelta(hours=1))
            for run_id in [key for key in airflow.runs if key[1].startswith("done")]:
                a_while_ago = datetime.now(UTC) - timedelta(minutes=5)  # the first pass looked back as far
                airflow.set_run(*run_id, "success", updated_at=a_while_ago)
            before = client.calls
            await reconciler.reconcile()
            costs.append(client.calls - before)
        # Two lists; one call for each 50 new runs; a second page of the list and of each batch of 100 task instances;
        # and the tasks of the two runs that were known.
        assert costs == [2, 3, 3 + 1 + 2 * 2 + 1]

        long_ago = datetime.now(UTC) - timedelta(hours=1)
        for run in airflow.runs.values():
            run.tasks_updated_at = dict.fromkeys(run.tasks, long_ago)
        airflow.set_task(DAG, "active 7", "a", "success")
        before = client.calls
        await reconciler.reconcile()
        assert client.calls - before == 3 + 1, "a hundred known runs cost a second page of the list, and no more"
        engine = create_engine(database_url)
        assert state(engine, "active 7") == ("running", {"a": "success", "b": None})
        engine.dispose()


async def test_a_full_reading_finds_tasks_that_the_list_of_changes_missed(
    reconciler: Reconciler, airflow: FakeAirflow, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction of Airflow took longer than the overlap of passes."""
    airflow.add_run(DAG, "run", "running", {"a": "running"})
    await reconciler.reconcile()
    airflow.set_task(DAG, "run", "a", "success")
    airflow.runs[DAG, "run"].tasks_updated_at["a", -1] = datetime.now(UTC) - timedelta(hours=1)
    await reconciler.reconcile()
    assert state(engine) == ("running", {"a": "running"})
    monkeypatch.setattr(reconciler_module, "FULL_READING", timedelta(0))
    await reconciler.reconcile()
    assert state(engine) == ("running", {"a": "success"})


async def test_a_task_of_a_running_run_that_is_cleared_again_is_recorded_each_time(
    reconciler: Reconciler, airflow: FakeAirflow, engine: Engine
) -> None:
    airflow.add_run(DAG, "run", "running", {"a": "running", "b": None})
    for number in (1, 2, 3):
        for task_state in ("running", "success", None):
            airflow.set_task(DAG, "run", "a", task_state, try_number=number)
            await reconciler.reconcile()
            await reconciler.reconcile()
            assert state(engine) == ("running", {"a": task_state, "b": None})
    found = row(engine)
    assert found is not None
    assert (found["attempt"], found["progress"]) == (1, 50), "progress does not fall within an attempt"
    log = [line for line in told(engine) if line.startswith("task_update")]
    assert log == ["task_update a running", "task_update a success", "task_update a None"] * 3


async def test_finding_something_unreported_shortens_the_pauses(database_url: str, airflow: FakeAirflow) -> None:
    """The interval between passes is otherwise an hour."""
    async with made(database_url, airflow, reconcile_interval=3600.0) as (reconciler, _):
        passes: list[float] = []
        real, sleep = reconciler.reconcile, asyncio.sleep

        async def counted() -> int:
            passes.append(0.0)
            return await real()

        async def noted(seconds: float) -> None:
            if passes and seconds >= 1:  # the test waits, too
                passes[-1] += seconds
            await sleep(0.01)

        airflow.add_run(DAG, "run", "running", {"a": "running"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reconciler, "reconcile", counted)
            patch.setattr(asyncio, "sleep", noted)
            async with reconciler.running():
                await eventually(lambda: len(passes) >= 2)
                airflow.set_task(DAG, "run", "a", "success")
                a_while_ago = (datetime.now(UTC) - timedelta(seconds=5)).isoformat()
                airflow.runs[DAG, "run"].tasks["a", -1]["end_date"] = a_while_ago
                before = len(passes)
                await eventually(lambda: len(passes) >= before + 3)
    assert passes[0] == 3600, "of what is as new as this the listener may yet tell"
    assert 900 in passes, "the listener is silent"


async def test_an_unreachable_airflow_changes_nothing(
    reconciler: Reconciler, airflow: FakeAirflow, engine: Engine
) -> None:
    airflow.add_run(DAG, "run", "running", {"a": "running"})
    await reconciler.reconcile()
    airflow.fail("/dags")
    with pytest.raises(AirflowUnavailable):
        await reconciler.reconcile()
    assert state(engine) == ("running", {"a": "running"}), "out of reach is not deleted"
    airflow.heal()
    airflow.delete_run(DAG, "run")
    airflow.fail("GET /api/v2/dags/some_dag/dagRuns/run", 500)
    with pytest.raises(AirflowUnavailable):
        await reconciler.reconcile()
    assert state(engine) == ("running", {"a": "running"})


def goes_well(reconciler: Reconciler) -> bool:
    return reconciler.state()[0]


async def test_one_replica_reconciles_and_another_takes_over(pg: Any, database_url: str, airflow: FakeAirflow) -> None:
    async with AsyncExitStack() as stack:
        both = []
        for _ in range(2):
            reconciler, _ = await stack.enter_async_context(made(database_url, airflow, reconcile_interval=0.05))
            await stack.enter_async_context(reconciler.running())
            both.append(reconciler)
            await eventually(partial(goes_well, reconciler))
        first, second = both
        assert (first.leading, second.leading) == (True, False)
        assert second.state() == (True, "another replica reconciles")

        engine = create_engine(database_url)
        stack.callback(engine.dispose)
        airflow.add_run(DAG, "run", "running")
        await eventually(lambda: state(engine))

        with psycopg.connect(plain_url(pg.admin_url), autocommit=True) as connection:
            killed = connection.execute(
                "SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted"
            ).rowcount
        assert killed == 1
        await eventually(lambda: second.leading)
        airflow.set_run(DAG, "run", "success")
        await eventually(lambda: state(engine) == ("success", {}) and not first.leading)
        assert (first.leading, second.leading) == (False, True)


async def test_a_replica_that_hangs_loses_the_lock(
    database_url: str, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler_module, "PASS_SECONDS", 0.5)
    async with (
        made(database_url, airflow, reconcile_interval=0.05) as (first, _),
        made(database_url, airflow, reconcile_interval=0.05) as (second, _),
    ):
        hangs = asyncio.Event()

        async def hang() -> int:
            hangs.set()
            return await asyncio.Event().wait()

        monkeypatch.setattr(first, "reconcile", hang)
        async with first.running():
            await hangs.wait()
            async with second.running():
                await eventually(lambda: second.leading)


def holder(pg: Any) -> Any:
    """The session that holds the reconciler's lock."""
    with psycopg.connect(plain_url(pg.admin_url)) as connection:
        query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
        return connection.execute(query).fetchone()


async def test_a_long_pass_keeps_the_lock(
    pg: Any, database_url: str, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(reconciler_module.LOCK_SETTINGS, "idle_session_timeout", "400ms")
    monkeypatch.setattr(reconciler_module, "PING_SECONDS", 0.1)
    airflow.fail("/dags", 503, delay=1.5, times=1)
    async with made(database_url, airflow, reconcile_interval=0.05) as (reconciler, _), reconciler.running():
        await eventually(lambda: reconciler.leading)
        before = holder(pg)
        await eventually(partial(goes_well, reconciler))
        passes = len(airflow.log)
        await eventually(lambda: len(airflow.log) > passes + 10)
        assert holder(pg) == before


async def test_the_loop_survives_an_airflow_that_is_down(database_url: str, airflow: FakeAirflow) -> None:
    airflow.fail("/dags", 503)
    async with made(database_url, airflow, reconcile_interval=0.05) as (reconciler, _), reconciler.running():
        await eventually(lambda: reconciler.state() == (False, "Airflow answered 503"))
        airflow.heal()
        await eventually(lambda: reconciler.state()[0])
