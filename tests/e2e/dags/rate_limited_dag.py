"""Agents that wait for a rate limit outside of the worker: with a retry left, without one, and in the triggerer."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG

from visual_ai_operators import LangGraphOperator

KINDS: dict[str, dict[str, Any]] = {
    "retries": {"retries": 1},
    "no_retries": {"retries": 0},
    "deferrable": {"retries": 1, "deferrable": True},
}

for name, arguments in KINDS.items():
    with DAG(f"rate_limited_{name}", schedule=None, start_date=datetime(2024, 1, 1)):
        LangGraphOperator(
            task_id="agent",
            agent_config={"type": "text"},
            input_data={"text": "Ships lay at anchor."},
            model="gpt-4.1-mini",
            retry_delay=timedelta(hours=1),  # the error policy's delay takes precedence
            error_policy={"wait_limit": 3},
            **arguments,
        )
