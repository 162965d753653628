"""Opens streams of server-sent events and delivers them: first the initial state, then live events.

A stream passes through three steps:

1. `Streams.open` checks the limits, looks up the run and the user's right to see it. Errors are raised here, or
   before the first chunk, and become an ordinary HTTP error response.
2. `Stream.chunks` subscribes to the run (`feed`), then sends what the client has missed (`initial_state`).
3. It then sends what the subscription delivers, and a comment whenever the run is quiet, until the run ends, the
   client leaves or falls too far behind, its session ends or may no longer see the run, or the process shuts down. In
   all but the first case the client resumes with `Last-Event-ID`.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, nullcontext

from backend.core.problems import Problem, TooManyRequests, Unavailable
from backend.core.roles import Principal
from backend.core.settings import Settings
from backend.db.engine import Database
from backend.db.runs.executions import Head
from backend.services.identity.authenticator import Authenticator
from backend.services.limits.streams import StreamLimits
from backend.services.runs.status import Status, check_may_see
from backend.services.streaming.feed import EventFeed
from backend.services.streaming.initial_state import InitialStates
from backend.services.streaming.sse import join
from backend.services.streaming.subscriptions import Subscription

log = logging.getLogger(__name__)

_RETRY_AFTER_RESTART = (500, 3000)
"""Milliseconds between which clients are asked to reconnect when the process shuts down, so that they spread out."""

# A single line: some parsers would take a blank line after it for an empty event.
_HEARTBEAT = b": keep-alive\n"
_EXPIRED = b": the token has expired; sign in again and resume with Last-Event-ID\n"
_ENDED = b": this session may no longer see the run; sign in again and resume with Last-Event-ID\n"


class Streams:
    """Opens streams and enforces their limits.

    Opening one costs a small query, or none if the run is already watched; an idle stream costs nothing but memory.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        feed: EventFeed,
        status: Status,
        authenticator: Authenticator,
        limits: StreamLimits,
    ) -> None:
        self.feed = feed
        self.limits = limits
        self.initial_states = InitialStates(database, status)
        self.heartbeat = settings.stream_heartbeat
        self.check_interval = settings.account_check_interval
        self.authenticator = authenticator
        self.closing = False
        """The process is shutting down."""
        self.dropped = 0
        """Streams that were ended because their clients read too slowly."""
        self._status = status
        self._user_limit = settings.streams_per_user
        self._process_limit = settings.streams_per_process
        self._open: Counter[str] = Counter()
        self._total = 0

    @property
    def open_streams(self) -> int:
        """How many streams are being served."""
        return self._total

    def close(self) -> None:
        """End all streams, and ask their clients to reconnect soon."""
        self.closing = True
        self.feed.close()

    async def open(
        self, who: Principal, dag_id: str, dag_run_id: str, after: int | None, *, part: bool = False
    ) -> "Stream":
        """A run's stream, from its current state on, or from the event after `after`. A `part` of another stream
        doesn't count for an operator's limit.

        Raises `NotFound`, also when the user may not see the run; `TooManyRequests` when the user has reached their
        limit of streams; and `Unavailable` when the process has reached its limit, shuts down, or can reach neither
        the run's row nor Airflow. A retry helps with the last two.
        """
        self.check_room(who)
        head = self.feed.head(dag_id, dag_run_id, after) or await self._status.find(who, dag_id, dag_run_id)
        check_may_see(who, head)
        if after is not None and after > head.last_seq:
            after = None  # a cursor from another database: start over
        return Stream(self, who, head, after, part=part)

    async def has_ended(self, who: Principal, dag_id: str, dag_run_id: str, *, within: float) -> bool:
        """Wait until a run has ended, up to `within` seconds; returns whether it has. Counts as a stream meanwhile.

        Where the stream can't be served, nothing is raised: that is no reason to refuse what the caller has done.
        """
        try:
            stream = await self.open(who, dag_id, dag_run_id, None)
            async with asyncio.timeout(within), aclosing(stream.chunks()) as chunks:
                async for _ in chunks:
                    pass
        except (Problem, TimeoutError):
            return False
        return stream.ended

    @contextmanager
    def counted(self, who: Principal) -> Iterator[None]:
        """Count a stream of this user while it is served. Raises as `open` does, as others may have opened since."""
        self.check_room(who)
        self._open[who.username] += 1
        self._total += 1
        try:
            yield
        finally:
            self._total -= 1
            self._open[who.username] -= 1
            if not self._open[who.username]:
                del self._open[who.username]

    def check_room(self, who: Principal) -> None:
        """Raise what `open` would if no further stream of this user can be served now."""
        if self.closing:
            raise Unavailable("The server is restarting.", retry_after=1)
        if self._total >= self._process_limit:
            raise Unavailable("This server has reached its limit of open streams; try again shortly.", retry_after=10)
        if self._open[who.username] >= self._user_limit:
            raise TooManyRequests(f"More than {self._user_limit} open streams.", retry_after=30)


class Stream:
    """One client's stream."""

    __slots__ = ("_after", "_head", "_left", "_part", "_streams", "_subscription", "_who", "ended", "interrupted")

    def __init__(self, streams: Streams, who: Principal, head: Head, after: int | None, *, part: bool) -> None:
        self._streams = streams
        self._part = part
        self._who = who
        self._head = head
        self._after = after
        self._subscription: Subscription | None = None
        self._left = False
        self.ended = False
        """The run has finished, and the latest chunk is the last one: it ends with `end`."""
        self.interrupted = False
        """The latest chunk is the last one of this connection, but the client is to come back for more."""

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The stream's bytes, each chunk a sequence of whole events; to be iterated once.

        The first chunk is available immediately. What is raised before it is raised as by `Streams.open`.
        """
        counted = nullcontext() if self._part else self._streams.limits.counted(self._who.username)
        async with counted, aclosing(self._chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _chunks(self) -> AsyncGenerator[bytes]:
        streams, who = self._streams, self._who
        with streams.counted(who), streams.feed.subscribe(self._head) as subscription:
            self._subscription = subscription
            if self._left:
                return
            async for chunk in streams.initial_states.chunks(self._head, self._after, subscription):
                self.ended = chunk.last
                yield chunk.data
            if chunk.last:
                return
            cursor = chunk.cursor
            del chunk  # an idle stream must not keep its first bytes in memory
            check_at, beat_at = time.monotonic() + streams.check_interval, self._next_heartbeat()
            while True:
                if time.monotonic() >= check_at:
                    if not await self._may_go_on():
                        yield _ENDED
                        return
                    check_at = time.monotonic() + streams.check_interval
                timeout = max(min(beat_at, check_at) - time.monotonic(), 0.0)
                if who.expires_at is not None:
                    timeout = min(timeout, who.expires_at - time.time())
                    if timeout < 0:
                        yield _EXPIRED
                        return
                frames = await subscription.take(timeout)
                if subscription.closed:
                    self.interrupted = True
                    streams.dropped += subscription.overflowed
                    if streams.closing:
                        wait = random.randint(*_RETRY_AFTER_RESTART)  # noqa: S311  # not a secret
                        yield b"retry: %d\n: the server is restarting\n" % wait
                    return
                new = [frame for frame in frames if frame.seq > cursor]
                if new:
                    if new[0].seq != cursor + 1:
                        self.interrupted = True
                        log.error("stream of execution %s: %s follows %s", self._head.id, new[0].seq, cursor)
                        return  # the client resumes by its cursor and receives what is missing
                    cursor = new[-1].seq
                    self.ended = new[-1].type == "end"
                    yield join(new, last=self.ended)
                    if self.ended:
                        return
                    beat_at = self._next_heartbeat()
                elif time.monotonic() >= beat_at:
                    yield _HEARTBEAT
                    beat_at = self._next_heartbeat()

    def _next_heartbeat(self) -> float:
        # Spread out, as a thousand clients may have connected at the same moment.
        return time.monotonic() + self._streams.heartbeat * random.uniform(0.75, 1.0)  # noqa: S311  # not a secret

    async def _may_go_on(self) -> bool:
        """Whether the user's session goes on, and they may still see the run."""
        try:
            who = await self._streams.authenticator.recheck(self._who)
        except Problem as problem:
            log.info("a stream of %s ends: %s", self._who.username, problem.detail)
            return False
        return who.may_see(self._head.dag_id, self._head.user_id, self._head.triggered_by)

    def cut(self) -> None:
        """The client has not read for so long that its connection is aborted."""
        self._streams.dropped += 1

    def leave(self) -> None:
        """The client has disconnected: end the stream."""
        self._left = True
        if self._subscription is not None:
            self._subscription.close()
