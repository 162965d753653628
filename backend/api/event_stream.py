"""The response that carries a stream."""

import asyncio
import logging
from contextlib import aclosing

from fastapi import FastAPI
from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from backend.services.streaming.stream import Stream

log = logging.getLogger(__name__)

SEND_TIMEOUT = 30.0
"""Seconds for which a client may take nothing before its connection is cut."""

TRANSPORT = "transport"
"""Where in the request's state the server leaves the connection."""

_BEGUN = "event_stream"


class EventStream(EventSourceResponse):
    """Begins a stream: its headers and first bytes. `StreamingApp` goes on with it."""

    def __init__(self, stream: Stream) -> None:
        self.frames = stream.frames()
        super().__init__(self.frames, headers={"Cache-Control": "no-store"})
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # prescribed
        """Send what is there at once. What refuses the stream is raised before anything is sent."""
        try:
            first = await anext(self.frames)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": first, "more_body": True})
        except BaseException:
            await self.frames.aclose()
            raise
        scope["state"][_BEGUN] = self

    async def go_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the rest until the stream ends or the client is gone."""
        watch = asyncio.create_task(self._until_gone(receive))
        try:
            async with aclosing(self.frames) as frames:
                async for chunk in frames:
                    if watch.done():
                        break
                    if not await _sent(send, chunk):
                        # Closing the connection would wait for what the client doesn't read.
                        if (transport := scope["state"].get(TRANSPORT)) is not None:
                            transport.abort()
                        return
        except Exception as error:  # the client resumes by its cursor
            log.warning("a stream broke off: %s", type(error).__name__, exc_info=True)
        finally:
            watch.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stream.leave()


class StreamingApp(FastAPI):
    """An application whose streams go on outside of its middleware and routing, whose memory each would hold else:
    several times as much as the stream itself."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await super().__call__(scope, receive, send)
        if scope["type"] != "http":
            return
        begun = scope.get("state", {}).pop(_BEGUN, None)
        if begun is not None:
            for key in [key for key in scope if key.startswith("fastapi_")]:
                del scope[key]
            await begun.go_on(scope, receive, send)


async def _sent(send: Send, chunk: bytes) -> bool:
    """Send a piece; False when the client takes nothing for too long."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except TimeoutError:
        return False
    return True
