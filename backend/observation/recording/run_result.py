"""Sets the result of a run, replacing that of its last agent task."""

from typing import Any

from backend.core.settings import get_settings
from backend.db.engine import task_engine
from backend.db.runs import executions
from backend.db.runs.executions import RunState


def store(dag_id: str, dag_run_id: str, result: dict[str, Any]) -> dict[str, Any]:
    """Write a run's result; returns the id of its execution. Raises `OperationalError` when the database is
    unavailable; a retry helps."""
    with task_engine(get_settings().database_url).begin() as connection:
        execution_id = executions.ensure(connection, RunState(dag_id, dag_run_id, None))
        executions.set_results(connection, {execution_id: result})
    return {"execution_id": execution_id}
