"""A run's events from the stream, across lost connections and restarts of the backend."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from httpx_sse import EventSource, ServerSentEvent, SSEError

from backend.cli.connection import SILENCE, Backend
from backend.cli.errors import Unreachable
from backend.cli.patience import Patience


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """An event of the stream; `seq` is its id, which the events of the present state have not."""

    seq: int | None
    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is lost; it is tried again after `wait` seconds."""

    reason: str
    wait: float


@dataclass(frozen=True, slots=True)
class Begin:
    """What comes next is the run's present state: what is known of it may be forgotten."""


class Follower:
    """Follows one run. `cursor` is the last event's id, None for the present state and what follows.

    `known` says that the run is there: until something was heard of it a failure is raised at once.
    """

    def __init__(
        self,
        dag_id: str,
        dag_run_id: str,
        *,
        cursor: int | None = None,
        patience: float,
        known: bool = False,
        whole: bool = True,
    ) -> None:
        self._path = f"/workflow-status/stream/{quote(dag_id, safe='')}/{quote(dag_run_id, safe='')}"
        self._patience = Patience(patience)
        self.known = known
        self._whole = whole
        self.cursor = cursor

    async def events(self, backend: Backend) -> AsyncIterator[StreamEvent | Lost | Begin]:
        """The events until `end`. May be called again after a failure: it goes on where it was.

        With `whole`, events that are lost for good (`gap`) are made up for by the present state. Raises `Refused`,
        `SignInNeeded`, and `Unreachable` when the backend stayed away too long.
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
                wait = self._patience.wait(failure)
                yield Lost(failure.message, wait)
                await asyncio.sleep(wait)

    async def _one_connection(self, backend: Backend) -> AsyncGenerator[StreamEvent | Begin]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.cursor is not None:
            headers["Last-Event-ID"] = str(self.cursor)
        async with backend.open(self._path, silence=SILENCE, headers=headers) as response:
            if self.cursor is None:
                yield Begin()
            try:
                async for sse in EventSource(response).aiter_sse():
                    event = _event(sse)
                    self.known = True
                    self._patience.rewarded()
                    if event.seq is not None:
                        self.cursor = event.seq
                    yield event
            except (SSEError, ValueError) as error:
                raise Unreachable(f"What answers at {backend.target.url} is no stream of events.") from error


def _event(sse: ServerSentEvent) -> StreamEvent:
    data = json.loads(sse.data)
    if not isinstance(data, dict):
        raise ValueError("no object")
    return StreamEvent(int(sse.id) if sse.id else None, sse.event, data)
