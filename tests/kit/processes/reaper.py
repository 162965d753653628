"""Cleans up after a test process that could not do so itself, because it was killed.

Each test process owns one disposable folder. Servers keep their data inside it, and every process that is started
inherits its path in an environment variable. A small watcher process, the reaper, waits for the test process to end,
however it ends. It then terminates all processes that carry the path and deletes the folder.

The reaper needs nothing that only Linux or only macOS has. A process that is started with an environment of its own
has to be given `marker()`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_FOLDER = "TEST_SESSION_FOLDER"
_STACK = "VISUAL_AI_STACK"
"""A stack marks its PostgreSQL with its state directory, which is inside the folder, and with nothing else."""

_POLL, _GRACE = 0.2, 3.0
"""Seconds between two looks at the test process, and seconds that a process gets to end before it is killed."""


def disposable_folder(prefix: str) -> Path:
    """A new folder that is gone when this process has ended, unless it is deleted sooner."""
    return Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=_watched_folder()[0]))


def marker() -> dict[str, str]:
    """The environment variable by which the reaper finds what this process has started."""
    return {_FOLDER: str(_watched_folder()[0])}


@cache
def _watched_folder() -> tuple[Path, subprocess.Popen[bytes]]:
    """This process's folder and the reaper that watches over it."""
    folder = Path(tempfile.mkdtemp(prefix="visual-ai-tests-")).resolve()
    reaper = subprocess.Popen(
        [sys.executable, "-I", __file__, str(os.getpid()), str(folder)],
        env={name: value for name, value in os.environ.items() if name != _FOLDER},  # nobody else's reaper may end it
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches the tests only
    )
    os.environ[_FOLDER] = str(folder)
    return folder, reaper


def _reap(parent: int, folder: Path) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL)
    import psutil

    end, deadline = psutil.Process.terminate, time.monotonic() + _GRACE
    while found := [process for process in psutil.process_iter() if _belongs_to(folder, process)]:
        for process in found:
            with suppress(psutil.NoSuchProcess):
                end(process)
        time.sleep(_POLL)
        if time.monotonic() > deadline:
            end = psutil.Process.kill
    shutil.rmtree(folder, ignore_errors=True)


def _belongs_to(folder: Path, process: psutil.Process) -> bool:
    import psutil

    try:
        environment = process.environ()
        alive = process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False
    marks = (environment.get(name) for name in (_FOLDER, _STACK))
    return alive and any(folder in (Path(mark), *Path(mark).parents) for mark in marks if mark)


if __name__ == "__main__":
    _reap(int(sys.argv[1]), Path(sys.argv[2]))
