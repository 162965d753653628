"""A run that doesn't go on says what it waits for, and no longer once it goes on."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from backend.clients.airflow import AirflowClient
from backend.core.states import TaskState
from backend.db.engine import Database, make_async_engine
from backend.db.runs import observations
from backend.db.runs.executions import RunState
from backend.services.recording.stalls import Stalls
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, make_settings

DAG = "visual_ai_workflow"
Headers = Mapping[str, str]


@pytest.fixture
async def stalls(app: Any, no_reconciler: None, database_url: str, airflow: FakeAirflow) -> AsyncIterator[Stalls]:
    database = Database(make_async_engine(database_url, application="test", pool_size=3))
    client = AirflowClient(make_settings(database_url, **PRODUCTION), airflow.transport)
    yield Stalls(client, database)
    await client.close()
    await database.close()


def active(engine: Engine, airflow: FakeAirflow, run_id: str = "run", state: str = "running", **tasks: str) -> None:
    """A run of ulla's in which nothing has happened for a minute."""
    airflow.add_dag(DAG)
    airflow.add_run(DAG, run_id, state, tasks, triggering_user_name="ulla")
    run = RunState(DAG, run_id, state, user="ulla")
    with engine.begin() as connection:
        observations.observe(connection, run, [TaskState(name, -1, 1, state) for name, state in tasks.items()])
        connection.execute(text("UPDATE visual_ai.workflow_executions SET updated_at = now() - interval '1 minute'"))


async def reason(http: httpx.AsyncClient, ulla: Headers, run_id: str = "run") -> str | None:
    answer: dict[str, Any] = (await http.get(f"/workflow-status/{DAG}/{run_id}", headers=ulla)).json()
    listed = (await http.get("/workflow-status", headers=ulla)).json()["executions"]
    assert {run["dag_run_id"]: run["reason"] for run in listed}[run_id] == answer["reason"]
    found: str | None = answer["reason"]
    return found


def paused(airflow: FakeAirflow) -> None:
    airflow.dags[DAG]["is_paused"] = True


def stale(airflow: FakeAirflow) -> None:
    airflow.dags[DAG]["is_stale"] = True


def broken(airflow: FakeAirflow) -> None:
    airflow.dags[DAG]["has_import_errors"] = True


def deleted(airflow: FakeAirflow) -> None:
    del airflow.dags[DAG]


def unscheduled(airflow: FakeAirflow) -> None:
    airflow.dead.add("scheduler")


def untriggered(airflow: FakeAirflow) -> None:
    airflow.dead.add("triggerer")


def full(airflow: FakeAirflow) -> None:
    airflow.taken_slots["default_pool"] = 128


def nothing(_: FakeAirflow) -> None:
    """Leave Airflow as it is."""


@pytest.mark.parametrize(
    ("state", "tasks", "change", "words"),
    [
        ("queued", {}, paused, "The DAG 'visual_ai_workflow' is paused"),
        ("running", {"work": "scheduled"}, paused, "The DAG 'visual_ai_workflow' is paused"),
        ("running", {"work": "scheduled"}, stale, "No file defines the DAG 'visual_ai_workflow' any more"),
        ("running", {"work": "scheduled"}, broken, "fails to import"),
        ("running", {"work": "scheduled"}, deleted, "Airflow no longer has the DAG"),
        ("running", {"work": "scheduled"}, unscheduled, "No scheduler of Airflow is running"),
        ("running", {"work": "deferred"}, untriggered, "No triggerer of Airflow is running, in which the task 'work'"),
        ("running", {"a": "scheduled"}, full, "The task 'a' waits for the pool 'default_pool', whose 128 slots are"),
        ("running", {"a": "queued", "b": "queued"}, nothing, "2 tasks such as 'a' wait for a free worker"),
        ("running", {"work": "running"}, paused, None),
        ("running", {"work": "up_for_retry"}, nothing, None),
        ("running", {"work": "deferred"}, nothing, None),
        ("queued", {}, nothing, None),
    ],
)
async def test_the_cause_is_told(
    stalls: Stalls,
    http: httpx.AsyncClient,
    ulla: Headers,
    engine: Engine,
    airflow: FakeAirflow,
    state: str,
    tasks: dict[str, str],
    change: Callable[[FakeAirflow], None],
    words: str | None,
) -> None:
    active(engine, airflow, state=state, **tasks)
    change(airflow)
    await stalls.explain()
    found = await reason(http, ulla)
    assert found is None if words is None else words in (found or "")


async def test_runs_that_wait_for_other_runs(
    stalls: Stalls, http: httpx.AsyncClient, ulla: Headers, engine: Engine, airflow: FakeAirflow
) -> None:
    active(engine, airflow, "first", work="running")
    active(engine, airflow, "second", "queued")
    airflow.dags[DAG]["max_active_runs"] = 1
    await stalls.explain()
    assert await reason(http, ulla, "first") is None
    assert "it allows max_active_runs=1 at a time" in (await reason(http, ulla, "second") or "")


async def test_a_run_that_goes_on_waits_for_nothing(
    stalls: Stalls, http: httpx.AsyncClient, ulla: Headers, engine: Engine, airflow: FakeAirflow
) -> None:
    active(engine, airflow, work="scheduled")
    paused(airflow)
    await stalls.explain()
    assert await reason(http, ulla)
    airflow.dags[DAG]["is_paused"] = False
    active(engine, airflow, work="running")
    await stalls.explain()
    assert await reason(http, ulla) is None


async def test_a_task_in_a_living_triggerer_does_not_stand_still(
    stalls: Stalls, http: httpx.AsyncClient, ulla: Headers, engine: Engine, airflow: FakeAirflow
) -> None:
    active(engine, airflow, work="deferred")
    untriggered(airflow)
    await stalls.explain()
    assert await reason(http, ulla)
    airflow.dead.clear()
    before = len(airflow.log)
    await stalls.explain()
    assert airflow.log[before:] == ["GET /api/v2/monitor/health"]
    assert await reason(http, ulla) is None


async def test_airflow_is_asked_nothing_while_all_runs_go_on(
    stalls: Stalls, engine: Engine, airflow: FakeAirflow
) -> None:
    active(engine, airflow, work="running")
    before = len(airflow.log)
    await stalls.explain()
    assert len(airflow.log) == before
