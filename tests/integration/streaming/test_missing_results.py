"""A run that succeeded has its result, also when its task could not record it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from backend.clients.airflow import AirflowClient, AirflowUnavailable
from backend.core.states import TaskState
from backend.db.engine import Database, make_async_engine
from backend.db.runs import executions, observations, results, traces
from backend.db.runs.executions import RunState
from backend.db.runs.results import TaskResult
from backend.db.runs.traces import Place
from backend.services.recording.result_restorer import ResultRestorer
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, make_settings

DAG = "visual_ai_workflow"
RESULT = {"output": {"answer": "Two ships.", "score": 2**53 + 1}, "agent": "text", "attempts": 1}


@pytest.fixture
async def restorer(
    app: Any, no_reconciler: None, database_url: str, airflow: FakeAirflow
) -> AsyncIterator[ResultRestorer]:
    database = Database(make_async_engine(database_url, application="test", pool_size=3))
    client = AirflowClient(make_settings(database_url, **PRODUCTION), airflow.transport)
    yield ResultRestorer(client, database)
    await client.close()
    await database.close()


def succeeded(engine: Engine, airflow: FakeAirflow, run_id: str, *, state: str = "success", agents: int = 1) -> str:
    """A run whose agents' result was lost; returns its execution's id."""
    airflow.add_dag(DAG)
    airflow.add_run(DAG, run_id, state, {"work": state})
    began, ended = datetime.now(UTC) - timedelta(minutes=2), datetime.now(UTC) - timedelta(minutes=1)
    run = RunState(DAG, run_id, state, started_at=began, finished_at=ended)
    with engine.begin() as connection:
        observations.observe(connection, run, [TaskState("work", -1, 1, state)])
        execution_id = executions.ensure(connection, run)
        for index in range(agents):
            place = Place(DAG, run_id, f"work_{index}", -1, 1, agent="text", agent_type="text")
            values: dict[str, Any] = {
                "id": f"{len(run_id):08}-0000-4000-8000-00000000000{index}",
                "node": None,
                "input_tokens": 0,
                "output_tokens": 0,
            }
            row = traces.row(place, **values, state="success", started_at=began + timedelta(seconds=index))
            traces.write(connection, [{**row, "execution_id": execution_id}])
    return execution_id


def result_of(engine: Engine, execution_id: str) -> Any:
    with engine.connect() as connection:
        row = connection.exec_driver_sql(
            "SELECT dag_id, dag_run_id FROM visual_ai.workflow_executions WHERE id = %s", (execution_id,)
        ).one()
        found = executions.get(connection, row.dag_id, row.dag_run_id)
        assert found is not None
        return results.shown(connection, found)


async def test_a_lost_result_is_restored_from_the_last_agents_xcom(
    restorer: ResultRestorer, engine: Engine, airflow: FakeAirflow
) -> None:
    lost = succeeded(engine, airflow, "lost", agents=2)
    airflow.runs[DAG, "lost"].xcoms = {("work_0", -1): {"output": "earlier"}, ("work_1", -1): RESULT}
    assert await restorer.restore() == 1
    assert result_of(engine, lost) == RESULT
    assert await restorer.restore() == 0


async def test_what_there_is_nothing_of_is_asked_for_once(
    restorer: ResultRestorer, engine: Engine, airflow: FakeAirflow
) -> None:
    silent = succeeded(engine, airflow, "silent")
    succeeded(engine, airflow, "without agents", agents=0)
    succeeded(engine, airflow, "failed", state="failed")
    assert [await restorer.restore(), await restorer.restore()] == [0, 0]
    assert result_of(engine, silent) is None
    assert sum("xcomEntries" in call for call in airflow.log) == 1


async def test_a_result_waits_for_airflow(restorer: ResultRestorer, engine: Engine, airflow: FakeAirflow) -> None:
    lost = succeeded(engine, airflow, "lost")
    airflow.runs[DAG, "lost"].xcoms = {("work_0", -1): RESULT}
    airflow.fail("xcomEntries", 503)
    with pytest.raises(AirflowUnavailable):
        await restorer.restore()
    airflow.heal()
    assert await restorer.restore() == 1
    assert result_of(engine, lost) == RESULT


async def test_each_lost_result_of_a_mapped_task_is_restored(
    restorer: ResultRestorer, engine: Engine, airflow: FakeAirflow
) -> None:
    lost = succeeded(engine, airflow, "lost", agents=0)
    with engine.begin() as connection:
        states = ["success", "success", "failed", "success"]
        tasks = [TaskState("each", index, 1, state) for index, state in enumerate(states)]
        observations.observe(connection, RunState(DAG, "lost", "success"), tasks)
        results.record(connection, [TaskResult(lost, {"n": 1}, "each", 1)])
    airflow.runs[DAG, "lost"].xcoms = {("each", 0): {"n": 0}, ("each", 2): {"n": 2}, ("each", 3): {"n": 3}}
    assert await restorer.restore() == 2
    assert result_of(engine, lost) == [{"n": 0}, {"n": 1}, None, {"n": 3}]
    assert await restorer.restore() == 0
