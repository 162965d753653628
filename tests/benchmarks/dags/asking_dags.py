"""Runs that wait for people: of our graphs, and of Airflow's own operator."""

from datetime import timedelta

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG

from visual_ai_operators import LangGraphOperator

RETRIES = {"retries": 2, "retry_delay": timedelta(seconds=1)}

for name, deferrable in (("worker", False), ("triggerer", True)):
    with DAG(f"asks_in_{name}", schedule=None, max_active_runs=2_000, max_active_tasks=2_000, default_args=RETRIES):
        LangGraphOperator(
            task_id="ask",
            graph="tests.kit.graphs.asking:approving",
            input_data={"topic": "the harbour"},
            deferrable=deferrable,
        )

with DAG("asks_airflow", schedule=None, max_active_runs=100, max_active_tasks=100):
    HITLOperator(task_id="ask", subject="Go on?", options=["Go on", "Stop"])
