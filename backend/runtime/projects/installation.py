"""Adds, updates and removes projects that have environments of their own.

A version is built beside the one in use, which runs go on with meanwhile, and takes its place in one step. The one
before it is kept for a rollback; older ones are removed unless a process still runs graphs of theirs. A version that is
there already, because nothing of it has changed, isn't built again.
"""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from backend.core.errors.input_error import InputError
from backend.runtime.langgraph_json import read_project
from backend.runtime.projects import environment, sources
from backend.runtime.projects.flow_settings import FILE as FLOW_FILE
from backend.runtime.projects.flow_settings import dag_ids_of, flow_settings
from backend.runtime.projects.library import (
    InstalledProject,
    Record,
    check_name,
    find_installed,
    installed,
    replace_current,
)
from backend.runtime.remote.hosts import command, environment_of
from langgraph_flow_host import REQUIREMENTS
from langgraph_flow_host.main import MARK

DESCRIBE_SECONDS = 300.0
"""How long the import of a project may take, together with the compilation of everything that it imports."""


@dataclass(frozen=True, slots=True)
class Added:
    """A project that was added or updated. `changed` is false if this version was in use already."""

    project: InstalledProject
    changed: bool
    remarks: tuple[str, ...] = ()


def add(folder: Path, source: str, name: str | None = None) -> Added:
    """Add a project from a folder or a Git repository. Raises `InputError` naming what is wrong and the remedy."""
    name = check_name(name or sources.name_of(source))
    with _changing(folder, name) as home:
        if name in installed(folder):
            detail = f"is taken: update the project with `projects update {name}`, or use --name"
            raise InputError(detail, field="NAME")
        return _install(home, source)


def update(folder: Path, name: str) -> Added:
    """Build the project from its source again, and use it from now on. Raises `InputError`, having changed nothing."""
    with _changing(folder, check_name(name)) as home:
        return _install(home, find_installed(folder, name).record.source)


def roll_back(folder: Path, name: str) -> Added:
    """Use the version before the present one again; a second rollback takes that back. Raises `InputError`."""
    with _changing(folder, check_name(name)) as home:
        present = find_installed(folder, name).record
        if present.former is None:
            raise InputError(f"{name} has no former version", field="--rollback")
        former = Record(**{**present.former, "former": None})
        _check_dag_ids(InstalledProject(name, home, former))  # another project may have taken one since
        replace_current(home, replace(former, former=_as_former(present)))
        return Added(find_installed(folder, name), changed=True)


def remove(folder: Path, name: str) -> None:
    """Remove a project with its versions. Runs that go on fail, and say that it isn't there. Raises `InputError`."""
    with _changing(folder, check_name(name)) as home:
        find_installed(folder, name)
        (home / "current.json").unlink()
        shutil.rmtree(home, ignore_errors=True)


def describe(project: InstalledProject) -> dict[str, Any]:
    """Import a project's graphs in its environment, and keep what they take. Raises `InputError`."""
    settings = flow_settings(project.project())
    configured = {
        name: {"configurable": one.configurable, "context": one.context}
        for name, one in settings.items()
        if one.configurable or one.context
    }
    program = command(project, "describe", str(project.file), "--configured", json.dumps(configured, default=str))
    try:
        ended = subprocess.run(  # noqa: S603  # the project's Python, and our package
            program,
            capture_output=True,
            text=True,
            timeout=DESCRIBE_SECONDS,
            check=False,
            cwd=project.file.parent,
            env=environment_of(project),
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"can't be imported within {DESCRIBE_SECONDS:g} s", field="graphs") from None
    line = next((one for one in reversed(ended.stdout.splitlines()) if one.startswith(MARK)), None)
    if line is None:
        said = "\n".join(ended.stderr.strip().splitlines()[-5:]) or f"its process ended with {ended.returncode}"
        raise InputError(f"can't be imported: {said}", field="graphs")
    found: dict[str, Any] = json.loads(line.removeprefix(MARK))
    project.graphs_file.write_text(json.dumps(found))
    return found


def _install(home: Path, source: str) -> Added:
    with tempfile.TemporaryDirectory(dir=home, prefix=".fetched-") as fetched:
        copied = Path(fetched, "source")
        shown = sources.fetch(source, copied)
        file = sources.find_project_file(copied)
        project = read_project(file)
        needs = environment.needs_of(project, project.python_version, project.pip_config_file)
        version = _version(copied, needs.python_version)
        record = Record(shown, version, str(file.relative_to(copied)), datetime.now(UTC).isoformat(timespec="seconds"))
        new = InstalledProject(home.name, home, record)
        remarks: list[str] = []
        if not new.graphs_file.is_file():
            shutil.rmtree(new.folder, ignore_errors=True)
            new.folder.mkdir()
            copied.rename(new.folder / "source")
            remarks = _build(new)
    present = installed(home.parent).get(home.name)
    if present is not None and present.record.version == version:
        return Added(present, changed=False)
    former = _as_former(present.record) if present is not None else None
    replace_current(home, replace(record, former=former))
    _remove_older(home, {version, former["version"] if former is not None else version})
    return Added(find_installed(home.parent, home.name), changed=True, remarks=tuple(remarks))


def _build(new: InstalledProject) -> list[str]:
    try:
        project = new.project()
        _check_dag_ids(new)
        needs = environment.needs_of(project, project.python_version, project.pip_config_file)
        remarks = environment.build(needs, new.python.parents[1])
        describe(new)
        return remarks
    except BaseException:
        shutil.rmtree(new.folder, ignore_errors=True)
        raise


def _check_dag_ids(new: InstalledProject) -> None:
    """Raise `InputError` for a wrong `flow.toml`, and for one that gives a graph another project's DAG."""
    taken: dict[str, str] = {}
    for one in installed(new.home.parent).values():
        with suppress(InputError):  # what is wrong with another project is its own affair
            taken |= dict.fromkeys(_dag_ids(one) if one.name != new.name else (), one.name)
    for dag_id in _dag_ids(new):
        if dag_id in taken:
            detail = f"gives a graph the dag_id {dag_id!r}, which is that of a graph of {taken[dag_id]}"
            raise InputError(detail, field=FLOW_FILE)


def _dag_ids(one: InstalledProject) -> Collection[str]:
    project = one.project()
    return dag_ids_of(project, flow_settings(project), one.name).values()


def _version(copied: Path, python_version: str | None) -> str:
    made_of = [sources.digest(copied), python_version or "", *REQUIREMENTS]
    return sha256("\n".join(made_of).encode()).hexdigest()[:12]


def _as_former(record: Record) -> dict[str, Any]:
    return {
        "source": record.source,
        "version": record.version,
        "file": record.file,
        "added_at": record.added_at,
    }


def _remove_older(home: Path, kept: set[str]) -> None:
    """Remove versions that nobody uses: their processes hold a lock on the version's folder."""
    for version in home.iterdir():
        if version.is_dir() and not version.name.startswith(".") and version.name not in kept and not _in_use(version):
            shutil.rmtree(version, ignore_errors=True)


def _in_use(version: Path) -> bool:
    handle = os.open(version, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def _changing(folder: Path, name: str) -> Iterator[Path]:
    """The project's folder, which nobody else changes meanwhile."""
    home = folder / name
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        with (folder / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield home
    finally:
        if home.is_dir() and not any(home.iterdir()):
            home.rmdir()
