"""DAGs that do as little as possible, so that what is measured is the system around them."""

from __future__ import annotations

import time
from datetime import datetime

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, task

from visual_ai_operators import LangGraphOperator

START = datetime(2024, 1, 1)

with DAG("benchmark_empty", schedule=None, start_date=START, max_active_runs=1000) as benchmark_empty:
    EmptyOperator(task_id="nothing")

with DAG("benchmark_task", schedule=None, start_date=START) as benchmark_task:

    @task
    def bare() -> dict[str, bool]:
        """An ordinary task."""
        return {"done": True}

    bare()

with DAG("benchmark_agent", schedule=None, start_date=START) as benchmark_agent:
    LangGraphOperator(
        task_id="agent",
        agent_config={"type": "text"},
        input_data={"text": "The harbour was quiet. Three boats lay at the pier."},
        model="local:text",
    )

with DAG("benchmark_deferrable", schedule=None, start_date=START) as benchmark_deferrable:
    LangGraphOperator(
        task_id="agent",
        agent_config={"type": "text"},
        input_data={"text": "The harbour was quiet. Three boats lay at the pier."},
        model="local:text",
        deferrable=True,
    )

with DAG("benchmark_steps", schedule=None, start_date=START, max_active_runs=100) as benchmark_steps:

    @task
    def step() -> None:
        """Takes a second."""
        time.sleep(1)

    step() >> step() >> step()
