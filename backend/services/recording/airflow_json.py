"""Reads Airflow's JSON of runs and task instances into what is recorded of them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from backend.core.states import TaskState
from backend.db.runs.executions import RunState


def run_state(run: Mapping[str, Any]) -> RunState:
    """A DAG run of the REST API."""
    return RunState(
        dag_id=run["dag_id"],
        dag_run_id=run["dag_run_id"],
        state=run["state"],
        run_type=run.get("run_type"),
        conf=run.get("conf") or {},
        queued_at=_time(run.get("queued_at")),
        started_at=_time(run.get("start_date")),
        finished_at=_time(run.get("end_date")),
        user=run.get("triggering_user_name"),
    )


def task_state(task: Mapping[str, Any]) -> TaskState:
    """A task instance of the REST API. `try_number` is 0 until it first ran."""
    return TaskState(
        task_id=task["task_id"],
        map_index=task["map_index"],
        try_number=task["try_number"],
        state=task.get("state"),
        started_at=_time(task.get("start_date")),
        finished_at=_time(task.get("end_date")),
        duration=task.get("duration"),
    )


def _time(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None
