"""The DAGs that carry out schedules: one for each, generated from its row.

They belong to the machinery. The catalogue doesn't list them, and their runs aren't recorded: a scheduled run is the
run of the workflow itself that they lead to.
"""

import re

ALL_SCHEDULES = "visual_ai_schedules"
"""A DAG that is always in the file of these DAGs, and never runs: by its id Airflow finds the file to parse again."""

TASK_ID = "start_run"

SCHEDULE = "schedule"
"""The key, under the system's key of a run's conf, of the schedule that the run is due to."""

_PREFIX = "visual_ai_schedule."
_FORM = re.compile(re.escape(_PREFIX) + r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def dag_of_schedule(schedule_id: str) -> str:
    """The id of the DAG that carries a schedule out."""
    return f"{_PREFIX}{schedule_id}"


def schedule_of_dag(dag_id: str) -> str | None:
    """The schedule that this DAG carries out; None for any other DAG."""
    found = _FORM.fullmatch(dag_id)
    return found[1] if found is not None else None


def is_schedule_dag(dag_id: str) -> bool:
    """Whether the DAG belongs to the machinery of schedules."""
    return dag_id == ALL_SCHEDULES or schedule_of_dag(dag_id) is not None
