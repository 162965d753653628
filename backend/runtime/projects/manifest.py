"""What a project's graphs take, kept until one of its files changes.

DAG files are parsed every half minute, and by each task; importing a project takes seconds and executes its code. So
that happens once for each version of the project's files, in a process of its own, and the result is kept in a file.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from backend.runtime.langgraph_json import GraphLoadError, Project, read_project
from backend.runtime.projects.describe import MARK

TIME_LIMIT = 25.0
"""Seconds that the import of a project may take. Airflow gives up a DAG file after 30."""

MAX_FILES = 10_000

_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})


@dataclass(frozen=True, slots=True)
class GraphDescription:
    """A graph. Without an `error`, `nodes` are its nodes and `breakpoints` those where it stops to ask people."""

    name: str
    input_schema: Mapping[str, Any] | None = None
    context_schema: Mapping[str, Any] | None = None
    nodes: tuple[str, ...] = ()
    breakpoints: tuple[str, ...] = ()
    error: str | None = None


def descriptions(file: Path, *, only_kept: bool = False) -> dict[str, GraphDescription]:
    """The graphs of a project by name. `only_kept` never imports it: what isn't known is then empty.

    Raises `GraphLoadError` if the project can't be read, or ends the process that imports it.
    """
    project = read_project(file)
    kept = _folder() / f"{_version(project)}.json"
    found = _read(kept)
    if found is None and not only_kept:
        found = _imported(project)
        _write(kept, found)
    return {name: _description(name, (found or {}).get(name) or {}) for name in project.graphs}


def _description(name: str, found: Mapping[str, Any]) -> GraphDescription:
    return GraphDescription(
        name,
        found.get("input_schema"),
        found.get("context_schema"),
        tuple(found.get("nodes") or ()),
        tuple(found.get("breakpoints") or ()),
        found.get("error"),
    )


def _imported(project: Project) -> dict[str, Any]:
    command = [sys.executable, "-m", "backend.runtime.projects.describe", str(project.file)]
    try:
        ended = subprocess.run(  # noqa: S603  # the interpreter, our module and the operator's own file
            command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False, cwd=project.folder
        )
    except subprocess.TimeoutExpired:
        raise GraphLoadError(f"importing the graphs of {project.file} took longer than {TIME_LIMIT:g} s") from None
    line = next((one for one in reversed(ended.stdout.splitlines()) if one.startswith(MARK)), None)
    if line is None:
        said = ended.stderr.strip().splitlines()[-1:] or [f"the process ended with {ended.returncode}"]
        raise GraphLoadError(f"importing the graphs of {project.file} failed: {said[0]}")
    found: dict[str, Any] = json.loads(line.removeprefix(MARK))
    return found


def _version(project: Project) -> str:
    """What changes with each file of the project, and with the environment that it is imported in."""
    version = sha256(f"{project.file}\n{sys.prefix}\n{sys.version}\n".encode())
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


def _folder() -> Path:
    """Where descriptions are kept: with Airflow's own files, which nobody else may write."""
    home = os.environ.get("AIRFLOW_HOME")
    return Path(home, "graph_descriptions") if home else Path.home() / ".cache" / "langgraph-flow" / "graphs"


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(file: Path, found: Mapping[str, Any]) -> None:
    """Keep a description, if that is possible: processes that have none import the project themselves."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(found))
        temporary.replace(file)
    except OSError:
        return
