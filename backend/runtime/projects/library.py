"""Projects that were added with `projects add`, each in a folder with an environment of its own.

    <folder>/<project>/current.json              the version in use, and the one before it
    <folder>/<project>/<version>/source/         a copy of the project
    <folder>/<project>/<version>/environment/    its Python, with what it depends on
    <folder>/<project>/<version>/graphs.json     what its graphs take, written when all of it is complete

A version never changes, and another one takes its place by the replacement of `current.json`. Light to import, because
DAG files read it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend.core.errors.input_error import InputError
from backend.runtime.langgraph_json import GraphLoadError, Project, read_project

SEPARATOR = "/"
"""What a reference `project/graph` has between the two."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
_CURRENT = "current.json"


@dataclass(frozen=True, slots=True)
class Record:
    """What `current.json` says. `source` is where the project comes from, and `file` its langgraph.json in there."""

    source: str
    version: str
    file: str
    added_at: str
    former: Mapping[str, Any] | None = None
    """The record before this one, for a rollback."""


@dataclass(frozen=True, slots=True)
class InstalledProject:
    """A project in the version that is in use."""

    name: str
    home: Path
    record: Record

    @property
    def folder(self) -> Path:
        """The version's folder."""
        return self.home / self.record.version

    @property
    def file(self) -> Path:
        """Its langgraph.json."""
        return self.folder / "source" / self.record.file

    @property
    def python(self) -> Path:
        return self.folder / "environment" / "bin" / "python"

    @property
    def graphs_file(self) -> Path:
        """What its graphs take."""
        return self.folder / "graphs.json"

    def project(self) -> Project:
        """Raises `GraphLoadError`."""
        return read_project(self.file)


def check_name(name: str) -> str:
    """A project's name, if it can be one. Raises `InputError`."""
    if not _NAME.fullmatch(name):
        detail = f"is {name!r}; it has to be up to 60 letters, digits, dots, dashes and underscores: use --name"
        raise InputError(detail, field="NAME")
    return name


def installed(folder: str | Path | None) -> dict[str, InstalledProject]:
    """All projects in the folder of projects, by their names."""
    if folder is None or not (place := Path(folder)).is_dir():
        return {}
    found = (_read(home) for home in sorted(place.iterdir()) if _NAME.fullmatch(home.name))
    return {project.name: project for project in found if project is not None}


def find_installed(folder: str | Path | None, name: str) -> InstalledProject:
    """One project. Raises `GraphLoadError`."""
    found = _read(Path(folder) / name) if folder is not None and _NAME.fullmatch(name) else None
    if found is None:
        known = ", ".join(installed(folder)) or "none"
        where = "VISUAL_AI_PROJECTS_DIR isn't set" if folder is None else f"there are in {folder}: {known}"
        raise GraphLoadError(f"there is no project {name!r}: add it with `projects add`; {where}")
    return found


def split(reference: str) -> tuple[str, str] | None:
    """The project and the graph of a reference `project/graph`; None for any other reference."""
    if ":" in reference or SEPARATOR not in reference:
        return None
    project, _, graph = reference.partition(SEPARATOR)
    return project, graph


def find_graph(folder: str | Path | None, reference: str) -> tuple[InstalledProject, str]:
    """The project and the name of the graph of a reference `project/graph`. Raises `GraphLoadError`."""
    name, graph = split(reference) or ("", "")
    found = find_installed(folder, name)
    if graph not in (graphs := found.project().graphs):
        raise GraphLoadError(f"the project {name} has no graph {graph!r}; it has {', '.join(sorted(graphs))}")
    return found, graph


def replace_current(home: Path, record: Record) -> None:
    """Make another version the one in use, in one step."""
    new = home / f"{_CURRENT}.new"
    new.write_text(json.dumps(asdict(record), indent=1))
    new.replace(home / _CURRENT)


def _read(home: Path) -> InstalledProject | None:
    try:
        return InstalledProject(home.name, home, Record(**json.loads((home / _CURRENT).read_text())))
    except (OSError, ValueError, TypeError):
        return None
