"""What Airflow reads of this distribution as a provider. Every process of Airflow imports it: keep it light."""

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The decorator `@task.langgraph`, which lies in Airflow's plugins folder."""
    return {
        "package-name": "langgraph-flow",
        "name": "LangGraph Flow",
        "description": "Runs LangGraph agents as tasks",
        "task-decorators": [{"name": "langgraph", "class-name": "visual_ai_decorators.langgraph_task"}],
    }
