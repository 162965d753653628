"""A graph that asks, pays and asks again, in a worker and in the triggerer."""

from datetime import timedelta

from airflow.sdk import DAG

from visual_ai_operators import LangGraphOperator

for name, deferrable in (("worker", False), ("triggerer", True)):
    retries = {"retries": 2, "retry_delay": timedelta(seconds=1)}
    with DAG(f"answers_in_{name}", schedule=None, max_active_runs=100, default_args=retries):
        LangGraphOperator(task_id="ask", graph="tests.kit.graphs.asking:paying", deferrable=deferrable)
