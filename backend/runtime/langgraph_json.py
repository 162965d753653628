"""References to graphs, and `langgraph.json` projects. Light to import, because DAG files check references with it."""

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from backend.core.errors.input_error import InputError
from langgraph_flow_host.store_terms import StoreTerms, store_terms

log = logging.getLogger(__name__)

HONOURED = frozenset({"$schema", "graphs", "dependencies", "env", "python_version", "store"})
OURS: Mapping[str, str] = {
    "auth": "users sign in as Airflow says, and their rights are those that they have there",
    "http": "the API is this product's; an app of one's own runs beside it",
    "ui": "components of LangGraph Studio have no place here",
    "ui_config": "components of LangGraph Studio have no place here",
    "checkpointer": "states are kept in the product's database, for retries and time travel",
    "webhooks": "targets of notifications are set up on the page, under Settings",
    "encryption": "encrypt the database's storage instead",
    "pip_config_file": "the product's environment isn't the project's; one of its own, by `projects add`, heeds it",
    "node_version": "graphs in JavaScript can't run in Airflow's Python",
}
"""Keys of `langgraph.json` that have no effect here, and what has in their place."""


class GraphLoadError(InputError):
    """The user's graph can't be loaded; code, reference or environment has to be fixed. A retry doesn't help."""

    field = "graph"


@dataclass(frozen=True, slots=True)
class Project:
    """A `langgraph.json` file: its place, its graphs, and the environment it needs."""

    file: Path
    graphs: Mapping[str, str]
    about: Mapping[str, str]
    """What the file says about some of the graphs."""
    env: str | Mapping[str, Any] | None
    dependencies: tuple[str, ...]
    ignored: tuple[str, ...]
    """The keys that have no effect."""
    store: StoreTerms
    python_version: str | None = None
    pip_config_file: str | None = None

    @property
    def folder(self) -> Path:
        return self.file.parent


def check_reference(reference: Any, project_file: str | None) -> None:
    """Check a reference as far as possible without importing the graph. Raises `GraphLoadError`."""
    if not isinstance(reference, str) or not reference.strip():
        raise GraphLoadError("has to be 'package.module:attribute', 'project/graph' or a name in langgraph.json")
    if ":" not in reference:
        find(reference, project_file)
        return
    module, _, attribute = reference.rpartition(":")
    if not module or not attribute.isidentifier():
        raise GraphLoadError(f"is {reference!r}; it has to read 'package.module:attribute'")


def find(name: str, project_file: str | None) -> tuple[str, Project]:
    """The place of the graph with this name, and its project. Raises `GraphLoadError`."""
    if project_file is None:
        raise GraphLoadError(
            f"{name!r} is a name in a langgraph.json, but none is set: give VISUAL_AI_LANGGRAPH_JSON its path, or "
            "write 'package.module:attribute'"
        )
    project = read_project(Path(project_file))
    if name not in project.graphs:
        known = ", ".join(sorted(project.graphs)) or "no graphs"
        raise GraphLoadError(f"there is no {name!r} in {project_file}; it has {known}")
    return project.graphs[name], project


@lru_cache(maxsize=8)
def read_project(file: Path) -> Project:
    """Read a `langgraph.json`, once per process. Raises `GraphLoadError`."""
    try:
        content = json.loads(file.read_text())
        entries = {
            name: entry if isinstance(entry, dict) else {"path": entry} for name, entry in content["graphs"].items()
        }
        graphs = {name: entry["path"] for name, entry in entries.items()}
        about = {name: str(entry["description"]) for name, entry in entries.items() if entry.get("description")}
        if not all(isinstance(place, str) and ":" in place for place in graphs.values()):
            raise ValueError("each of `graphs` has to read './file.py:attribute' or 'package.module:attribute'")
        dependencies = tuple(str(dependency) for dependency in content.get("dependencies") or [])
        ignored = tuple(key for key, value in content.items() if key not in HONOURED and value not in (None, {}, []))
        own = (str(value) if (value := content.get(key)) else None for key in ("python_version", "pip_config_file"))
        store = store_terms(content.get("store"))
        return Project(file.resolve(), graphs, about, content.get("env"), dependencies, ignored, store, *own)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GraphLoadError(f"{file} can't be read as a langgraph.json: {error}") from error


@lru_cache(maxsize=8)
def activate(file: Path) -> None:
    """Make a project's modules importable, check its dependencies and set its environment, once per process.

    Variables that are set already take precedence over the project's `env`. What of the project has no effect, and a
    file of variables that isn't there, are logged as warnings. Raises `GraphLoadError`.
    """
    project = read_project(file)
    for warning in ignored_keys(project):
        log.warning("%s", warning)
    _check_dependencies(project)
    _set_environment(project)


def _set_environment(project: Project) -> None:
    if isinstance(project.env, str) and not (file := project.folder / project.env).is_file():
        log.warning("%s", missing_variables(project, file))
    for name, value in variables(project).items():
        os.environ.setdefault(name, value)


def variables(project: Project) -> dict[str, str]:
    """The environment variables that a project sets."""
    values: Mapping[str, Any] = project.env if isinstance(project.env, Mapping) else {}
    if isinstance(project.env, str):
        from dotenv import dotenv_values

        values = dotenv_values(project.folder / project.env)
    return {str(name): str(value) for name, value in values.items() if value is not None}


def ignored_keys(project: Project) -> list[str]:
    """For each key of the project that has no effect, a sentence with what has in its place."""
    return [
        f"{project.file}: {key!r} has no effect{f': {OURS[key]}' if key in OURS else ''}" for key in project.ignored
    ]


def missing_variables(project: Project, file: Path) -> str:
    """What to do about a missing file of variables, with the names of those that its example lists and nothing sets."""
    from dotenv import dotenv_values

    names = [
        name
        for example in (".env.example", ".env.sample", "env.example", ".env.template")
        for name in dotenv_values(file.with_name(example))
        if name not in os.environ
    ]
    listed = ", ".join(dict.fromkeys(names))
    missing = f"; its example lists variables that aren't set: {listed}" if listed else ""
    return f"env of {project.file}: there is no file {project.env!r} beside it{missing}"


def _check_dependencies(project: Project) -> None:
    missing = []
    for dependency in project.dependencies:
        if dependency.startswith("."):
            place = (project.folder / dependency).resolve()
            if not place.is_dir():
                raise GraphLoadError(f"dependencies of {project.file}: there is no folder {dependency!r}")
            for path in (place / "src", place):
                if path.is_dir() and str(path) not in sys.path:
                    sys.path.insert(0, str(path))
            continue
        name = re.split(r"[\s\[<>=!~;@]", dependency, maxsplit=1)[0]
        try:
            distribution(name)
        except PackageNotFoundError:
            missing.append(dependency)
    if missing:
        raise GraphLoadError(
            f"dependencies of {project.file} that are not installed: {', '.join(missing)}; install them where tasks "
            f"run, for example with pip install {' '.join(missing)}"
        )
