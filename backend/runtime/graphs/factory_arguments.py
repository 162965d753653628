"""What a user's function that makes a graph is called with: a config and a runtime, as in LangGraph's server."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args, get_type_hints

from langchain_core.runnables import RunnableConfig


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a graph runs with beside its input. `user` is the one who started the run, if somebody has; with `reading`,
    the graph isn't run but looked at."""

    config: RunnableConfig
    context: Mapping[str, Any] | None
    store: Any
    user: str | None
    reading: bool = False


@dataclass(frozen=True, slots=True)
class RunUser:
    """The run's user as `langgraph_sdk` describes users. Their rights are Airflow's, and not told here."""

    identity: str
    display_name: str
    is_authenticated: bool = True
    permissions: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Any:
        return asdict(self)[key]

    def __contains__(self, key: object) -> bool:
        return key in asdict(self)

    def __iter__(self) -> Iterator[str]:
        return iter(asdict(self))


def arguments_of(factory: Any, around: Surroundings) -> tuple[list[Any], dict[str, Any]]:
    """The positional and named arguments for a function, by its parameters' names and types.

    A parameter that is neither a config nor a runtime is left to its default, or else taken for the config.
    """
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for one in inspect.signature(factory).parameters.values():
        annotation = _annotation(factory, one)
        is_runtime = one.name == "runtime" or "ServerRuntime" in str(annotation)
        is_open = one.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if is_open or (not is_runtime and one.name != "config" and one.default is not one.empty):
            continue
        value = _runtime(around, annotation) if is_runtime else around.config
        if one.kind is inspect.Parameter.POSITIONAL_ONLY:
            positional.append(value)
        else:
            named[one.name] = value
    return positional, named


def _annotation(factory: Any, parameter: inspect.Parameter) -> Any:
    try:
        return get_type_hints(factory).get(parameter.name, parameter.annotation)
    except (NameError, TypeError, AttributeError):  # of names that exist only for type checkers
        return parameter.annotation


def _runtime(around: Surroundings, annotation: Any) -> Any:
    """The runtime of an execution, its context as the class that the annotation `ServerRuntime[…]` names."""
    from langgraph_sdk.runtime import _ExecutionRuntime, _ReadRuntime  # few graphs need it, and it loads an HTTP client

    kinds = [kind for kind in get_args(annotation) if isinstance(kind, type) and not issubclass(kind, dict)]
    context: Any = around.context
    if isinstance(context, Mapping) and len(kinds) == 1:
        context = kinds[0](**context)
    user = None if around.user is None else RunUser(around.user, around.user)
    if around.reading:
        return _ReadRuntime(access_context="assistants.read", user=user, store=around.store)
    return _ExecutionRuntime(access_context="threads.create_run", user=user, store=around.store, context=context)
