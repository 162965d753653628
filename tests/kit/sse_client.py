"""A reader of event streams over bare sockets, cheap enough for thousands in one process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Message:
    """An event as received: its id (or None), its type and its data, which is still JSON."""

    id: int | None
    type: str
    data: bytes


class StreamProtocol(asyncio.Protocol):
    """One GET of a stream. `on_message` is called for each event; `closed` is done when the connection has ended.

    Reads exactly what the backend sends: HTTP/1.1 with chunks, server-sent events with one line of data.
    """

    __slots__ = (
        "_buffer",
        "_event",
        "_in_body",
        "_lines",
        "_on_message",
        "_request",
        "closed",
        "status",
        "transport",
        "whole",
    )

    def __init__(self, request: bytes, on_message: Callable[[Message], None]) -> None:
        self._request = request
        self._on_message = on_message
        self._buffer = b""
        self._lines = b""
        self._in_body = False
        self._event: dict[bytes, bytes] = {}
        self.status: int | None = None
        self.whole = False
        """Whether the server ended the response properly."""
        self.transport: asyncio.Transport | None = None
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._in_body:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self.status = int(head[9:12])
            self._in_body, self._buffer = True, rest
        while self._buffer:
            size, found, rest = self._buffer.partition(b"\r\n")
            if not found:
                return
            length = int(size, 16)
            if len(rest) < length + 2:
                return
            self._buffer = rest[length + 2 :]
            if not length:
                self.whole = True
                if self.transport is not None:
                    self.transport.close()
                return
            if self.status == 200:
                self._feed(rest[:length])

    def _feed(self, chunk: bytes) -> None:
        *lines, self._lines = (self._lines + chunk).split(b"\n")
        event = self._event
        for line in lines:
            if line:
                name, _, value = line.partition(b": ")
                event[name] = value
            else:
                if b"data" in event:
                    seq = event.get(b"id")
                    message = Message(int(seq) if seq is not None else None, event[b"event"].decode(), event[b"data"])
                    event.clear()
                    self._on_message(message)
                event.clear()


async def open_stream(
    url: str,
    path: str,
    on_message: Callable[[Message], None],
    *,
    token: str | None = None,
    cursor: int | None = None,
) -> StreamProtocol:
    """Connect and request a stream; each event is passed to `on_message`. Raises `OSError`."""
    match = re.fullmatch(r"http://([^:/]+):(\d+)", url)
    assert match is not None
    lines = [f"GET {path} HTTP/1.1", f"Host: {match[1]}:{match[2]}", "Accept: text/event-stream"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if cursor is not None:
        lines.append(f"Last-Event-ID: {cursor}")
    request = "\r\n".join([*lines, "", ""]).encode()
    _, protocol = await asyncio.get_running_loop().create_connection(
        lambda: StreamProtocol(request, on_message), match[1], int(match[2])
    )
    return protocol


def path_of(dag_id: str, dag_run_id: str) -> str:
    """The path of a run's stream."""
    return f"/workflow-status/stream/{dag_id}/{dag_run_id}"
