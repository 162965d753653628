"""Five model calls one after the other: in a worker, in the triggerer, and in a batch of four inputs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param

from visual_ai_operators import LangGraphOperator

TOPIC = "{{ params.topic }}"

MODES: dict[str, dict[str, Any]] = {
    "faults_in_worker": {"input_data": {"topic": TOPIC}, "deferrable": False},
    "faults_in_triggerer": {"input_data": {"topic": TOPIC}, "deferrable": True},
    "faults_in_batch": {"inputs": [{"topic": f"{TOPIC}, part {number}"} for number in range(4)]},
}

for dag_id, arguments in MODES.items():
    with DAG(
        dag_id,
        schedule=None,
        start_date=datetime(2024, 1, 1),
        max_active_runs=100,
        params={"topic": Param("ships", type="string")},
        default_args={"retries": 2, "retry_delay": timedelta(seconds=1)},
    ):
        LangGraphOperator(task_id="steps", graph="five_steps", **arguments)
