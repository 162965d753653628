"""The processes of a stack, found by the marker that each of them carries in its environment."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil

MARKER_VARIABLE = "VISUAL_AI_STACK"
"""Set in the environment of every process of a stack; its value says which stack (`Layout.identity`)."""


_KILL_SECONDS = 5.0


def marked(identity: str) -> Iterator[psutil.Process]:
    """Every live process whose marker is `identity`, except this process and its ancestors."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        if process.pid in mine:
            continue
        try:
            if process.environ().get(MARKER_VARIABLE) == identity and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):
            continue


def end_all(identity: str, *, unless: Callable[[psutil.Process], bool] = lambda _: False, grace: float = 5.0) -> int:
    """End every process of the stack for which `unless` is false: SIGTERM, and SIGKILL after `grace` seconds.

    Without any `grace` they are killed at once. Returns the number of processes.
    """
    found = [process for process in marked(identity) if not _kept(unless, process)]
    stubborn = found
    if grace > 0:
        for process in found:
            with suppress(psutil.Error):  # already gone
                process.terminate()
        _, stubborn = psutil.wait_procs(found, timeout=grace)
    for process in stubborn:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(stubborn, timeout=_KILL_SECONDS)
    return len(found)


def _kept(unless: Callable[[psutil.Process], bool], process: psutil.Process) -> bool:
    try:
        return unless(process)
    except psutil.Error:  # already gone
        return True
