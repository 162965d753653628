"""What a project's graphs take, kept until one of its files changes.

DAG files are parsed every half minute, and by each task; importing a project takes seconds and executes its code. So
that happens once for each version of the project's files, in a process of its own, and the result is kept in a file.
What failed is tried again after a while, because what it lacked may be there by then: a package, or a variable.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from backend.runtime.langgraph_json import GraphLoadError, Project, read_project
from backend.runtime.projects.describe import MARK
from backend.runtime.projects.library import InstalledProject

TIME_LIMIT = 25.0
"""Seconds that the import of a project may take. Airflow gives up a DAG file after 30."""

RETRY_SECONDS = 300.0
"""For how long it is believed that a graph can't be imported."""

log = logging.getLogger(__name__)

MAX_FILES = 10_000

PUBLISHED_SECONDS = 600.0

_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})


@dataclass(frozen=True, slots=True)
class GraphDescription:
    """A graph. Without an `error`, `nodes` are its nodes, `breakpoints` those where it stops to ask people, and `asks`
    those that are seen to ask people themselves, in a project with an environment of its own."""

    name: str
    input_schema: Mapping[str, Any] | None = None
    context_schema: Mapping[str, Any] | None = None
    nodes: tuple[str, ...] = ()
    breakpoints: tuple[str, ...] = ()
    asks: tuple[str, ...] = ()
    error: str | None = None
    shown: Mapping[str, Any] = field(default_factory=dict)
    """What clients of LangGraph's protocol see of it: `graph`, `graph_xray`, `schemas` and `subgraphs`."""


def descriptions(file: Path, *, only_kept: bool = False, fresh: bool = False) -> dict[str, GraphDescription]:
    """The graphs of a project by name. `fresh` imports it whatever is kept; `only_kept` never does, nor looks whether
    files have changed: what isn't known is then empty.

    Raises `GraphLoadError` if the project can't be read, or ends the process that imports it.
    """
    project = read_project(file)
    kept = folder() / f"{sha256(str(project.file).encode()).hexdigest()}.json"
    found = _read(kept)
    if not only_kept:
        version = _version(project)
        if fresh or not _holds(found, version):
            found = _imported(project) | {"version": version, "at": time.time()}
            _write(kept, found)
        if found["failed"] is not None:
            raise GraphLoadError(found["failed"])
    graphs = found.get("graphs", {})
    return {name: _description(name, graphs.get(name) or {}) for name in project.graphs}


def publish(dag_ids: Mapping[str, str], found: Mapping[str, GraphDescription]) -> None:
    """Record the graphs, by name, for those who talk to them through the API, which may not have the project.

    Does nothing if they were recorded as they are within `PUBLISHED_SECONDS`: the database may be another one since, or
    an earlier one that was restored. An unavailable database is no error: the next one who reads the
    project tries again.
    """
    rows = [
        {"dag_id": dag_ids[name], "graph_id": name, "shown": {**one.shown, "breakpoints": [*one.breakpoints]}}
        for name, one in found.items()
        if one.error is None
    ]
    digest = sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    kept = folder() / f"{sha256(json.dumps(sorted(dag_ids.values())).encode()).hexdigest()}.published"
    if not rows or _is_recent(kept, digest):
        return
    from sqlalchemy.exc import SQLAlchemyError  # reading DAG files needs no database driver

    from backend.core.settings import get_settings
    from backend.db.conversations.assistants import keep_graphs
    from backend.db.engine import task_engine

    try:
        with task_engine(get_settings().database_url).begin() as connection:
            keep_graphs(connection, rows)
    except SQLAlchemyError as error:
        log.warning("the graphs of the project could not be recorded: %s", type(error).__name__)
        return
    with suppress(OSError):
        kept.write_text(digest)


def _is_recent(kept: Path, digest: str) -> bool:
    try:
        return kept.read_text() == digest and time.time() - kept.stat().st_mtime < PUBLISHED_SECONDS
    except OSError:
        return False


def installed_descriptions(project: InstalledProject) -> dict[str, GraphDescription]:
    """The graphs of a project with an environment of its own, as they were when it was added."""
    found = _read(project.graphs_file)
    return {name: _description(name, found.get(name) or {}) for name in project.project().graphs}


def _holds(found: Mapping[str, Any], version: str) -> bool:
    """Whether what is kept is still what an import would find."""
    if found.get("version") != version:
        return False
    failed = found["failed"] is not None or any(graph["error"] is not None for graph in found["graphs"].values())
    return not failed or time.time() - found["at"] < RETRY_SECONDS


def _description(name: str, found: Mapping[str, Any]) -> GraphDescription:
    return GraphDescription(
        name,
        found.get("input_schema"),
        found.get("context_schema"),
        tuple(found.get("nodes") or ()),
        tuple(found.get("breakpoints") or ()),
        tuple(found.get("asks") or ()),
        found.get("error"),
        found.get("shown") or {},
    )


def _imported(project: Project) -> dict[str, Any]:
    """The `graphs` of a project, or why importing it has `failed`."""
    command = [sys.executable, "-m", "backend.runtime.projects.describe", str(project.file)]
    try:
        ended = subprocess.run(  # noqa: S603  # the interpreter, our module and the operator's own file
            command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False, cwd=project.folder
        )
    except subprocess.TimeoutExpired:
        why = f"importing the graphs of {project.file} took longer than {TIME_LIMIT:g} s"
        return {"graphs": {}, "failed": why}
    line = next((one for one in reversed(ended.stdout.splitlines()) if one.startswith(MARK)), None)
    if line is None:
        said = ended.stderr.strip().splitlines()[-1:] or [f"the process ended with {ended.returncode}"]
        return {"graphs": {}, "failed": f"importing the graphs of {project.file} failed: {said[0]}"}
    return {"graphs": json.loads(line.removeprefix(MARK)), "failed": None}


def _version(project: Project) -> str:
    """What changes with each file of the project, and with the environment that it is imported in."""
    version = sha256(f"{project.file}\n{sys.prefix}\n{sys.version}\n".encode())
    if isinstance(project.env, str) and (env := project.folder / project.env).is_file():
        version.update(env.read_bytes())
    places = [project.folder, *((project.folder / one).resolve() for one in project.dependencies if one[:1] == ".")]
    for number, path in enumerate(file for place in sorted(set(places)) for file in _files(place)):
        if number >= MAX_FILES:
            break
        seen = path.stat()
        version.update(f"{path}\n{seen.st_mtime_ns}\n{seen.st_size}\n".encode())
    return version.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(one for one in folders if one not in _SKIPPED and not one.startswith("."))
        yield from (Path(at, name) for name in sorted(names) if name.endswith((".py", ".json", ".toml")))


def folder() -> Path:
    """Where descriptions are kept: with Airflow's own files, which nobody else may write."""
    home = os.environ.get("AIRFLOW_HOME")
    return Path(home, "graph_descriptions") if home else Path.home() / ".cache" / "langgraph-flow" / "graphs"


def _read(file: Path) -> dict[str, Any]:
    """What is kept; nothing if there is none."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: Path, found: Mapping[str, Any]) -> None:
    """Keep a description, if that is possible: processes that have none import the project themselves."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(found))
        temporary.replace(file)
    except OSError:
        return
