"""Analyses one picture: validates the input, runs the vision agent on it, and stores the result."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from visual_ai_operators import LangGraphOperator

# Runs from Airflow's own form or command line default to the sample picture; the API requires one.
INSISTED_ON: dict[str, Any] = {"x-required": True}

with DAG(
    dag_id="visual_ai_workflow",
    description="Analyses a picture with the vision agent",
    schedule=None,
    start_date=datetime(2024, 1, 1),
    catchup=False,
    max_active_runs=100,
    default_args={
        "owner": "visual-ai-team",
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": True,
    },
    tags=["visual-ai"],
    params={
        "query": Param(
            "Analyze this image and extract insights",
            type="string",
            minLength=1,
            maxLength=20_000,
            title="Question",
            description="What you want to know about the picture",
        ),
        "image_url": Param(
            "sample://invoice",
            type="string",
            pattern=r"^\s*([Hh][Tt][Tt][Pp][Ss]?://|[Dd][Aa][Tt][Aa]:|upload://|sample://)",
            title="Picture",
            description="An https://, http:// or data: address, or the image_url of an upload (POST /images)",
            **INSISTED_ON,
        ),
    },
    doc_md=__doc__,
) as dag:

    @task(retries=2, retry_delay=timedelta(seconds=5))
    def validate_input() -> dict[str, Any]:
        """Fetch and decode the picture once, so that an invalid one fails here with the reason."""
        from backend.core.errors.input_error import InputError
        from backend.runtime.input_checks import check_picture
        from visual_ai_tasks import task_context

        context = get_current_context()
        try:
            return check_picture(context["params"]["image_url"], task_context(context))
        except InputError as error:
            raise AirflowFailException(str(error)) from error

    analyse_image = LangGraphOperator(
        task_id="analyse_image",
        agent_config={"type": "vision"},
        input_data={"query": "{{ params.query }}", "image_url": "{{ params.image_url }}"},
    )

    @task(retries=5, retry_delay=timedelta(seconds=5))
    def store_result(result: dict[str, Any]) -> dict[str, Any]:
        """Store the result. Unlike the agent's own records, it must not be lost."""
        from backend.observation.recording.run_result import store

        context = get_current_context()
        return store(context["ti"].dag_id, context["ti"].run_id, result)

    validated = validate_input()
    validated >> analyse_image
    store_result(analyse_image.output)  # type: ignore[arg-type]  # an XComArg stands for the value it will have
