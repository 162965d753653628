"""Loads users' own graphs, from a module, a file or a `langgraph.json` project."""

import importlib
import importlib.util
import inspect
import re
import sys
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from backend.core.errors.input_error import InputError
from backend.runtime.graphs.factory_arguments import Surroundings, arguments_of
from backend.runtime.langgraph_json import GraphLoadError, activate, find
from langgraph_flow_host.graphs import of_package


async def load_graph(
    reference: str,
    *,
    around: Surroundings,
    project_file: str | None,
    resources: AsyncExitStack,
    saver: Any,
    name: str,
) -> Pregel[Any, Any, Any, Any]:
    """The user's unchanged graph, ready to run with our checkpointer, and with the store that is `around`.

    `reference` is `package.module:attribute`, `./file.py:attribute`, or a name in `langgraph.json`. The attribute is a
    `StateGraph`, a compiled graph, or a function that returns either of them. The function may be synchronous,
    asynchronous, or an asynchronous context manager, which stays open as long as `resources`; it may take a
    `RunnableConfig` and LangGraph's `ServerRuntime`, in any order. Raises `GraphLoadError`.
    """
    place, folder = reference, Path.cwd()
    if ":" not in reference:
        place, project = find(reference, project_file)
        activate(project.file)
        folder = project.folder
    found = find_at(place, folder)
    made = await _made(found, place, around, resources)
    store = around.store
    if isinstance(made, StateGraph):
        try:
            return made.compile(checkpointer=saver, store=store, name=name)
        except ValueError as error:
            raise GraphLoadError(f"{place} can't be compiled: {error}") from error
    if isinstance(made, Pregel):
        # A copy, because other tasks of this process may use the same object.
        return made.copy({"checkpointer": saver, "store": store if store is not None else made.store, "name": name})
    raise GraphLoadError(f"{place} is a {type(made).__name__}; it has to be a graph or a function that returns one")


def find_at(place: str, folder: Path) -> Any:
    """What stands at a place, `./file.py:attribute` or `package.module:attribute`. Raises `GraphLoadError`."""
    module_name, _, attribute = place.rpartition(":")
    try:
        module = _file_module(folder / module_name) if module_name.endswith(".py") else _module(module_name)
    except GraphLoadError:
        raise
    except Exception as error:
        raise GraphLoadError(f"importing {module_name} failed: {type(error).__name__}: {error}") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise GraphLoadError(f"{module_name} has no {attribute!r}") from None


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise GraphLoadError(
                f"there is no module {name!r}; it has to be installed, or be on PYTHONPATH, where tasks run "
                "(for a deferrable task: in the triggerer, which doesn't look in the folder of DAGs)"
            ) from error
        raise


def _file_module(file: Path) -> ModuleType:
    file = file.resolve()
    if (file.parent / "__init__.py").is_file() and (module := of_package(file)) is not None:
        return module
    name = "langgraph_project_" + re.sub(r"\W", "_", str(file))
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise GraphLoadError(f"there is no file {file.name!r} in {file.parent}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


async def _made(found: Any, place: str, around: Surroundings, resources: AsyncExitStack) -> Any:
    if isinstance(found, StateGraph | Pregel) or not callable(found):
        return found
    try:
        positional, named = arguments_of(found, around)
        made = found(*positional, **named)
        if isinstance(made, AbstractAsyncContextManager):
            return await resources.enter_async_context(made)
        return await made if inspect.isawaitable(made) else made
    except InputError:
        raise
    except Exception as error:
        raise GraphLoadError(f"{place} failed to make its graph: {type(error).__name__}: {error}") from error
