"""Runs of any size, in a worker and in the triggerer: the input says how many steps, bytes or mapped agents."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, get_current_context, task

from visual_ai_operators import LangGraphOperator, MultiAgentOperator

GRAPHS = ("loop", "loop_of_deltas", "states", "echo", "tokens")
TEAM = 200
COMMON: dict[str, Any] = {
    "schedule": None,
    "start_date": datetime(2024, 1, 1),
    "render_template_as_native_obj": True,
    "default_args": {"retries": 0, "retry_delay": timedelta(seconds=1)},
}

for graph in GRAPHS:
    for place, deferrable in (("worker", False), ("triggerer", True)):
        with DAG(f"big_{graph}_in_{place}", **COMMON):
            LangGraphOperator(task_id="agent", graph=graph, deferrable=deferrable)

with DAG("big_map", max_active_tasks=32, **COMMON):

    @task
    def inputs() -> list[dict[str, int]]:
        return [{"size": 10 + number % 7} for number in range((get_current_context()["dag_run"].conf or {})["count"])]

    LangGraphOperator.partial(task_id="agent", graph="echo", deferrable=True).expand(input_data=inputs())

with DAG("big_team", **COMMON):
    MultiAgentOperator(
        task_id="team",
        agents=[{"name": f"agent_{number}", "graph": "echo", "input_data": {"size": 100}} for number in range(TEAM)],
    )

with DAG("big_neighbour", is_paused_upon_creation=True, **COMMON):
    LangGraphOperator(task_id="agent", graph="echo")
