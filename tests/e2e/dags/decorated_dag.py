"""An agent as a function, with its model's key and address from an Airflow connection."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import dag, task


@dag(dag_id="agent_decorated", schedule=None, start_date=datetime(2024, 1, 1))
def decorated() -> None:
    """A task that starts in a worker, which calls the function, and moves to the triggerer."""

    @task.langgraph(agent_config={"type": "text"}, deferrable=True, llm_conn_id="test_models")
    def about(dag_run: Any = None) -> dict[str, Any]:
        """The agent's input."""
        return {"text": f"About {dag_run.conf['subject']}."}

    about()


decorated()
