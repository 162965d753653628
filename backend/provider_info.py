"""Describes this distribution to Airflow as a provider. Every Airflow process imports it, so it must stay light."""

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Register the decorator `@task.langgraph`, which is defined in Airflow's plugins folder."""
    return {
        "package-name": "langgraph-flow",
        "name": "LangGraph Flow",
        "description": "Runs LangGraph agents as tasks",
        "task-decorators": [{"name": "langgraph", "class-name": "visual_ai_decorators.langgraph_task"}],
    }
