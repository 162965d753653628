"""The response that carries a stream."""

import asyncio
from contextlib import aclosing

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from backend.services.stream import Stream

SEND_TIMEOUT = 30.0
"""Seconds for which a client may take nothing before its connection is cut."""

TRANSPORT = "transport"
"""Where in the request's state the server leaves the connection."""


class EventStream(EventSourceResponse):
    """Sends a stream with two tasks, the request's own and one that waits for the client to go: thousands are held."""

    def __init__(self, stream: Stream) -> None:
        frames = stream.frames()
        super().__init__(frames, headers={"Cache-Control": "no-store"})
        self._frames = frames
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the stream ends or the client is gone. What refuses the stream is raised before it starts."""
        async with aclosing(self._frames) as frames:
            chunk: bytes | None = await anext(frames)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            watch = asyncio.create_task(self._until_gone(receive))
            try:
                while chunk is not None and not watch.done():
                    if not await _sent(send, chunk):
                        # Closing the connection would wait for what the client doesn't read.
                        if (transport := scope.get("state", {}).get(TRANSPORT)) is not None:
                            transport.abort()
                        return
                    chunk = await anext(frames, None)
            finally:
                watch.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._stream.leave()


async def _sent(send: Send, chunk: bytes) -> bool:
    """Send a piece; False when the client takes nothing for too long."""
    try:
        async with asyncio.timeout(SEND_TIMEOUT):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except TimeoutError:
        return False
    return True
