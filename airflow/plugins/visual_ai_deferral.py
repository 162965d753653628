"""Decides what can be handed over to the triggerer, which has neither the DAG's code nor its objects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from backend.runtime.spec_values import is_template

if TYPE_CHECKING:
    from airflow.sdk import DAG

TRIGGER = "visual_ai_triggers.AgentTrigger"

RENDERED_IN_TRIGGERER = frozenset(
    {
        *("dag_run", "run_id", "params", "macros", "task_instance_key_str", "partition_key", "partition_date"),
        *("logical_date", "ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"),
        *("data_interval_start", "data_interval_end"),
    }
)
"""The variables that templates may use in the triggerer. All others make requests to Airflow that a trigger may not
make, or need the DAG's own code."""


def plain(value: Any) -> Any:
    """Convert a value to JSON types. Raises `TypeError` if JSON has no equivalent."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a key is no string")
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, timedelta):
        return value.total_seconds()
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise TypeError(f"{type(value).__name__} is not JSON")


def plain_or_none(arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments as JSON for the triggerer; None if that isn't possible, so that the agents start in a worker."""
    try:
        return {name: plain(value) for name, value in arguments.items()}
    except TypeError:
        return None


def tested_in_process() -> bool:
    """Whether the task runs inside `airflow dags test` or `dag.test()`, which carries out triggers as well: a triggerer
    that runs beside it would take a deferred task too, and the model would be paid twice."""
    from airflow.sdk.execution_time import supervisor, task_runner

    comms = getattr(task_runner, "SUPERVISOR_COMMS", None)
    return isinstance(comms, supervisor.InProcessSupervisorComms)


def renders_in_triggerer(value: Any, dag: DAG | None) -> bool:
    """Whether the templates in a value render to the same in the triggerer, which lacks the DAG's code."""
    if not is_template(value):
        return True
    if dag is not None and (
        dag.render_template_as_native_obj
        or dag.user_defined_macros
        or dag.user_defined_filters
        or dag.jinja_environment_kwargs
    ):
        return False
    from jinja2 import Environment, TemplateSyntaxError, meta

    environment = Environment(autoescape=False)  # noqa: S701  # it only parses
    try:
        return all(
            meta.find_undeclared_variables(environment.parse(text)) <= RENDERED_IN_TRIGGERER
            for text in _templates(value)
        )
    except TemplateSyntaxError:
        return False


def _templates(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if is_template(value) else []
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _templates(item)]
    return [text for item in value for text in _templates(item)] if isinstance(value, list) else []
