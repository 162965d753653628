"""The event feed: one listener for each backend process, whatever the number of its subscribers."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from backend.core.events import CHANNEL, Event
from backend.core.jsonable import dumps
from backend.db import events
from backend.db.address import plain_url
from backend.db.engine import Database

log = logging.getLogger(__name__)

QUEUE_LIMIT = 2_000
"""A subscriber that is so many events behind is dropped; it resumes by its cursor."""

BATCH = 500
"""Events read of one execution at a time."""

_RECONNECT_DELAY = 1.0

# No line breaks to the standard, but to Python's `splitlines`, with which many clients read.
_LINE_BREAKS_ELSEWHERE = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}


@dataclass(frozen=True, slots=True)
class Frame:
    """An event encoded once for all who get it."""

    seq: int
    type: str
    data: bytes


def encode(event: Event) -> Frame:
    """The event as it goes over the wire."""
    return Frame(event.seq, event.type, encode_frame(event.type, event.payload, seq=event.seq))


def encode_frame(event_type: str, payload: object, *, seq: int | None = None) -> bytes:
    """One server-sent event (WHATWG HTML, section 9.2.5). JSON text has no line break, so `data` is one line."""
    head = f"id: {seq}\n" if seq is not None else ""
    data = dumps(payload).translate(_LINE_BREAKS_ELSEWHERE)
    return f"{head}event: {event_type}\ndata: {data}\n\n".encode()


class Subscription:
    """What one subscriber has yet to get of one execution."""

    __slots__ = ("_frames", "_wake", "dropped")

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()
        self._wake = asyncio.Event()
        self.dropped = False
        """Too far behind: no more frames come, the subscriber must resume by its cursor."""

    def push(self, frames: list[Frame]) -> None:
        """Hand over new frames; a full queue drops the subscriber instead of growing."""
        if self.dropped:
            return
        if len(self._frames) + len(frames) > QUEUE_LIMIT:
            self.dropped = True
            self._frames.clear()
        else:
            self._frames.extend(frames)
        self._wake.set()

    async def take(self) -> list[Frame]:
        """All frames there are, as soon as there is one; an empty list when the subscriber was dropped."""
        while not self._frames and not self.dropped:
            self._wake.clear()
            await self._wake.wait()
        frames = list(self._frames)
        self._frames.clear()
        return frames


@dataclass(slots=True)
class _Channel:
    cursor: int
    subscribers: set[Subscription] = field(default_factory=set)


class EventFeed:
    """Reads what is new in the log when Postgres says so and hands it to the subscribers.

    The database sees one connection that listens and, for each burst of notifications, one query for all executions
    that somebody watches. A lost connection is made anew and what was missed is read.
    """

    def __init__(self, database_url: str, database: Database) -> None:
        self._conninfo = plain_url(database_url)
        self._database = database
        self._channels: dict[str, _Channel] = {}
        self._dirty: set[str] = set()
        self._work = asyncio.Event()
        self._connected = False
        self._reason = "not started"

    def state(self) -> tuple[bool, str]:
        """Whether notifications arrive, and if not why."""
        return self._connected, self._reason

    @property
    def subscribers(self) -> int:
        """How many subscriptions there are."""
        return sum(len(channel.subscribers) for channel in self._channels.values())

    @contextmanager
    def subscribe(self, execution_id: str, last_seq: int) -> Iterator[Subscription]:
        """Get everything that is appended after the call. `last_seq` is the execution's, read just before.

        What stands in the log already is the subscriber's to read, after subscribing, and some of it may come again
        through the subscription: events with a `seq` the subscriber has had are to be skipped.
        """
        subscription = Subscription()
        channel = self._channels.setdefault(execution_id, _Channel(last_seq))
        channel.subscribers.add(subscription)
        try:
            yield subscription
        finally:
            channel.subscribers.discard(subscription)
            if not channel.subscribers and self._channels.get(execution_id) is channel:
                del self._channels[execution_id]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen and deliver until the context ends."""
        tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._deliver())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._conninfo, autocommit=True, application_name="visual_ai_feed", connect_timeout=5
                ) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self._connected, self._reason = True, ""
                    self._mark(self._channels)  # what was missed while not connected
                    while True:
                        # A quiet connection is checked now and then: a dead peer sends nothing.
                        async for notification in connection.notifies(timeout=10):
                            self._mark([notification.payload.partition(" ")[0]])
                        await connection.execute("SELECT 1")
            except (psycopg.Error, OSError) as error:
                if self._connected or self._reason == "not started":
                    log.warning("the event feed lost its connection: %s", type(error).__name__)
                self._connected, self._reason = (
                    False,
                    "the database connection is lost; reading once a second",
                )
            await asyncio.sleep(_RECONNECT_DELAY)
            self._mark(self._channels)  # the log itself may still be readable

    def _mark(self, execution_ids: Iterable[str]) -> None:
        for execution_id in list(execution_ids):
            if execution_id in self._channels:
                self._dirty.add(execution_id)
        if self._dirty:
            self._work.set()

    async def _deliver(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            cursors = {
                execution_id: channel.cursor
                for execution_id in self._dirty
                if (channel := self._channels.get(execution_id)) is not None
            }
            self._dirty.clear()
            if not cursors:
                continue
            try:
                found = await self._database.run(events.read_many_after, cursors, per_execution=BATCH)
            except (SQLAlchemyError, OSError) as error:
                log.warning("the event feed could not read the log: %s", type(error).__name__)
                await asyncio.sleep(_RECONNECT_DELAY)
                self._mark(cursors)
                continue
            frames: dict[str, list[Frame]] = {}
            for event in found:
                frames.setdefault(event.execution_id, []).append(encode(event))
            for execution_id, new in frames.items():
                channel = self._channels.get(execution_id)
                if channel is None:
                    continue
                # A channel made anew meanwhile has a cursor of its own.
                channel.cursor = max(channel.cursor, new[-1].seq)
                for subscription in channel.subscribers:
                    subscription.push(new)
                if len(new) == BATCH:
                    self._mark([execution_id])
