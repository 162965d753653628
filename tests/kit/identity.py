"""Runs that are recorded without an Airflow."""

from sqlalchemy import create_engine

from backend.core.jsonable import dumps
from backend.db.runs import observations
from backend.db.runs.executions import RunState

DAG = "visual_ai_workflow"


def record(database_url: str, run_id: str, *, user: str, dag_id: str = DAG, state: str = "running") -> None:
    """Record a run of `user`."""
    engine = create_engine(database_url, json_serializer=dumps)
    try:
        with engine.begin() as connection:
            observations.observe(connection, RunState(dag_id, run_id, "running", user=user))
            if state != "running":
                observations.observe(connection, RunState(dag_id, run_id, state))
    finally:
        engine.dispose()
