"""Makes the environment of a project: its own Python, with its own versions of everything."""

import configparser
import os
import shutil
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backend.core.errors.input_error import InputError
from backend.runtime.langgraph_json import Project
from backend.runtime.projects.sources import without_credentials
from langgraph_flow_host import REQUIREMENTS

BUILD_SECONDS = 1800.0

_PIP_OPTIONS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
}
_NOT_PASSED = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True, slots=True)
class Needs:
    """What an environment is made of. `python_version` None stands for the product's own."""

    python_version: str | None
    packages: tuple[str, ...]
    requirements: tuple[Path, ...]
    local: tuple[Path, ...]
    pip_config: Path | None


def needs_of(project: Project, python_version: str | None, pip_config: str | None) -> Needs:
    """What a project needs. Raises `InputError` naming the key of its langgraph.json and the remedy."""
    root = project.folder
    packages, requirements, local = [], [], []
    for dependency in project.dependencies or (".",):
        if not dependency.startswith("."):
            packages.append(dependency)
            continue
        place = (root / dependency).resolve()
        if not place.is_dir():
            raise InputError(f"there is no folder {dependency} in what was added", field="dependencies")
        if _is_package(place):
            local.append(place)
        elif (file := place / "requirements.txt").is_file():
            requirements.append(file)
    config = None
    if pip_config is not None and not (config := root / pip_config).is_file():
        raise InputError(f"there is no file {pip_config}", field="pip_config_file")
    return Needs(python_version, tuple(packages), tuple(requirements), tuple(local), config)


def build(needs: Needs, place: Path) -> list[str]:
    """Make the environment at a place; returns remarks. Raises `InputError` with what couldn't be installed, and why.

    A project that can't be installed as a package, as templates often can't, is imported from its folder instead.
    """
    uv, own = _uv(), f"{sys.version_info.major}.{sys.version_info.minor}"
    environment = _environment(needs)
    python = needs.python_version if needs.python_version not in (None, own) else sys.executable
    said = _run([uv, "venv", "--quiet", "--no-project", "--python", str(python), str(place)], environment)
    if said is not None:
        detail = f"Python {python} can't be had: {said}; install it here, or change python_version to {own}"
        raise InputError(detail, field="python_version")
    common = [uv, "pip", "install", "--quiet", "--python", str(place / "bin" / "python"), *REQUIREMENTS]
    common += [*needs.packages, *_each("-r", needs.requirements)]
    said = _run([*common, *_each("-e", needs.local)], environment)
    if said is None:
        return []
    remarks = []
    if needs.local:
        again = _run([*common, *_each("-r", [_file_of(one) for one in needs.local])], environment)
        if again is None:
            reason = said.strip().splitlines()[0]
            remarks.append(f"it can't be installed as a package and is imported from its folder: {reason}")
            return remarks
        said = again
    hint = "; LangGraph Flow runs LangGraph 1.x only" if "langgraph" in said and "<2" in said else ""
    raise InputError(f"can't be installed: {said}{hint}", field="dependencies")


def _is_package(place: Path) -> bool:
    if (place / "setup.py").is_file() or (place / "setup.cfg").is_file():
        return True
    try:
        content = tomllib.loads((place / "pyproject.toml").read_text())
    except (OSError, ValueError):
        return False
    return "project" in content or "build-system" in content


def _file_of(place: Path) -> Path:
    """The file with a package's dependencies."""
    names = ("pyproject.toml", "setup.py", "setup.cfg")
    return next(place / name for name in names if (place / name).is_file())


def _each(option: str, values: Sequence[Path]) -> list[str]:
    return [part for value in values for part in (option, str(value))]


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if found is None:
        raise InputError("isn't installed; it makes the environments of projects: pip install uv", field="uv")
    return found


def _environment(needs: Needs) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED}
    if any(ssl.get_default_verify_paths()[:2]):
        # As pip does: a company's own certificate authority stands in the system's store.
        found.setdefault("UV_SYSTEM_CERTS", "true")
    if needs.pip_config is None:
        return found
    config = configparser.RawConfigParser()
    try:
        config.read_string(needs.pip_config.read_text())
    except (OSError, ValueError, configparser.Error) as error:
        raise InputError(f"can't be read: {type(error).__name__}", field="pip_config_file") from None
    options: dict[str, str] = {}
    for section in ("global", "install"):
        if config.has_section(section):
            options |= config.items(section)
    return found | {
        variable: " ".join(options[name].split()) for name, variable in _PIP_OPTIONS.items() if name in options
    }


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """What a command said if it failed, without credentials; None if it succeeded."""
    try:
        ended = subprocess.run(  # noqa: S603  # uv, and what the project's owner wants installed
            command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False, env=dict(environment)
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return without_credentials(str(error))
    if ended.returncode == 0:
        return None
    return without_credentials(ended.stderr.strip())[-4000:] or f"uv ended with {ended.returncode}"
