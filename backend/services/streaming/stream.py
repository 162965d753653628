"""Streams of server-sent events: the present state, or what follows a cursor, and then everything as it happens."""

import logging
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import replace

from backend.core.problems import TooManyRequests, Unavailable
from backend.core.roles import Principal
from backend.core.settings import Settings
from backend.core.states import TERMINAL_RUN_STATES
from backend.db.engine import Database
from backend.db.runs.executions import Head
from backend.services.runs.status import Status, check_may_see
from backend.services.streaming.feed import EventFeed
from backend.services.streaming.initial_state import RETRY_AFTER_END, Presence
from backend.services.streaming.sse import encode_frame, joined
from backend.services.streaming.subscriptions import Subscription

log = logging.getLogger(__name__)

# How long a client waits before it reconnects, in milliseconds. These lines go in front of an event's own.
_RETRY = b"retry: 2000\n"
_RETRY_AFTER_RESTART = (500, 3000)
"""All clients of a backend that ends come back at once, unless told to spread."""

# One line, no blank one: some parsers would take that for an empty event.
_HEARTBEAT = b": keep-alive\n"
_EXPIRED = b": the token has expired; sign in again and resume with Last-Event-ID\n"


class Streams:
    """Opens streams. One costs a small query to begin with, or none beside others of its run, and nothing while it
    waits."""

    def __init__(self, settings: Settings, database: Database, feed: EventFeed, status: Status) -> None:
        self._feed = feed
        self._status = status
        self._presence = Presence(database, status)
        self._limit = settings.streams_per_user
        self._process_limit = settings.streams_per_process
        self._heartbeat = settings.stream_heartbeat
        self._open: Counter[str] = Counter()
        self._total = 0
        self._closing = False
        self.dropped = 0
        """Streams that were ended because their clients read too slowly."""

    @property
    def open_streams(self) -> int:
        """How many streams are being served."""
        return self._total

    def close(self) -> None:
        """The process ends: tell all clients to come back soon, and end their streams."""
        self._closing = True
        self._feed.close()

    async def open(self, who: Principal, dag_id: str, dag_run_id: str, after: int | None) -> "Stream":
        """A run's stream, from the present state on or from what follows the event `after`.

        Raises `NotFound`, `TooManyRequests` when the user has as many streams as is allowed, and `Unavailable` when
        the process has, when it ends, or when nobody can say whether there is such a run.
        """
        self._check_limits(who)
        head = await self._head(who, dag_id, dag_run_id, after)
        check_may_see(who, head)
        if after is not None and after > head.last_seq:
            after = None  # a cursor of another database: begin anew
        return Stream(self, who, head, after)

    async def _head(self, who: Principal, dag_id: str, dag_run_id: str, after: int | None) -> Head:
        channel = self._feed.channel(dag_id, dag_run_id)
        # Of a run that is over nothing comes over the channel that would tell that it was started again.
        if channel is not None and not channel.over and (after is None or after <= channel.cursor):
            return replace(channel.head, last_seq=channel.cursor, state=channel.state)
        return await self._status.head(who, dag_id, dag_run_id)

    def _check_limits(self, who: Principal) -> None:
        if self._closing:
            raise Unavailable("The server is restarting.", retry_after=1)
        if self._total >= self._process_limit:
            raise Unavailable("This server has as many open streams as it takes; try again shortly.", retry_after=10)
        if self._open[who.username] >= self._limit:
            raise TooManyRequests(f"More than {self._limit} open streams.", retry_after=30)

    @contextmanager
    def _counted(self, who: Principal) -> Iterator[None]:
        self._check_limits(who)  # others may have come since
        self._open[who.username] += 1
        self._total += 1
        try:
            yield
        finally:
            self._total -= 1
            self._open[who.username] -= 1
            if not self._open[who.username]:
                del self._open[who.username]

    async def _frames(self, stream: "Stream") -> AsyncGenerator[bytes]:
        head, cursor = stream.head, stream.after
        with self._counted(stream.who), self._feed.subscribe(head) as (channel, subscription):
            stream.subscription = subscription
            if cursor is None:
                present = await self._presence.present(channel, head)
                yield _RETRY + present.chunk
                if present.finished:
                    return
                cursor = present.cursor
            elif head.pruned_seq > cursor:
                yield _RETRY + encode_frame("gap", {"from": cursor + 1, "to": head.pruned_seq}, seq=head.pruned_seq)
                cursor = head.pruned_seq
            else:
                yield _RETRY
            async for page in self._presence.backlog(channel, cursor, subscription.start):
                cursor = page[-1].seq
                if page[-1].type == "end" and cursor >= subscription.start:
                    yield joined(page[:-1]) + RETRY_AFTER_END + page[-1].data
                    return
                yield joined(page)
            if channel.over and cursor >= channel.cursor and (over := await self._over(stream, cursor)):
                yield RETRY_AFTER_END + encode_frame("end", {"state": over})
                return
            async for chunk in self._live(stream.who, head.id, cursor, subscription):
                yield chunk

    async def _live(
        self, who: Principal, execution_id: str, cursor: int, subscription: Subscription
    ) -> AsyncGenerator[bytes]:
        while True:
            # Not all at the same moment: a thousand may have come at once.
            wait = self._heartbeat * random.uniform(0.75, 1.0)  # noqa: S311  # nothing secret
            if who.expires_at is not None:
                wait = min(wait, who.expires_at - time.time())
                if wait <= 0:
                    yield _EXPIRED
                    return
            frames = await subscription.take(wait)
            if subscription.closed:
                self.dropped += subscription.overflowed
                if self._closing:
                    yield b"retry: %d\n: the server is restarting\n" % random.randint(*_RETRY_AFTER_RESTART)  # noqa: S311  # as above
                return
            fresh = [frame for frame in frames if frame.seq > cursor]
            if fresh:
                if fresh[0].seq != cursor + 1:
                    log.error("stream of %s: %s follows %s", execution_id, fresh[0].seq, cursor)
                    return  # the client resumes by its cursor and gets what is missing
                cursor = fresh[-1].seq
                if fresh[-1].type == "end":
                    yield joined(fresh[:-1]) + RETRY_AFTER_END + fresh[-1].data
                    return
                yield joined(fresh)
            elif not frames and (who.expires_at is None or time.time() < who.expires_at):
                yield _HEARTBEAT

    async def _over(self, stream: "Stream", cursor: int) -> str | None:
        """The state in which the run is over and has told all of it; None when something follows the cursor."""
        now = await self._status.head(stream.who, stream.head.dag_id, stream.head.dag_run_id)
        return now.state if now.state in TERMINAL_RUN_STATES and now.last_seq <= cursor else None


class Stream:
    """One client's stream."""

    __slots__ = ("_streams", "after", "head", "subscription", "who")

    def __init__(self, streams: Streams, who: Principal, head: Head, after: int | None) -> None:
        self._streams = streams
        self.who = who
        self.head = head
        self.after = after
        self.subscription: Subscription | None = None

    def frames(self) -> AsyncGenerator[bytes]:
        """The stream's bytes; the first are there at once. Raises what `Streams.open` does before them."""
        return self._streams._frames(self)

    def leave(self) -> None:
        """The client is gone."""
        if self.subscription is not None:
            self.subscription.close()
