"""Deletes the checkpoints of old runs, once a day."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param, get_current_context, task

with DAG(
    dag_id="visual_ai_maintenance",
    description="Deletes old checkpoints",
    schedule="@daily",
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"owner": "visual-ai-team", "retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["visual-ai", "maintenance"],
    params={
        "checkpoint_days": Param(
            None,
            type=["null", "number"],
            minimum=0,
            title="Days to keep checkpoints",
            description="Counted from the end of their run; by default VISUAL_AI_CHECKPOINT_RETENTION_DAYS",
        )
    },
    doc_md=__doc__,
) as dag:

    @task
    def prune_checkpoints() -> int:
        """Delete the checkpoints of old runs, and return the number of task instances they belonged to."""
        from backend.checkpoints.prune import prune_checkpoints as prune

        return prune(get_current_context()["params"]["checkpoint_days"])

    prune_checkpoints()
