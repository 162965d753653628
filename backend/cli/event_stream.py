"""Reads a run's events from the backend's stream, across lost connections and restarts of the backend.

Each event has the run's own sequence number. After a lost connection the stream is reopened with the number of the last
event (`Last-Event-ID`), so every event arrives once and in order.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from httpx_sse import EventSource, ServerSentEvent, SSEError

from backend.cli.connection import SILENCE, Backend, Backoff
from backend.cli.errors import Unreachable


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event; `seq` is its id, which the events of a current state don't have."""

    seq: int | None
    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection was lost; a retry follows after `wait` seconds."""

    reason: str
    wait: float


@dataclass(frozen=True, slots=True)
class Reset:
    """The run's current state follows and replaces everything received so far."""


class EventStream:
    """The events of one run. `cursor` is the id of the last event received; None asks for the current state first.

    Connections are retried for `give_up_after` seconds, but only once the run is `known` to exist: before that, a
    failure is raised immediately. `whole` replaces events that were lost for good (`gap`) by the current state.
    """

    def __init__(
        self,
        dag_id: str,
        dag_run_id: str,
        *,
        cursor: int | None = None,
        give_up_after: float,
        known: bool = False,
        whole: bool = True,
    ) -> None:
        self._path = f"/workflow-status/stream/{quote(dag_id, safe='')}/{quote(dag_run_id, safe='')}"
        self._backoff = Backoff(give_up_after)
        self.known = known
        self._whole = whole
        self.cursor = cursor

    async def events(self, backend: Backend) -> AsyncIterator[StreamEvent | Lost | Reset]:
        """Yield events up to and including `end`. Can be called again after a failure and continues where it stopped.

        Raises `Refused`, `SignInNeeded`, and `Unreachable` when the backend stays unreachable for too long.
        """
        while True:
            try:
                async with aclosing(self._one_connection(backend)) as items:
                    async for item in items:
                        yield item
                        if isinstance(item, StreamEvent) and item.type == "end":
                            return
                        if isinstance(item, StreamEvent) and item.type == "gap" and self._whole:
                            self.cursor = None
                            break
                    else:
                        raise Unreachable("The backend closed the stream")
            except Unreachable as failure:
                if not self.known:
                    raise
                wait = self._backoff.wait(failure)
                yield Lost(failure.message, wait)
                await asyncio.sleep(wait)

    async def _one_connection(self, backend: Backend) -> AsyncGenerator[StreamEvent | Reset]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.cursor is not None:
            headers["Last-Event-ID"] = str(self.cursor)
        async with backend.open(self._path, silence=SILENCE, headers=headers) as response:
            if self.cursor is None:
                yield Reset()
            try:
                async for sse in EventSource(response).aiter_sse():
                    event = _event(sse)
                    self.known = True
                    self._backoff.succeeded()
                    if event.seq is not None:
                        self.cursor = event.seq
                    yield event
            except (SSEError, ValueError) as error:
                raise Unreachable(f"The response from {backend.target.url} is not an event stream.") from error


def _event(sse: ServerSentEvent) -> StreamEvent:
    data = json.loads(sse.data)
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return StreamEvent(int(sse.id) if sse.id else None, sse.event, data)
