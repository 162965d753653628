"""Channels and subscriptions: how the feed fans one run's events out to its subscribers.

A `Channel` exists for each run that has at least one subscriber in this process. It holds the run's position in the
log (`cursor`), its latest known state, and a short tail of recent events so that a client that reconnects usually
needs no query. Each client has a `Subscription`: a bounded queue between the feed, which never waits, and the client's
connection, which may be slow. Frames are shared between queues, so a subscriber costs a list of references, not a copy
of the data. A queue that reaches its limit is closed instead of growing; the client reconnects with `Last-Event-ID`.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from backend.core.states import TERMINAL_RUN_STATES
from backend.db.runs.executions import Head
from backend.services.streaming.sse import Frame

QUEUE_LIMIT = 2_000
"""Events that a subscription may hold. Beyond that it is closed, and the client resumes by its cursor."""

QUEUE_BYTES = 4 * 2**20
"""The same limit in bytes."""

RECENT_TOTAL = 16 * 2**20
"""Bytes of recent events that one process keeps for clients that reconnect, shared by all channels."""

RECENT_LIMIT = 500
_RECENT_MINIMUM = 4 * 2**10


class Channel:
    """One run that has subscribers: its position in the log, its latest events and its subscriptions."""

    __slots__ = ("_recent", "_recent_bytes", "cursor", "head", "state", "subscriptions")

    def __init__(self, head: Head) -> None:
        self.head = head
        """The execution when the channel was created."""
        self.cursor = head.last_seq
        """`seq` of the last event that was passed to the subscribers; initially, of the last one in the log."""
        self.state = head.state
        self.subscriptions: set[Subscription] = set()
        self._recent: deque[Frame] = deque()
        self._recent_bytes = 0

    @property
    def finished(self) -> bool:
        """Whether the last known state of the run is terminal. A run that is retried leaves it again."""
        return self.state in TERMINAL_RUN_STATES

    def extend(self, frames: Sequence[Frame], share: int) -> None:
        """Pass the frames that follow `cursor` to all subscribers, and keep the latest `share` bytes of them."""
        new = [frame for frame in frames if frame.seq > self.cursor]
        if not new:
            return
        self.cursor = new[-1].seq
        for frame in new:
            self.state = frame.state or self.state
            self._recent.append(frame)
            self._recent_bytes += len(frame.data)
        while self._recent and (self._recent_bytes > share or len(self._recent) > RECENT_LIMIT):
            self._recent_bytes -= len(self._recent.popleft().data)
        for subscription in tuple(self.subscriptions):  # a copy: `push` may end a subscription
            subscription.push(new)

    def since(self, seq: int) -> list[Frame] | None:
        """The frames that follow event `seq`, or None when they are no longer in memory."""
        if seq >= self.cursor:
            return []
        if not self._recent or self._recent[0].seq > seq + 1:
            return None
        return [frame for frame in self._recent if frame.seq > seq]


class Subscription:
    """One client's queue of frames."""

    __slots__ = ("_bytes", "_frames", "_waiter", "channel", "closed", "overflowed", "start")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.start = channel.cursor
        """All events after this `seq` arrive through the subscription; those up to it are in the log."""
        self.closed = False
        """No further frames arrive: the queue overflowed, or the stream is to end."""
        self.overflowed = False
        """The subscription was closed because its client read too slowly."""
        self._frames: list[Frame] = []
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def push(self, frames: Sequence[Frame]) -> None:
        """Queue new frames. Closes the subscription if they exceed its limits; never blocks."""
        if self.closed:
            return
        size = sum(len(frame.data) for frame in frames)
        # A single event larger than the limit still passes.
        if self._frames and (len(self._frames) + len(frames) > QUEUE_LIMIT or self._bytes + size > QUEUE_BYTES):
            self.overflowed = True
            self.close()
            return
        self._frames.extend(frames)
        self._bytes += size
        self._wake()

    def close(self) -> None:
        """Drop what is queued, and wake a pending `take`."""
        self.closed = True
        self._frames = []
        self._wake()

    async def take(self, timeout: float) -> list[Frame]:  # noqa: ASYNC109  # an empty list, not an error, on timeout
        """Return all queued frames as soon as there is one.

        Returns an empty list when none arrived within `timeout` seconds or when the subscription is closed.
        """
        if not self._frames and not self.closed:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        frames, self._frames, self._bytes = self._frames, [], 0
        return frames

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def recent_share(channels: int) -> int:
    """How many bytes of recent events each of `channels` channels may keep."""
    return max(_RECENT_MINIMUM, RECENT_TOTAL // max(64, channels))
