"""The HTTP server of one backend process."""

import asyncio
import gc
import logging
import resource
import socket
from typing import Annotated, Any

import typer
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from backend.api.event_stream import TRANSPORT
from backend.services.application import Application

log = logging.getLogger(__name__)

GRACE = 3
"""Seconds that requests in progress have to complete when the process shuts down. Streams end at once."""

WS_BYTES = 2**20
"""The largest message that a WebSocket takes: its clients send commands, and large inputs by HTTP."""

_OTHER_FILES = 500
"""Files and connections besides streams."""


class Server(uvicorn.Server):
    """Ends the streams before it waits for connections to close; their clients reconnect elsewhere or later."""

    def __init__(self, app: FastAPI, **options: object) -> None:
        config = uvicorn.Config(
            app,
            http=_Connection,
            ws="websockets-sansio",
            ws_max_size=WS_BYTES,
            timeout_graceful_shutdown=GRACE,
            **options,  # type: ignore[arg-type]  # uvicorn's own
        )
        super().__init__(config)
        logging.getLogger("uvicorn.access").addFilter(_without_query)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # imported objects stay: the collector need not examine them again
        # A large input is a million objects: with Python's own thresholds they would be examined many times over.
        gc.set_threshold(20_000, 20, 20)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving."""
        application: Application | None = getattr(self._app.state, "application", None)
        if application is not None:
            application.streams.close()
            application.langgraph.feed.close()
        await super().shutdown(sockets)


def _without_query(record: logging.LogRecord) -> bool:
    """Take the query out of a line of the access log: it may hold what nobody but its sender should know."""
    if isinstance(record.args, tuple) and len(record.args) == 5:
        client, method, path, *rest = record.args
        record.args = (client, method, str(path).partition("?")[0], *rest)
    return True


_VANISHED = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""TCP options (seconds, a count, milliseconds) with which a host that vanishes is noticed within a minute, whether or
not something is being sent to it. Systems that don't know one keep their own default: hours, or 15 minutes."""


class _Connection(HttpToolsProtocol):
    """Makes the connection's transport available to the response, which may have to abort it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _VANISHED.items():
                if hasattr(socket, name):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][TRANSPORT] = self.transport

    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and self.scope["http_version"] == "1.0":
            self.cycle.send = _Unchunked(self.cycle)  # type: ignore[method-assign]  # uvicorn offers no seam


class _Unchunked:
    """`send` for an HTTP/1.0 client, which knows no chunks: a body without a length ends with the connection."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._send = cycle.send
        self._sized = True

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._sized = any(name.lower() == b"content-length" for name, _ in message.get("headers", []))
            if not self._sized:
                self._cycle.chunked_encoding = False
        elif not self._sized:
            self._cycle.expected_content_length = len(message.get("body", b""))  # of what is sent next: all of it
        await self._send(message)


def raise_file_limit(streams: int) -> None:
    """Raise the limit on open files to what this many streams need, as far as the system allows."""
    needed = streams + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))
        if limit < needed:
            log.warning(
                "The system lets this process open only %s files, fewer than VISUAL_AI_STREAMS_PER_PROCESS=%s "
                "requires; raise the limit (ulimit -n) or lower the setting.",
                limit,
                streams,
            )


def serve(
    host: Annotated[str, typer.Option(envvar="VISUAL_AI_BACKEND_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="VISUAL_AI_BACKEND_PORT")] = 8000,
) -> None:
    """Serve the application with the environment's settings until a signal ends the process."""
    from backend.api.main import create_app
    from backend.core.settings import get_settings

    settings = get_settings()
    raise_file_limit(settings.streams_per_process)
    Server(create_app(settings), host=host, port=port).run()


if __name__ == "__main__":  # the image's command, which needs nothing of `make up`
    typer.run(serve)
