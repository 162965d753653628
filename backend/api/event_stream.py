"""The HTTP response that carries a stream: sse-starlette's, served in two parts to save memory.

`EventSourceResponse` as it comes runs four asyncio tasks for each stream (body, ping, shutdown watcher, disconnect
watcher), and Starlette keeps each layer of middleware and FastAPI's routing on the stack for as long as the response
lasts. With 1,000 clients, its own `__call__` takes 42 KiB per stream, even outside of the middleware; served as here it
takes 21 KiB (`make bench ARGS=streams`). Therefore:

* `EventStream.__call__` runs inside the middleware and sends the headers and the first chunk. An error before that
  becomes an ordinary HTTP error response.
* `StreamingApp` calls `EventStream.send_rest` once middleware and routing have returned.
* Pings and the end of the process are part of the stream's own chunks (`backend.services.streaming.stream`), so only
  one task besides the request's own remains: the one that notices that the client has disconnected.

Sending the body with a timeout, closing the iterator and noticing the disconnect are the base class's. It offers them
as private methods only, so `pyproject.toml` limits the version of sse-starlette.
"""

import asyncio
import logging
from contextlib import aclosing

from fastapi import FastAPI
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.types import Message, Receive, Scope, Send

from backend.services.streaming.combined import CombinedStream
from backend.services.streaming.stream import Stream

log = logging.getLogger(__name__)

SEND_TIMEOUT = 30.0
"""Seconds that a client may leave sent data unread before its connection is aborted."""

TRANSPORT = "transport"
"""Key of the request's state under which the server leaves the connection's transport."""

HEAD = "head"
"""Key of the request's state that is set when the client wants no body."""

_STARTED = "event_stream"


class EventStream(EventSourceResponse):
    """Serves one stream."""

    def __init__(self, stream: Stream | CombinedStream) -> None:
        self._stream = stream
        self._chunks = stream.chunks()
        self._transport: asyncio.WriteTransport | None = None
        super().__init__(self._chunks, send_timeout=SEND_TIMEOUT, client_close_handler_callable=self._on_disconnect)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Send the headers and the first chunk. Raises what refuses the stream before it sends anything."""
        try:
            first = await anext(self._chunks)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": first, "more_body": True})
        except BaseException:
            await self._chunks.aclose()
            raise
        scope["state"][_STARTED] = self

    async def send_rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send further chunks until the stream ends or the client disconnects."""

        async def send_body(message: Message) -> None:
            if message["type"] != "http.response.body":  # the start has been sent
                return
            if message["more_body"] or not self._stream.interrupted:
                await send(message)
            else:
                await self._break_off(send, watcher)

        self._transport = scope["state"].get(TRANSPORT)
        watcher = asyncio.create_task(self._listen_for_disconnect(receive))
        try:
            async with aclosing(self._chunks):
                await self._stream_response(send_body)
        except SendTimeoutError:
            self._stream.cut()
            # An orderly close would wait for the client to read what is buffered.
            if self._transport is not None:
                self._transport.abort()
        except Exception as error:  # the client resumes by its cursor
            log.warning("a stream broke off: %s", type(error).__name__, exc_info=True)
            await self._break_off(send, watcher)
        finally:
            watcher.cancel()

    async def _break_off(self, send: Send, disconnected: asyncio.Task[None]) -> None:
        """Close the connection in the middle of the response, after what has been sent: some clients take a complete
        one for the end of the run, but all come back after an incomplete one."""
        if self._transport is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        self._transport.close()
        await asyncio.wait([disconnected], timeout=SEND_TIMEOUT)
        if not disconnected.done():  # asyncio's transports raise when they are aborted after that
            self._transport.abort()

    async def _send_with_timeout(self, send: Send, message: Message) -> None:
        if self._transport is not None and self._transport.get_write_buffer_size() == 0:
            await send(message)  # can't block; timers take a quarter of the CPU time that 5,000 clients cost
        else:
            await super()._send_with_timeout(send, message)

    async def _on_disconnect(self, _: Message) -> None:
        self._stream.leave()


class StreamingApp(FastAPI):
    """An application whose event streams leave its middleware and routing once they have started."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. HEAD is answered like GET, without the body."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", "state": {**scope.get("state", {}), HEAD: True}}
        complete = False

        async def watched_send(message: Message) -> None:
            nonlocal complete
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await super().__call__(scope, receive, watched_send)
        except Exception:
            # Starlette raises an error again after it has answered 500, upon which the server would drop the
            # connection although the response is complete.
            if not complete:
                raise
        started: EventStream | None = scope.get("state", {}).pop(_STARTED, None)
        if started is not None:
            for key in [key for key in scope if key.startswith("fastapi_")]:
                del scope[key]
            await started.send_rest(scope, receive, send)
