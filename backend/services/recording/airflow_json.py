"""Converts runs and task instances from the JSON of Airflow's REST API into the states that are recorded."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from backend.clients.airflow_runs import CONF_TEXT
from backend.core.jsonable import dumps, loads
from backend.core.large_values import in_thread
from backend.core.redaction import redact
from backend.core.run_envelope import SYSTEM_KEY
from backend.core.states import TaskState
from backend.db.runs.executions import RunState


async def run_state(run: Mapping[str, Any]) -> RunState:
    """The state of a DAG run. A large conf is decoded, and its input encoded for the records, in a thread."""
    state = _run_state(run)
    if (text := run.get(CONF_TEXT)) is None:
        return state
    return await in_thread(partial(_with_conf, state, text))


def known_run_state(run: Mapping[str, Any]) -> RunState:
    """The state of a run whose input is recorded already: a large conf is left out."""
    return _run_state(run)


def _with_conf(state: RunState, text: bytes) -> RunState:
    conf = loads(text)
    system = {SYSTEM_KEY: conf.pop(SYSTEM_KEY)} if SYSTEM_KEY in conf else {}
    return replace(state, conf=system, input_json=dumps(redact(conf)))


def _run_state(run: Mapping[str, Any]) -> RunState:
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
    """The state of a task instance. `try_number` is 0 until its first try starts."""
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
