"""What it takes to run the agents of a task, in a worker and in the triggerer alike.

A task is its operator's name and arguments, its place in Airflow (`TaskContext`), and the credentials of its models.
The triggerer has no operator object, only these; so operators and trigger share this module and need not know each
other.
Importing it is cheap: what runs agents is loaded when a task runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backend.core.errors.input_error import InputError
from backend.runtime.specs import AgentSpec, check_connection, parse_agent
from backend.runtime.team.arguments import parse_team_arguments

if TYPE_CHECKING:
    from airflow.sdk import Context

    from backend.models.resolve import ModelCredentials
    from backend.runtime.runner import TaskContext
    from backend.runtime.worker import Work

__all__ = ["credentials_of", "missing_connection", "parse_single", "task_context", "work_of"]


def parse_single(arguments: Mapping[str, Any], llm_conn_id: str | None) -> AgentSpec:
    """The agent of a `LangGraphOperator`. Raises `ValueError` that names the argument which is wrong."""
    spec = parse_agent(**arguments)
    check_connection([spec], llm_conn_id)
    return spec


def work_of(operator: str, arguments: Mapping[str, Any], llm_conn_id: str | None) -> Work:
    """What a task of the operator is to do, from rendered arguments.

    Raises `ValueError` that names the argument which is wrong.
    """
    if operator == "LangGraphOperator":
        from backend.runtime.single import run_single

        spec = parse_single(arguments, llm_conn_id)
        return lambda runner: run_single(runner, spec)
    if operator == "MultiAgentOperator":
        from backend.runtime.team.run import run_team

        team = parse_team_arguments(arguments, model=arguments["model"])
        return lambda runner: run_team(
            runner,
            team.specs,
            team.mode,
            synthesis=team.synthesis,
            supervisor=team.supervisor,
            max_steps=team.max_steps,
        )
    raise ValueError(f"there is no operator {operator!r}")


def credentials_of(connection: Any) -> ModelCredentials:
    """The models' credentials in an Airflow connection."""
    from backend.models.resolve import ModelCredentials

    address = connection.host
    if address and "://" not in address:
        address = f"https://{address}" + (f":{connection.port}" if connection.port else "")
    return ModelCredentials.of_connection(
        conn_type=connection.conn_type, password=connection.password, address=address, extra=connection.extra_dejson
    )


def hide_what_airflow_masks() -> None:
    """Have our records, too, be without what Airflow masks in this process's logs, such as connections' passwords."""
    from backend.core.redaction import mask_with

    mask_with(_masked)


def _masked(text: str) -> str:
    from airflow.sdk.log import redact  # type: ignore[attr-defined]  # imported there for its own use

    return str(redact(text))


def missing_connection(conn_id: str) -> InputError:
    """The error for a connection that does not exist."""
    return InputError(f"there is no connection {conn_id!r}", field="llm_conn_id")


def task_context(context: Context) -> TaskContext:
    """The task's place in Airflow, in the form that the runner takes."""
    from backend.runtime.runner import TaskContext

    task_instance = context["ti"]
    dag_run = context["dag_run"]
    conf = dict(dag_run.conf or {})
    return TaskContext(
        dag_id=task_instance.dag_id,
        dag_run_id=task_instance.run_id,
        task_id=task_instance.task_id,
        map_index=-1 if task_instance.map_index is None else task_instance.map_index,
        try_number=task_instance.try_number,
        conf={**dict(context["params"]), **conf},
        run_type=str(getattr(dag_run.run_type, "value", dag_run.run_type)),
        instance=str(task_instance.id),
        user=dag_run.triggering_user_name,
        team=getattr(dag_run, "team_name", None),
    )
