"""The processes of a stack, found by the marker each of them carries in its environment."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil

from backend.deployment.layout import MARKER_VARIABLE


def marked(identity: str) -> Iterator[psutil.Process]:
    """Every living process whose marker is `identity`, except this one and those that started it."""
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
    """End every process of the stack `unless` told otherwise: SIGTERM, and after `grace` seconds SIGKILL.

    Returns how many there were.
    """
    found = [process for process in marked(identity) if not _safely(unless, process)]
    for process in found:
        _quietly(process.terminate)
    _, stubborn = psutil.wait_procs(found, timeout=grace)
    for process in stubborn:
        _quietly(process.kill)
    psutil.wait_procs(stubborn, timeout=grace)
    return len(found)


def holder_of_port(port: int) -> str | None:
    """The process that listens on TCP `port`, as far as this user may see it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        if listens and connection.pid:
            try:
                process = psutil.Process(connection.pid)
                return f"{process.name()}, process {process.pid}, of {process.username()}"
            except psutil.Error:
                return f"process {connection.pid}"
    return None


def _safely(question: Callable[[psutil.Process], bool], process: psutil.Process) -> bool:
    try:
        return question(process)
    except psutil.Error:  # it ended meanwhile
        return True


def _quietly(action: Callable[[], None]) -> None:
    with suppress(psutil.Error):  # it ended meanwhile
        action()
