"""Loads the graphs of a `langgraph.json`, as LangGraph's own server does."""

import importlib
import importlib.util
import inspect
import json
import logging
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args, get_type_hints

from langgraph.graph import StateGraph
from langgraph.pregel import Pregel

from langgraph_flow_host.errors import ProjectError
from langgraph_flow_host.store_terms import StoreTerms, store_terms

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Around:
    """What a graph is made for: the run's config and context, the store, and the name of the run's user; with `reading`
    it isn't run but looked at."""

    config: Any
    context: Any
    store: Any
    user: Any
    reading: bool = False


@dataclass(frozen=True)
class Project:
    """What a `langgraph.json` says: where its graphs stand, by their names, and on which terms they use the store."""

    folder: Path
    places: Mapping[str, str]
    store: StoreTerms


def read(file: Path) -> Project:
    """Read a `langgraph.json`. The project's local dependencies become importable."""
    content = json.loads(file.read_text())
    for dependency in content.get("dependencies") or ["."]:
        if str(dependency).startswith("."):
            folder = (file.parent / dependency).resolve()
            for path in (folder, folder / "src"):
                if path.is_dir() and str(path) not in sys.path:
                    sys.path.insert(0, str(path))
    entries = content["graphs"].items()
    places = {name: entry["path"] if isinstance(entry, Mapping) else entry for name, entry in entries}
    return Project(file.parent, places, store_terms(content.get("store")))


def find(place: str, folder: Path) -> Any:
    """What stands at a place, `./file.py:attribute` or `package.module:attribute`. Raises `ProjectError`."""
    module_name, _, attribute = place.rpartition(":")
    if module_name.endswith((".js", ".mjs", ".ts", ".tsx")):
        raise ProjectError(f"{module_name} is JavaScript, which can't run here: graphs have to be in Python")
    try:
        module = _file(folder / module_name) if module_name.endswith(".py") else importlib.import_module(module_name)
    except ProjectError:
        raise
    except (Exception, SystemExit) as error:
        raise ProjectError(f"importing {module_name} failed: {type(error).__name__}: {error}") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ProjectError(f"{module_name} has no {attribute!r}") from None


async def make(place: str, folder: Path, around: Around, resources: AsyncExitStack, saver: Any, name: str) -> Any:
    """The graph at a place, ready to run with a checkpointer and the store that is `around`. Raises `ProjectError`.

    A function that makes a graph is called, and an asynchronous context manager stays open as long as `resources`.
    """
    made = find(place, folder)
    if not isinstance(made, (StateGraph, Pregel)) and callable(made):
        try:
            positional, named = _arguments(made, around)
            made = made(*positional, **named)
            if isinstance(made, AbstractAsyncContextManager):
                made = await resources.enter_async_context(made)
            elif inspect.isawaitable(made):
                made = await made
        except Exception as error:
            raise ProjectError(f"{place} failed to make its graph: {type(error).__name__}: {error}") from error
    store = around.store
    if isinstance(made, StateGraph):
        try:
            return made.compile(checkpointer=saver, store=store, name=name)
        except ValueError as error:
            raise ProjectError(f"{place} can't be compiled: {error}") from error
    if isinstance(made, Pregel):
        return made.copy({"checkpointer": saver, "store": store if store is not None else made.store, "name": name})
    raise ProjectError(f"{place} is a {type(made).__name__}; it has to be a graph or a function that returns one")


def _file(file: Path) -> ModuleType:
    file = file.resolve()
    if not file.is_file():
        raise ProjectError(f"there is no file {file.name!r} in {file.parent}")
    if (file.parent / "__init__.py").is_file() and (module := of_package(file)) is not None:
        return module
    name = "langgraph_project_" + re.sub(r"\W", "_", str(file))
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ProjectError(f"{file.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def of_package(file: Path) -> ModuleType | None:
    """Import a package's file under its own name, so that its relative imports work and it is loaded only once.

    None if the package itself can't be imported, or its name is another one's. LangGraph's server loads files without
    their packages, so there are projects whose files work only by themselves.
    """
    names, root = [file.stem], file.parent
    while (root / "__init__.py").is_file():
        names.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    package = ".".join(names[:-1])
    try:
        paths = [Path(path).resolve() for path in importlib.import_module(package).__path__]
    except (Exception, SystemExit) as error:
        log.warning("%s is loaded without its package %s: %s: %s", file, package, type(error).__name__, error)
        return None
    return importlib.import_module(".".join(names)) if file.parent in paths else None


def _arguments(factory: Any, around: Around) -> tuple[list[Any], dict[str, Any]]:
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


def _runtime(around: Around, annotation: Any) -> Any:
    """What LangGraph's server passes as `ServerRuntime`, of which older versions of `langgraph_sdk` have no class."""
    kinds = [kind for kind in get_args(annotation) if isinstance(kind, type) and not issubclass(kind, dict)]
    context = around.context
    if isinstance(context, Mapping) and len(kinds) == 1:
        context = kinds[0](**context)
    user = None if around.user is None else SimpleNamespace(identity=around.user, display_name=around.user)
    access = "assistants.read" if around.reading else "threads.create_run"
    fields = {"access_context": access, "user": user, "store": around.store}
    if not around.reading:
        fields["context"] = context
    try:
        runtimes = importlib.import_module("langgraph_sdk.runtime")
        return (runtimes._ReadRuntime if around.reading else runtimes._ExecutionRuntime)(**fields)
    except (ImportError, AttributeError, TypeError):
        runtime = SimpleNamespace(**fields)
    runtime.execution_runtime = None if around.reading else runtime
    runtime.ensure_user = lambda: user
    return runtime
