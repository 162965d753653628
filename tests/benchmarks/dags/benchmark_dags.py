"""DAGs that do as little as possible, so that benchmarks measure the system around them."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, BaseOperator, task
from airflow.triggers.base import StartTriggerArgs

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
        """Sleep for a second."""
        time.sleep(1)

    step() >> step() >> step()


class BareTrigger(BaseOperator):
    """A task that only waits for 2 s in the triggerer, where it starts and ends."""

    start_from_trigger = True
    start_trigger_args = StartTriggerArgs(
        trigger_cls="airflow.providers.standard.triggers.temporal.TimeDeltaTrigger",
        trigger_kwargs={"delta": timedelta(seconds=2), "end_from_trigger": True},
        next_method="execute",
    )

    def execute(self, context: Any) -> None:
        """Never called."""
        raise NotImplementedError


MANY: dict[str, Any] = {"schedule": None, "start_date": START, "max_active_runs": 1000, "max_active_tasks": 1000}

with DAG("benchmark_bare_trigger", **MANY):
    BareTrigger(task_id="waits")

for dag_id, deferrable, pushes in (
    ("benchmark_waiting", True, False),
    ("benchmark_waiting_pushing", True, True),
    ("benchmark_waiting_in_worker", False, False),
):
    with DAG(dag_id, **MANY):
        LangGraphOperator(
            task_id="agent",
            agent_config={"type": "text"},
            input_data={"text": "{{ dag_run.conf.text }}"},
            model="openai:gpt-4.1-mini",
            deferrable=deferrable,
            do_xcom_push=pushes,
        )
