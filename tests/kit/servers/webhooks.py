"""A receiver of webhooks: a real HTTP server that keeps what it receives, and misbehaves on request."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

SECRET = "a secret that is long enough"


@dataclass(frozen=True)
class Answer:
    """The response to a request. It may hang until the client disconnects, or cut the connection."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    cut: bool = False
    endless: bool = False
    """The body never ends."""


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> dict[str, Any]:
        """The body."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    def signed_with(self, secret: str) -> bool:
        """Check the signature as docs/api.md tells receivers to."""
        parts = dict(part.split("=", 1) for part in self.headers["x-visual-ai-signature"].split(","))
        expected = hmac.new(secret.encode(), parts["t"].encode() + b"." + self.body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(expected, parts["v1"]) and abs(time.time() - int(parts["t"])) < 300


@dataclass
class Receiver:
    """Responds with 200 unless responses are scripted for a path; the last of them is repeated."""

    scheme: str = "http"
    port: int = 0
    received: list[Received] = field(default_factory=list)
    _scripts: dict[str, list[Answer]] = field(default_factory=dict)
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        """The URL of a path."""
        return f"{self.scheme}://{host}:{self.port}{path}"

    def script(self, path: str, *answers: Answer) -> None:
        """Script the responses to the next requests to a path."""
        self._scripts[path] = list(answers)

    def at(self, path: str) -> list[Received]:
        """The requests to a path, in order."""
        return [request for request in self.received if request.path == path]

    def events(self, path: str = "/hook") -> list[str]:
        """The events of the notifications received at a path."""
        return [request.json["event"] for request in self.at(path)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        path = first.split(" ")[1]
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.received.append(Received(path, headers, body, time.monotonic()))
        script = self._scripts.get(path, [])
        answer = (script.pop(0) if len(script) > 1 else script[0]) if script else Answer()
        if answer.cut:
            return
        if answer.hang:
            await reader.read()
            return
        extra = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
        length = "Transfer-Encoding: chunked" if answer.endless else "Content-Length: 0"
        writer.write(f"HTTP/1.1 {answer.status} Status\r\n{length}\r\n{extra}\r\n".encode())
        while answer.endless:
            writer.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
            await writer.drain()
        await writer.drain()


@asynccontextmanager
async def receiving(context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a free port of the loopback, with TLS if a context is given."""
    receiver = Receiver(scheme="https" if context else "http")
    server = await asyncio.start_server(receiver._serve, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(receiver._open):
            task.cancel()
        await server.wait_closed()


@contextmanager
def receiving_beside() -> Iterator[Receiver]:
    """The same in a separate thread, for tests without an event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="webhook-receiver", daemon=True)
    thread.start()
    context = receiving()
    try:
        yield asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
