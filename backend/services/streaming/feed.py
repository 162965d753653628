"""The event feed: reads new events of watched runs and passes them to this process's subscribers.

Every backend process runs one feed, however many clients it serves, so the load on PostgreSQL and Redis does not
depend on the number of subscribers.

The event log in PostgreSQL is the source of truth: `seq` increases without gaps within an execution. A wake-up
(`listen`) only says that an execution's log has grown up to some `seq`; with Redis it usually carries the events as
well. The feed compares it with the cursor of that execution's channel:

* If the wake-up's events follow the cursor directly, they are delivered at once, without a query.
* Otherwise the execution is marked as dirty, and the next read of the log fetches what follows its cursor. One query
  serves all executions that are dirty at that moment.

Wake-ups may therefore be lost, late, duplicated or out of order; they affect latency, never content. After a lost
connection all channels are marked as dirty.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from sqlalchemy.exc import SQLAlchemyError

from backend.core.events import CHANNEL
from backend.db.engine import Database
from backend.db.runs import events
from backend.db.runs.executions import Head
from backend.services.background import in_background
from backend.services.streaming import listen
from backend.services.streaming.listen import PostgresWakeups, RedisWakeups, Wakeup, WakeupSource
from backend.services.streaming.sse import Frame, encode
from backend.services.streaming.subscriptions import Channel, Subscription, recent_share

log = logging.getLogger(__name__)

BATCH = 500
"""Events of one execution that are read at a time."""

READ_INTERVAL = 0.02
"""Minimum seconds between two reads of the log. Wake-ups that arrive in between share the next read."""

SWEEP_INTERVAL = 2.0
"""With Redis, seconds between two reads of all watched executions: a writer that dies between its commit and its
announcement wakes nobody."""


class EventFeed:
    """Delivers events to subscriptions, in order and without gaps.

    Uses one connection that listens per wake-up source, and one query for each burst of wake-ups that did not bring
    their events along. Lost connections are re-established.
    """

    def __init__(self, wakeups: PostgresWakeups, database: Database, redis_url: str | None = None) -> None:
        self._database = database
        self._channels: dict[str, Channel] = {}
        self._by_run: dict[tuple[str, str], Channel] = {}
        self._dirty: set[str] = set()
        self._work = asyncio.Event()
        self._sources: list[WakeupSource] = [wakeups]
        if redis_url:
            self._sources.append(RedisWakeups(redis_url))
        for source in self._sources:
            source.pass_on(CHANNEL, self._wake, self._mark_all)

    def state(self) -> tuple[bool, str]:
        """Whether all wake-up sources are connected, and if not, why."""
        for source in self._sources:
            if not source.started:
                return False, "not started"
            if not source.connected:
                return False, source.lost
        return True, ""

    def head(self, dag_id: str, dag_run_id: str, after: int | None) -> Head | None:
        """The execution's head as the feed knows it, which saves a query; None when it has to be read.

        It has to be read unless the run is watched, the feed is connected and the client's cursor `after` is not ahead
        of the feed. For a finished run as well: a retry that starts it again may not have reached the feed yet.
        """
        channel = self._by_run.get((dag_id, dag_run_id))
        if channel is None or channel.finished or not self._sources[-1].connected:
            return None
        if after is not None and after > channel.cursor:
            return None
        return replace(channel.head, last_seq=channel.cursor, state=channel.state)

    @contextmanager
    def subscribe(self, head: Head) -> Iterator[Subscription]:
        """A subscription to an execution whose `head` was read just before."""
        channel = self._channels.get(head.id)
        if channel is None:
            channel = self._channels[head.id] = self._by_run[head.dag_id, head.dag_run_id] = Channel(head)
            self._mark([head.id])  # events that were appended since the head was read
        subscription = Subscription(channel)
        channel.subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            channel.subscriptions.discard(subscription)
            if not channel.subscriptions and self._channels.get(head.id) is channel:
                del self._channels[head.id]
                del self._by_run[head.dag_id, head.dag_run_id]

    def close(self) -> None:
        """Close all subscriptions."""
        for channel in self._channels.values():
            for subscription in channel.subscriptions:
                subscription.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen, for all to whom the sources pass something on, and deliver until the context ends."""
        work = [*(source.listen() for source in self._sources), self._deliver()]
        if len(self._sources) > 1:
            work.append(self._sweep())
        async with in_background(*work):
            yield

    def _wake(self, wakeup: Wakeup) -> None:
        channel = self._channels.get(wakeup.id)
        if channel is None or wakeup.last <= channel.cursor:
            return
        if wakeup.events is not None and wakeup.first <= channel.cursor + 1:
            try:
                frames = [encode(event) for event in wakeup.decoded()]
            except (ValueError, KeyError, TypeError):
                log.warning("the announced events of execution %s are malformed", wakeup.id)
            else:
                channel.extend(frames, recent_share(len(self._channels)))
                return
        self._mark([wakeup.id])

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
                # The first failure may be a pooled connection that died; the next read uses another one.
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
                # The channel may have been replaced during the read by one with a later cursor.
                if (channel := self._channels.get(execution_id)) is not None and new[0].seq <= channel.cursor + 1:
                    channel.extend(new, share)
                    if len(new) == BATCH:
                        self._mark([execution_id])
            await asyncio.sleep(READ_INTERVAL)
