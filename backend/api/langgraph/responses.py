"""Responses of LangGraph's protocol: streams, and results that are waited for."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing

from fastapi import Request
from fastapi.responses import StreamingResponse

from backend.api.deps import wants_head
from backend.core.problems import Problem
from backend.core.roles import Principal
from backend.services.application import Application

log = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"

_background: set[asyncio.Task[None]] = set()


def streamed(
    request: Request,
    services: Application,
    who: Principal,
    chunks: AsyncGenerator[bytes],
    *,
    media_type: str = EVENT_STREAM,
    location: str | None = None,
    on_disconnect: Callable[[], Awaitable[None]] | None = None,
) -> StreamingResponse:
    """Send the chunks as they come. `location` is the path of the run, under which its stream, or its result, is found
    again; clients take it for one below the address that they were given.

    `on_disconnect` is called if the client leaves before the end. Raises `TooManyRequests` and `Unavailable` when the
    caller, or this process, has too many open streams.
    """
    services.streams.check_room(who)
    headers = {"X-Accel-Buffering": "no"}
    if location is not None:
        again = "stream" if media_type == EVENT_STREAM else "join"
        headers |= {"Location": f"{location}/{again}", "Content-Location": location}

    async def counted() -> AsyncIterator[bytes]:
        ended = False
        with services.streams.counted(who):
            try:
                async with services.streams.limits.counted(who.username), aclosing(chunks):
                    if not wants_head(request):
                        async for chunk in chunks:
                            yield chunk
                ended = True
            finally:
                if not ended and on_disconnect is not None:
                    task = asyncio.ensure_future(_quietly(on_disconnect))
                    _background.add(task)
                    task.add_done_callback(_background.discard)

    return StreamingResponse(counted(), media_type=media_type, headers=headers)


async def _quietly(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Problem as problem:
        log.info("a run could not be cancelled after its client had left: %s", problem.detail)


def last_event_id(text: str | None) -> int | None:
    """The frame that a client has had last; None for none, which `-1` stands for as well."""
    return int(text) if text is not None and text.strip().isdigit() else None
