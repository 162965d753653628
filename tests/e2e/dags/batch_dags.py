"""Batches whose inputs, budget and output file come from other tasks, and a mapped task with several batches."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk import DAG, Param, task

from visual_ai_operators import LangGraphOperator

AGENT = {"type": "text"}


def dag(dag_id: str, **params: Any) -> DAG:
    """A DAG without a schedule and without retries."""
    return DAG(dag_id, schedule=None, start_date=datetime(2024, 1, 1), params=params)


with dag("batch_of_another_task", folder=Param("/tmp", type="string"), max_tokens=Param(100_000, type="integer")):

    @task
    def make_inputs() -> list[dict[str, str]]:
        """The agent's inputs."""
        return [{"text": f"Ship {number} lay at anchor."} for number in range(3)]

    @task
    def make_budget(params: dict[str, Any] | None = None) -> dict[str, int]:
        """The budget."""
        return {"max_tokens": (params or {})["max_tokens"]}

    @task
    def make_path(params: dict[str, Any] | None = None) -> str:
        """The path of the results."""
        return f"{(params or {})['folder']}/results/all.jsonl"

    made = make_inputs()
    LangGraphOperator(
        task_id="batch",
        agent_config=AGENT,
        inputs=made,
        budget=make_budget(),
        results_path=make_path(),
        max_concurrency=2,
    )

with dag("batches_mapped", folder=Param("/tmp", type="string")):

    @task
    def make_batches() -> list[list[dict[str, str]]]:
        """The inputs of each batch."""
        return [[{"text": f"Ship {batch}-{number} left."} for number in range(batch + 1)] for batch in range(2)]

    LangGraphOperator.partial(
        task_id="batch",
        agent_config=AGENT,
        budget={"max_steps": 100},
        results_path="{{ params.folder }}/{{ ti.map_index }}.jsonl",
    ).expand(inputs=make_batches())
