"""Sets the result of a run, replacing that of its last agent task."""

from typing import Any

from backend.core.errors.input_error import InputError
from backend.core.exact_json import NoJsonFormError, to_json
from backend.core.problems import pointer
from backend.core.settings import get_settings
from backend.db.engine import task_engine
from backend.db.runs import executions, results
from backend.db.runs.executions import RunState
from backend.db.runs.results import TaskResult


def store(dag_id: str, dag_run_id: str, result: dict[str, Any]) -> dict[str, Any]:
    """Write a run's result; returns the id of its execution.

    Raises `InputError` naming a part that has no JSON form (a retry doesn't help), and `OperationalError` when the
    database is unavailable (a retry helps).
    """
    try:
        stored = to_json(result)
    except NoJsonFormError as error:
        raise InputError(error.fault, field=f"result{pointer(*error.path)}") from None
    with task_engine(get_settings().database_url).begin() as connection:
        execution_id = executions.ensure(connection, RunState(dag_id, dag_run_id, None))
        results.record(connection, [TaskResult(execution_id, stored)])
    return {"execution_id": execution_id}
