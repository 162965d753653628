"""Where a project comes from: a folder, or a Git repository."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from backend.core.errors.input_error import InputError

FIELD = "SOURCE"
CLONE_SECONDS = 600.0

_SKIPPED = frozenset(
    {".git", ".venv", "venv", "__pycache__", "node_modules", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
)
_DEPTH = 3
"""Folders below a repository's root in which its langgraph.json may be."""


def is_repository(source: str) -> bool:
    """Whether a source is the address of a Git repository."""
    return "://" in source or re.match(r"[\w.-]+@[\w.-]+:", source) is not None


def name_of(source: str) -> str:
    """The usual name of a project."""
    place = urlsplit(source).path if is_repository(source) else str(Path(source).resolve())
    name = Path(place.rstrip("/")).name.removesuffix(".git")
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:60]


def fetch(source: str, to: Path) -> str:
    """Copy a project to a folder that doesn't exist; returns the source in the form that may be shown and kept.

    Raises `InputError` naming what is wrong with it.
    """
    if is_repository(source):
        return _clone(source, to)
    place = Path(source).expanduser().resolve()
    if not place.is_dir():
        raise InputError(f"{source} is neither a folder nor a https:// address of a Git repository", field=FIELD)
    shutil.copytree(place, to, symlinks=False, ignore=lambda _, names: [*_SKIPPED.intersection(names)])
    return str(place)


def find_project_file(folder: Path) -> Path:
    """The langgraph.json of a project. Raises `InputError` if there is none, or more than one below the folder."""
    if (file := folder / "langgraph.json").is_file():
        return file
    below = [one for depth in range(1, _DEPTH + 1) for one in sorted(folder.glob("*/" * depth + "langgraph.json"))]
    if len(below) == 1:
        return below[0]
    shown = ", ".join(str(one.relative_to(folder)) for one in below)
    detail = f"has several, in {shown}: add the folder of one of them" if below else "has no langgraph.json"
    raise InputError(detail, field=FIELD)


def digest(folder: Path) -> str:
    """What changes with each file of a folder."""
    found = sha256()
    for path in _files(folder):
        found.update(f"{path.relative_to(folder)}\n{path.stat().st_mode & 0o111}\n".encode())
        found.update(sha256(path.read_bytes()).digest())
    return found.hexdigest()


def without_credentials(text: str) -> str:
    """A text in which no address has a user or a password."""
    return re.sub(r"(\w+://)[^/\s@]+@", r"\1", text)


def _files(folder: Path) -> Iterator[Path]:
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(one for one in folders if one not in _SKIPPED)
        yield from (path for name in sorted(names) if (path := Path(at, name)).is_file())


def _clone(source: str, to: Path) -> str:
    address, _, branch = source.partition("#")
    parts = urlsplit(address)
    if parts.scheme not in ("https", "file"):
        raise InputError(f"{without_credentials(address)} has to be an https:// address", field=FIELD)
    if parts.username or parts.password:
        raise InputError("has credentials in it; leave them to Git's credential helper", field=FIELD)
    command = ["git", "-c", "protocol.allow=never", "-c", f"protocol.{parts.scheme}.allow=always", "clone", "--quiet"]
    command += ["--depth", "1", *(["--branch", branch] if branch else []), "--", address, str(to)]
    try:
        ended = subprocess.run(  # noqa: S603  # Git, and an address that was checked
            command,
            capture_output=True,
            text=True,
            timeout=CLONE_SECONDS,
            check=False,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"can't be cloned: {without_credentials(str(error))}", field=FIELD) from None
    if ended.returncode != 0:
        said = without_credentials(ended.stderr.strip()) or f"git ended with {ended.returncode}"
        raise InputError(f"can't be cloned: {said[-1000:]}", field=FIELD)
    shutil.rmtree(to / ".git", ignore_errors=True)
    return source
