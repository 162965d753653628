"""Runs several agents on one input, in parallel, in sequence or as a model decides, and sums up their results."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from visual_ai_operators import MultiAgentOperator

with DAG(
    dag_id="multi_agent_workflow",
    description="Vision and text agents side by side, then a synthesis",
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
    tags=["visual-ai", "multi-agent"],
    params={
        "query": Param(
            None,
            type=["null", "string"],
            maxLength=20_000,
            title="Question",
            description="What you want to know",
        ),
        "image_url": Param(
            None,
            type=["null", "string"],
            pattern=r"^\s*([Hh][Tt][Tt][Pp][Ss]?://|[Dd][Aa][Tt][Aa]:|upload://|sample://)",
            title="Picture",
            description="An https://, http:// or data: address, or the image_url of an upload (POST /images)",
        ),
        "text": Param(None, type=["null", "string"], title="Text", description="A text to analyse"),
        "agents": Param(
            None,
            type=["null", "array"],
            items={"type": "object", "required": ["name"]},
            title="Agents",
            description="Other agents than those that fit the input, as MultiAgentOperator takes them; "
            '{"$input": "name"} in their input_data stands for a field of the run\'s input',
        ),
        "orchestration_mode": Param(
            "parallel",
            type="string",
            enum=["parallel", "sequential", "graph", "supervisor"],
            title="Mode",
            description="All at once; each with the results before it; by depends_on; or as a model decides",
        ),
        "synthesis": Param(
            True,
            type=["boolean", "object"],
            title="Synthesis",
            description="Whether the results are summed up, or how: model, system_prompt, …",
        ),
        "supervisor": Param(
            None, type=["null", "object"], title="Supervisor", description="Its model, system_prompt, timeout, …"
        ),
        "max_steps": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=200,
            title="Steps",
            description="How often the supervisor may call an agent",
        ),
        "error_policy": Param(
            None,
            type=["null", "object"],
            title="Error policy",
            description="What is done about models' errors, as MultiAgentOperator takes it",
        ),
    },
    # Params reach the operator as they are, and not as text. What a template renders to isn't rendered again, so
    # nothing in a run's conf is ever evaluated as Jinja.
    render_template_as_native_obj=True,
    doc_md=__doc__,
) as dag:

    @task(retries=2, retry_delay=timedelta(seconds=5))
    def validate_input() -> list[dict[str, Any]]:
        """Return the agents to run: those in the run's conf, or those that fit its input."""
        from backend.core.errors.input_error import InputError
        from backend.runtime.input_checks import plan_team
        from visual_ai_tasks import task_context

        context = get_current_context()
        try:
            return plan_team(context["params"], task_context(context))
        except InputError as error:
            raise AirflowFailException(str(error)) from error

    run_agents = MultiAgentOperator(
        task_id="run_agents",
        agents=validate_input(),
        orchestration_mode="{{ params.orchestration_mode }}",
        synthesis="{{ params.synthesis }}",
        supervisor="{{ params.supervisor }}",
        max_steps="{{ params.max_steps }}",
        error_policy="{{ params.error_policy }}",  # type: ignore[arg-type]  # a dict when it is rendered
    )

    @task(retries=5, retry_delay=timedelta(seconds=5))
    def store_result(result: dict[str, Any]) -> dict[str, Any]:
        """Store the result. Unlike the agents' own records, it must not be lost."""
        from backend.observation.recording.run_result import store

        context = get_current_context()
        return store(context["ti"].dag_id, context["ti"].run_id, result)

    store_result(run_agents.output)  # type: ignore[arg-type]  # an XComArg stands for the value it will have
