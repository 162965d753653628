"""Two agents that may begin at the same time."""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import DAG

from visual_ai_operators import LangGraphOperator

with DAG("two_agents_at_once", schedule=None, start_date=datetime(2024, 1, 1)):
    for number in (1, 2):
        LangGraphOperator(
            task_id=f"agent_{number}", agent_config={"type": "text"}, input_data={"text": f"{number} ships lay there."}
        )
