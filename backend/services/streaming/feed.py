"""The event feed: one for each backend process, whatever the number of its subscribers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy.exc import SQLAlchemyError

from backend.db.address import plain_url
from backend.db.engine import Database
from backend.db.runs import events
from backend.db.runs.executions import Head
from backend.services.background import in_background
from backend.services.streaming import listen
from backend.services.streaming.listen import PostgresWakeups, RedisWakeups, Wakeup, Wakeups
from backend.services.streaming.sse import Frame, encode
from backend.services.streaming.subscriptions import Channel, Subscription, recent_share

log = logging.getLogger(__name__)

BATCH = 500
"""Events read of one execution at a time."""

READ_INTERVAL = 0.02
"""Least time from one reading of the log to the next, in seconds: what comes in between is read at once."""

SWEEP_INTERVAL = 2.0
"""With Redis the log is also read so often: who dies between commit and announcement wakes nobody."""


class EventFeed:
    """Hands what is appended to the log to the subscribers of this process.

    The database sees one connection that listens and, for each burst of wake-ups, one query for all executions that
    somebody watches. With Redis most events come with the wake-up, and the database is asked only for what is missing.
    A lost connection is made anew and what was missed is read.
    """

    def __init__(self, database_url: str, database: Database, redis_url: str | None = None) -> None:
        self._database = database
        self._channels: dict[str, Channel] = {}
        self._by_run: dict[tuple[str, str], Channel] = {}
        self._dirty: set[str] = set()
        self._work = asyncio.Event()
        self._sources: list[Wakeups] = [PostgresWakeups(plain_url(database_url), self._wake, self._mark_all)]
        if redis_url:
            self._sources.append(RedisWakeups(redis_url, self._wake, self._mark_all))

    def state(self) -> tuple[bool, str]:
        """Whether all wake-ups arrive, and if not why."""
        for source in self._sources:
            if not source.started:
                return False, "not started"
            if not source.connected:
                return False, source.lost
        return True, ""

    @property
    def subscribers(self) -> int:
        """How many subscriptions there are."""
        return sum(len(channel.subscribers) for channel in self._channels.values())

    def channel(self, dag_id: str, dag_run_id: str) -> Channel | None:
        """The run's channel, if somebody watches it and what it says is up to date."""
        return self._by_run.get((dag_id, dag_run_id)) if self._sources[-1].connected else None

    @contextmanager
    def subscribe(self, head: Head) -> Iterator[tuple[Channel, Subscription]]:
        """Get everything behind `Subscription.start`, of an execution whose head was read just before."""
        channel = self._channels.get(head.id)
        if channel is None:
            channel = self._channels[head.id] = self._by_run[head.dag_id, head.dag_run_id] = Channel(head)
            self._mark([head.id])  # what was appended since its head was read
        subscription = Subscription(channel.cursor)
        channel.subscribers.add(subscription)
        try:
            yield channel, subscription
        finally:
            channel.subscribers.discard(subscription)
            if not channel.subscribers and self._channels.get(head.id) is channel:
                del self._channels[head.id]
                del self._by_run[head.dag_id, head.dag_run_id]

    def close(self) -> None:
        """End all subscriptions."""
        for channel in self._channels.values():
            for subscription in channel.subscribers:
                subscription.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen and deliver until the context ends."""
        work = [*(source.listen() for source in self._sources), self._deliver()]
        if len(self._sources) > 1:
            work.append(self._sweep())
        async with in_background(*work):
            yield

    def _wake(self, wakeup: Wakeup) -> None:
        channel = self._channels.get(wakeup.execution_id)
        if channel is None or wakeup.last <= channel.cursor:
            return
        if wakeup.events is not None and wakeup.first <= channel.cursor + 1:
            try:
                frames = [encode(event) for event in wakeup.decoded()]
            except (ValueError, KeyError, TypeError):
                log.warning("an announcement of %s can't be read", wakeup.execution_id)
            else:
                channel.extend(frames, recent_share(len(self._channels)))
                return
        self._mark([wakeup.execution_id])

    def _mark_all(self) -> None:
        self._mark(self._channels)

    def _mark(self, execution_ids: Iterable[str]) -> None:
        self._dirty.update(execution_ids)
        if self._dirty:
            self._work.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            self._mark_all()

    async def _deliver(self) -> None:
        failed = False
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
                found = await self._database.run_autocommit(events.read_many_after, cursors, per_execution=BATCH)
            except (SQLAlchemyError, OSError) as error:
                # The first time it may have been the connection alone, and the next is another.
                if failed:
                    log.warning("the event feed could not read the log: %s", type(error).__name__)
                    await asyncio.sleep(listen.RECONNECT_DELAY)
                failed = True
                self._mark(cursors)
                continue
            failed = False
            frames: dict[str, list[Frame]] = {}
            for event in found:
                frames.setdefault(event.execution_id, []).append(encode(event))
            share = recent_share(len(self._channels))
            for execution_id, new in frames.items():
                # A channel made anew meanwhile has a cursor of its own.
                if (channel := self._channels.get(execution_id)) is not None and new[0].seq <= channel.cursor + 1:
                    channel.extend(new, share)
                    if len(new) == BATCH:
                        self._mark([execution_id])
            await asyncio.sleep(READ_INTERVAL)
