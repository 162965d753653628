"""Agents that fail, in a worker and in the triggerer, with notifying callbacks of the task and of the DAG."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import DAG

from visual_ai_notifiers import VisualAINotifier
from visual_ai_operators import LangGraphOperator

for deferrable in (True, False):
    with DAG(
        f"notifying_{'deferrable' if deferrable else 'in_worker'}",
        schedule=None,
        start_date=datetime(2024, 1, 1),
        on_failure_callback=VisualAINotifier("{{ run_id }} is over: {{ reason }}"),
    ):
        LangGraphOperator(
            task_id="agent",
            agent_config={"type": "text"},
            input_data={"text": "Ships lay at anchor."},
            deferrable=deferrable,
            retries=0,
            budget={"max_steps": 2},
            on_failure_callback=VisualAINotifier("{{ ti.task_id }} failed in {{ dag.dag_id }}"),
        )
