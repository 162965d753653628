"""Who watches an execution, and what they have yet to get: bounded, whatever a client does."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from backend.core.states import TERMINAL_RUN_STATES
from backend.db.runs.executions import Head
from backend.services.streaming.sse import Frame

QUEUE_LIMIT = 2_000
"""A subscriber that is so many events behind is dropped; it resumes by its cursor."""

QUEUE_BYTES = 4 * 2**20
"""The same in bytes. Subscribers of a run share their events' bytes."""

RECENT_TOTAL = 16 * 2**20
"""Bytes of recent events that one process keeps for clients that connect again; all channels share them."""

FRESH = 1.0
"""Seconds for which the present state of a run that goes on serves others; what happened since follows from the log."""

RECENT_LIMIT = 500
_RECENT_LEAST = 4 * 2**10


@dataclass(frozen=True, slots=True)
class Present:
    """The present state as a stream's first events, and the cursor that follows them."""

    chunk: bytes
    cursor: int
    finished: bool
    read_at: float

    def serves(self, head: Head) -> bool:
        """Whether somebody may begin with it who knows the execution's `head`."""
        if self.cursor >= head.last_seq:
            return True
        # Of a run that is over nothing follows: an end that is none any more would be the last word.
        return not self.finished and head.state not in TERMINAL_RUN_STATES and time.monotonic() - self.read_at < FRESH


class Subscription:
    """What one subscriber has yet to get of one execution."""

    __slots__ = ("_bytes", "_frames", "_waiter", "closed", "overflowed", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        """All events behind this one come through the subscription; those up to it stand in the log."""
        self.closed = False
        """No more frames come: too far behind, or the stream is to end."""
        self.overflowed = False
        """It is closed because the subscriber was too far behind."""
        self._frames: list[Frame] = []
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    def push(self, frames: Sequence[Frame]) -> None:
        """Hand over new frames; a full queue closes the subscription instead of growing."""
        if self.closed:
            return
        size = sum(len(frame.data) for frame in frames)
        # One event larger than the limit still passes.
        if self._frames and (len(self._frames) + len(frames) > QUEUE_LIMIT or self._bytes + size > QUEUE_BYTES):
            self.overflowed = True
            self.close()
            return
        self._frames.extend(frames)
        self._bytes += size
        self._wake()

    def close(self) -> None:
        """Give nothing any more; who waits is told."""
        self.closed = True
        self._frames = []
        self._wake()

    async def take(self, seconds: float) -> list[Frame]:
        """All frames there are, as soon as there is one; an empty list when none came in so many seconds or the
        subscription is closed."""
        if not self._frames and not self.closed:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, self._wake)
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


class Channel:
    """One execution that somebody watches: where it stands, its latest events and its subscribers."""

    __slots__ = ("_recent", "_recent_bytes", "cursor", "head", "present", "reading", "state", "subscribers")

    def __init__(self, head: Head) -> None:
        self.head = head
        """The execution when the channel was made."""
        self.cursor = head.last_seq
        """The last event the subscribers were given; or, at first, that was in the log."""
        self.state = head.state
        self.subscribers: set[Subscription] = set()
        self.present: Present | None = None
        self.reading: asyncio.Task[Present] | None = None
        """The reading of the present state that is under way."""
        self._recent: deque[Frame] = deque()
        self._recent_bytes = 0

    @property
    def over(self) -> bool:
        """Whether the run has ended, as far as the subscribers were told."""
        return self.state in TERMINAL_RUN_STATES

    def extend(self, frames: Sequence[Frame], share: int) -> None:
        """Give what is new to all subscribers. The latest `share` bytes are kept for those who come later."""
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
        # A copy: a subscriber may leave while it is told.
        for subscription in tuple(self.subscribers):
            subscription.push(new)

    def since(self, seq: int) -> list[Frame] | None:
        """What followed event `seq`, or None when that is not remembered any more."""
        if seq >= self.cursor:
            return []
        if not self._recent or self._recent[0].seq > seq + 1:
            return None
        return [frame for frame in self._recent if frame.seq > seq]


def recent_share(channels: int) -> int:
    """How many bytes of recent events each of so many channels may keep."""
    return max(_RECENT_LEAST, RECENT_TOTAL // max(64, channels))
