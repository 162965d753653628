"""Deletes the checkpoints of old runs, once a day: first those before the last, later all."""

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
        ),
        "history_days": Param(
            None,
            type=["null", "number"],
            minimum=0,
            title="Days to keep the checkpoints before the last",
            description="Counted from the end of their run; by default VISUAL_AI_CHECKPOINT_HISTORY_DAYS",
        ),
    },
    doc_md=__doc__,
) as dag:

    @task
    def prune_checkpoints() -> dict[str, int]:
        """Delete checkpoints and items of LangGraph's store that have expired. Returns how many task instances and
        deleted conversations have no checkpoints left, how many agents only the last, and how many items are gone."""
        from backend.checkpoints import prune

        params = get_current_context()["params"]
        return {
            "deleted": prune.prune_checkpoints(params["checkpoint_days"]),
            "thinned": prune.thin_checkpoints(params["history_days"]),
            "conversations": prune.prune_conversations(),
            "store_items": prune.prune_store(),
        }

    prune_checkpoints()
