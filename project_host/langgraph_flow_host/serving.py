"""The host: a process that has imported a project, and runs its graphs for the tasks that connect.

Each connection is served by a fork of the host, so a task costs no import, and neither a crash nor a node that can't be
interrupted concerns any other task. A host of a triggerer, or one whose project has started threads when it was
imported, serves all connections itself.

Whoever starts the host binds its socket, so a task may connect before the project is imported. The host ends after a
while without connections.
"""

import asyncio
import fcntl
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from langgraph_flow_host.channel import Channel
from langgraph_flow_host.errors import ProjectError, describe, refused
from langgraph_flow_host.graphs import Project, find, read
from langgraph_flow_host.link import Link, Wires
from langgraph_flow_host.rehearsal import rehearse
from langgraph_flow_host.session import Session, TaskLog, TaskOutput

log = logging.getLogger("langgraph_flow_host")

_READ_LIMIT = 2**20


class Host:
    """Serves a project's graphs on a listening socket."""

    def __init__(self, listener: socket.socket, project: Path, *, in_use: Path, idle: float, shared: bool) -> None:
        """It ends after `idle` seconds without a connection. A `shared` one never forks. The folder `in_use` is locked,
        so that nobody removes it meanwhile."""
        self._listener = listener
        self._project = read(project)
        self._idle = idle
        self._shared = shared
        self._used = time.monotonic()
        self._in_use = os.open(in_use, os.O_RDONLY)
        fcntl.flock(self._in_use, fcntl.LOCK_SH)

    def run(self) -> None:
        """Import the project, and serve until nobody has connected for a while."""
        for name, place in self._project.places.items():
            try:
                find(place, self._project.folder)
            except ProjectError as error:  # whoever wants this graph is told
                log.warning("%s: %s", name, error)
        rehearse()
        if self._shared or threading.active_count() > 1 or _native_threads() > 1:
            asyncio.run(self._serve_all())
        else:
            self._fork_for_each()

    def _fork_for_each(self) -> None:
        running: set[int] = set()
        gc.collect()
        gc.freeze()
        self._listener.settimeout(1.0)
        ended = False
        while not ended or running:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                connection = None
            except OSError:
                return
            if connection is not None:
                pid = os.fork()
                if pid == 0:
                    self._listener.close()
                    _serve_one(connection, self._project)
                connection.close()
                running.add(pid)
                self._used = time.monotonic()
            for pid in [*running]:
                with suppress(ChildProcessError):
                    if os.waitpid(pid, os.WNOHANG)[0] == 0:
                        continue
                running.discard(pid)
                self._used = time.monotonic()
            ended = not running and self._is_idle() and self._leave()

    async def _serve_all(self) -> None:
        wires = Wires()
        sessions: set[asyncio.Future[None]] = set()
        loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        while True:
            try:
                connection, _ = await asyncio.wait_for(loop.sock_accept(self._listener), 1.0)
            except (asyncio.TimeoutError, TimeoutError):  # two classes before Python 3.11
                if not sessions and self._is_idle() and self._leave():
                    return
                continue
            session = asyncio.ensure_future(_serve(connection, self._project, wires, alone=False))
            sessions.add(session)
            session.add_done_callback(sessions.discard)
            session.add_done_callback(lambda _: setattr(self, "_used", time.monotonic()))

    def _is_idle(self) -> bool:
        return time.monotonic() - self._used > self._idle

    def _leave(self) -> bool:
        """Take the socket's name away, unless it is another host's already. Who has connected by then is served."""
        with suppress(OSError):
            Path(self._listener.getsockname()).unlink()
        self._listener.setblocking(False)
        with suppress(OSError):
            connection, _ = self._listener.accept()
            connection.close()  # it connects again, to another host
        return True


def _serve_one(connection: socket.socket, project: Project) -> None:
    """Serve one connection, and end the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        asyncio.run(_serve(connection, project, Wires(), alone=True))
    finally:
        os._exit(1)


async def _serve(connection: socket.socket, project: Project, wires: Wires, *, alone: bool) -> None:
    graphs = asyncio.get_running_loop()
    opened: asyncio.Future[Session] = graphs.create_future()

    async def handle(method: str, arguments: Any) -> Any:
        session = opened.result()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(session.handle(method, arguments), graphs))

    async def connect() -> Channel:
        reader, writer = await asyncio.open_connection(sock=connection, limit=_READ_LIMIT)
        return Channel(reader, writer, handle, packed=describe, unpacked=refused)

    channel = await asyncio.wrap_future(wires.submit(connect()))
    link = Link(wires, channel)
    session = Session(project, link)
    opened.set_result(session)
    if alone:
        handler = TaskLog(link)
        logging.getLogger().handlers[:] = [handler]
        sys.stdout = sys.stderr = TaskOutput(link, "project")
    try:
        await asyncio.wrap_future(wires.submit(channel.run()))
    finally:
        await session.close()
        if alone:
            os._exit(0)  # nodes that are still running in threads end with the process


def _native_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208  # before anything else is known of the system
    except OSError:
        return 1
