"""One stream for several runs, for clients that may hold few connections: browsers allow six per host over HTTP/1.1.

It carries the events of each run's own stream unchanged, except that an event's `id` says which run it belongs to and
where the client is in all of them: `<position>;<cursor>,<cursor>,…`, one cursor per requested run in the order of the
request. A cursor is empty for a run of which the client has no complete state yet, and followed by `-` after the run's
`end`. So one `Last-Event-ID` resumes all runs. Each run's encoded frames are shared with all other streams.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from backend.core.problems import NotFound
from backend.core.roles import Principal
from backend.services.streaming.sse import RETRY, RETRY_AFTER_END, encode_fields
from backend.services.streaming.stream import Stream, Streams

_Queue = asyncio.Queue[tuple[int, bytes | None, bool]]
"""Positions of runs, their chunks (None after the last) and whether the run has ended with it."""

FINISHED = "-"

# JSON text has no line breaks, so nothing inside of an event's data begins a line.
_HEAD = re.compile(rb"^(?:id: (\d+)\n)?(event: )", re.MULTILINE)


class CombinedStream:
    """One client's stream of several runs, each with its own rights, cursor and end.

    A run that the client may not see, or that doesn't exist, is reported by a `problem` event; the others go on.
    """

    def __init__(self, streams: Streams, who: Principal, runs: Sequence[tuple[str, str]], cursors: Sequence[str]):
        self._streams = streams
        self._who = who
        self._runs = runs
        self._cursors = list(cursors)
        self._open: dict[int, Stream] = {}
        self._refused: dict[int, NotFound] = {}
        self.interrupted = False
        """The latest chunk is the last one of this connection, but the client is to come back for more."""

    async def open(self) -> None:
        """Look up all runs. Raises `TooManyRequests` and `Unavailable` as `Streams.open` does."""
        for position, (run, cursor) in enumerate(zip(self._runs, self._cursors, strict=True)):
            if cursor.endswith(FINISHED):
                continue
            try:
                self._open[position] = await self._streams.open(
                    self._who, *run, int(cursor) if cursor else None, part=True
                )
            except NotFound as problem:
                self._refused[position] = problem

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The stream's bytes, each chunk a sequence of whole events; to be iterated once."""
        async with self._streams.limits.counted(self._who.username), aclosing(self._chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _chunks(self) -> AsyncGenerator[bytes]:
        refusals = [self._refusal(position, problem) for position, problem in self._refused.items()]
        yield b"".join([RETRY if self._open else RETRY_AFTER_END, *refusals])
        # A client that doesn't read stops all of them here; then their subscriptions overflow, which ends the stream.
        queue: _Queue = asyncio.Queue(1)
        tasks = [asyncio.create_task(_pull(position, one, queue)) for position, one in self._open.items()]
        left = len(tasks)
        try:
            while left:
                position, data, ended = await queue.get()
                if data is not None:
                    yield self._marked(position, data, ended=ended, last=left == 1)
                    continue
                left -= 1
                if not ended:
                    self.interrupted = self._open[position].interrupted
                    await tasks[list(self._open).index(position)]  # raises what broke it off
                    return  # the client resumes by its cursors
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self) -> None:
        """The client has not read for so long that its connection is aborted."""
        self._streams.dropped += 1

    def leave(self) -> None:
        """The client has disconnected: end the stream."""
        for stream in self._open.values():
            stream.leave()

    def _refusal(self, position: int, problem: NotFound) -> bytes:
        self._cursors[position] += FINISHED
        return self._id(position) + encode_fields("problem", problem.body())

    def _marked(self, position: int, data: bytes, *, ended: bool, last: bool) -> bytes:
        def mark(head: re.Match[bytes]) -> bytes:
            if head[1] is not None:
                self._cursors[position] = head[1].decode()
            if head.start(2) == end:
                self._cursors[position] += FINISHED
            return self._id(position) + head[2]

        if ended and not last:
            data = data.replace(RETRY_AFTER_END, b"")
        end = data.rfind(b"event: end\n") if ended else -1
        return _HEAD.sub(mark, data)

    def _id(self, position: int) -> bytes:
        return f"id: {position};{','.join(self._cursors)}\n".encode()


async def _pull(position: int, stream: Stream, queue: _Queue) -> None:
    try:
        async with aclosing(stream.chunks()) as chunks:
            async for data in chunks:
                await queue.put((position, data, stream.ended))
    except Exception:
        await queue.put((position, None, False))
        raise
    await queue.put((position, None, stream.ended))
