"""Delivers the frames of conversations to this process's clients: one listener and one query serve all of them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError

from backend.db.conversations import frames
from backend.db.conversations.frames import StoredFrame
from backend.db.engine import Database
from backend.services.background import in_background
from backend.services.streaming import listen
from backend.services.streaming.listen import PostgresWakeups, Wakeup

log = logging.getLogger(__name__)

BATCH = 500
"""Frames of one conversation that are read at a time."""

QUEUE_FRAMES = 5_000
QUEUE_CHARACTERS = 16 * 2**20
"""What a client may leave unread; then it has to reconnect."""


class _Queue:
    """One client's frames."""

    __slots__ = ("closed", "frames", "ready", "size")

    def __init__(self) -> None:
        self.frames: list[StoredFrame] = []
        self.size = 0
        self.closed = False
        self.ready = asyncio.Event()

    def push(self, new: list[StoredFrame]) -> None:
        self.size += sum(len(frame.data) for frame in new)
        if self.frames and (len(self.frames) + len(new) > QUEUE_FRAMES or self.size > QUEUE_CHARACTERS):
            self.closed = True
            self.frames = []
        else:
            self.frames += new
        self.ready.set()


class _Channel:
    """A conversation that has clients, and the last frame that they were given."""

    __slots__ = ("cursor", "queues")

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.queues: set[_Queue] = set()


class TurnFeed:
    """Reads what is appended to the conversations that somebody follows. Wake-ups may be lost or come twice: they only
    say when to read."""

    def __init__(self, wakeups: PostgresWakeups, database: Database) -> None:
        self._database = database
        self._channels: dict[str, _Channel] = {}
        self._dirty: set[str] = set()
        self._work = asyncio.Event()
        wakeups.pass_on(frames.CHANNEL, self._wake, self._mark_all)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver until the context ends."""
        async with in_background(self._deliver()):
            yield

    def close(self) -> None:
        """End all streams; their clients come back."""
        for channel in self._channels.values():
            for queue in channel.queues:
                queue.closed = True
                queue.ready.set()

    async def follow(
        self, conversation_id: str, last: int, after: int, idle: float
    ) -> AsyncGenerator[list[StoredFrame] | None]:
        """The frames after `after`, and then as they are appended; None after each `idle` seconds without one.

        `last` is the conversation's last frame as it was read before. Ends when the client reads too slowly, or the
        process shuts down: it resumes after what it has.
        """
        channel = self._channels.get(conversation_id)
        if channel is None:
            channel = self._channels[conversation_id] = _Channel(last)
            self._mark(conversation_id)
        queue = _Queue()
        channel.queues.add(queue)
        cursor, until = after, channel.cursor
        try:
            while cursor < until:
                found = await self._database.run_autocommit(
                    frames.read_after, {conversation_id: cursor}, per_conversation=BATCH
                )
                known = [frame for frame in found if frame.seq <= until]
                if not known:
                    break
                cursor = known[-1].seq
                yield known
            while not queue.closed:
                if not queue.frames:
                    try:
                        async with asyncio.timeout(idle):
                            await queue.ready.wait()
                    except TimeoutError:
                        yield None
                        continue
                queue.ready.clear()
                new, queue.frames, queue.size = queue.frames, [], 0
                if fresh := [frame for frame in new if frame.seq > cursor]:
                    cursor = fresh[-1].seq
                    yield fresh
        finally:
            channel.queues.discard(queue)
            if not channel.queues and self._channels.get(conversation_id) is channel:
                del self._channels[conversation_id]

    def _wake(self, wakeup: Wakeup) -> None:
        channel = self._channels.get(wakeup.id)
        if channel is not None and wakeup.last > channel.cursor:
            self._mark(wakeup.id)

    def _mark(self, conversation_id: str) -> None:
        self._dirty.add(conversation_id)
        self._work.set()

    def _mark_all(self) -> None:
        self._dirty.update(self._channels)
        if self._dirty:
            self._work.set()

    async def _deliver(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            cursors = {key: channel.cursor for key in self._dirty if (channel := self._channels.get(key)) is not None}
            self._dirty.clear()
            if not cursors:
                continue
            try:
                found = await self._database.run_autocommit(frames.read_after, cursors, per_conversation=BATCH)
            except (SQLAlchemyError, OSError) as error:
                log.warning("the frames of conversations could not be read: %s", type(error).__name__)
                self._dirty.update(cursors)
                self._work.set()
                await asyncio.sleep(listen.RECONNECT_DELAY)
                continue
            new: dict[str, list[StoredFrame]] = {}
            for frame in found:
                new.setdefault(frame.conversation_id, []).append(frame)
            for key, appended in new.items():
                channel = self._channels.get(key)
                fresh = [] if channel is None else [frame for frame in appended if frame.seq > channel.cursor]
                if channel is not None and fresh and fresh[0].seq == channel.cursor + 1:
                    channel.cursor = fresh[-1].seq
                    for queue in tuple(channel.queues):
                        queue.push(fresh)
                # In bytes it may have been up to four times as much as in characters.
                if len(appended) == BATCH or sum(len(frame.data) for frame in appended) > frames.BYTES // 4:
                    self._mark(key)
