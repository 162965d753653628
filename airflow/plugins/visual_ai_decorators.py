"""`@task.langgraph`. Cheap to import, because Airflow does so for every DAG file that uses a provider's decorator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, determine_kwargs, task_decorator_factory
from airflow.sdk.definitions.context import context_merge
from airflow.sdk.exceptions import AirflowFailException

from backend.core.errors.input_error import InputError
from visual_ai_operators import LangGraphOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["DecoratedLangGraphOperator", "langgraph_task"]


class DecoratedLangGraphOperator(DecoratedOperator, LangGraphOperator):
    """The operator of `@task.langgraph`, whose function returns the agent's input."""

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *LangGraphOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **LangGraphOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.langgraph"
    graph_at_run = "returned.by:function"

    def __init__(self, *, python_callable: Callable[..., Any], **kwargs: Any) -> None:
        config = kwargs.get("agent_config")
        for place, given in (("", kwargs), ("agent_config.", config if isinstance(config, Mapping) else {})):
            if given.get("input_data") is not None:
                raise InputError("is what the function returns; return it there", field=f"{place}input_data")
        super().__init__(python_callable=python_callable, **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Call the function, and run the agent on what the function returns."""
        context_merge(context, self.op_kwargs)
        arguments = determine_kwargs(self.python_callable, self.op_args, context)
        given = self.python_callable(*self.op_args, **arguments)
        if isinstance(given, tuple) and len(given) == 2:
            graph, given = given
            if self.graph not in (None, graph):
                raise AirflowFailException(f"graph: is {self.graph!r}, but the function returned {graph!r}")
            self.graph = graph
        if not isinstance(given, Mapping) and self.graph is None:
            raise AirflowFailException(
                f"the function of @task.langgraph returned a {type(given).__name__}; it has to return the agent's "
                "input as a dict, or a tuple of a graph and its input"
            )
        self.input_data = given
        return LangGraphOperator.execute(self, context)


def langgraph_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """`@task.langgraph(agent_config=…)`: a task that runs an agent on what the function returns.

    The function returns the agent's input, a dict, or, without an `agent_config`, a tuple of the reference of a graph
    and its input. Further arguments are those of `LangGraphOperator`, except for `input_data`.
    """
    DecoratedLangGraphOperator.check_mapped(kwargs)  # the operator of a mapped task is made only when it runs
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=kwargs.pop("multiple_outputs", False),
        decorated_operator_class=DecoratedLangGraphOperator,
        **kwargs,
    )
