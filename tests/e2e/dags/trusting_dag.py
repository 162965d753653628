"""A picture agent that trusts hosts of the private network, so that tests can serve it pictures."""

from __future__ import annotations

import os
from datetime import datetime

from airflow.sdk import DAG

from backend.core.settings import get_settings
from visual_ai_operators import LangGraphOperator

os.environ["VISUAL_AI_ALLOW_PRIVATE_IMAGES"] = "true"
get_settings.cache_clear()  # the process that forked this one has cached them

with DAG("trusting_workflow", schedule=None, start_date=datetime(2024, 1, 1), default_args={"retries": 2}) as dag:
    LangGraphOperator(task_id="look", agent_config={"type": "vision"}, model="local:vision")
