"""A user's graph with five model calls, in a worker and in the triggerer, with coroutines and with functions."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param

from visual_ai_operators import LangGraphOperator

for dag_id, graph, deferrable in (
    ("steps_in_worker", "five_steps", False),
    ("steps_deferrable", "five_steps", True),
    ("blocking_steps_in_worker", "five_blocking_steps", False),
):
    with DAG(
        dag_id,
        schedule=None,
        start_date=datetime(2024, 1, 1),
        params={"topic": Param("ships", type="string")},
        default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
    ):
        LangGraphOperator(
            task_id="steps",
            graph=graph,
            input_data={"topic": "{{ params.topic }}"},
            deferrable=deferrable,
        )
