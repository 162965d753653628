"""Processes of our own modules, for work that may take long, or may have to be killed."""

import os
import sys
from pathlib import Path

import backend

FOLDER = Path(backend.__file__).parents[1]
"""Where such a process starts, so that it finds the modules."""

_PASSED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR")


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module."""
    return [sys.executable, "-m", module, *arguments]


def bare_environment() -> dict[str, str]:
    """This process's environment without its settings and secrets."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
