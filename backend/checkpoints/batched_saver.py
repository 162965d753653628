"""The checkpointer of a task's graphs: LangGraph's saver, with writes that share transactions and are fenced.

LangGraph's `AsyncPostgresSaver` takes a transaction for every write, and holds one lock for all of them. `BatchedSaver`
reads with it, and leaves writes to a `CheckpointWriter` that is shared by all graphs of a batch or a triggerer. A graph
therefore doesn't wait for its writes, unless its durability is `sync`: `flush` does, and so does everything that reads
or deletes.

A write that fails is raised by the graph's next write, or by `flush`. It fails with `SupersededError` when a later
claim holds the thread (a retry doesn't help), with `psycopg.OperationalError` when the database was unavailable for too
long (a retry helps), and with another `psycopg.Error` when the database refuses the row.

A value that can't be serialized is refused before anything is queued: the write raises `NotKeptError`, and so does
everything that follows on its thread, because later checkpoints build on that one. `refused` shows it to the runner at
once, so that no other node is paid for.
"""

import asyncio
import copy
import logging
from asyncio import timeout
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.types import Durability

from backend.checkpoints.batch_writer import CheckpointWriter, Operation, WriteSequence
from backend.checkpoints.pool import Pool
from backend.checkpoints.state_serializer import (
    NotKeptError,
    PassingSerializer,
    StateSerializer,
    fits_inline,
    is_long,
)
from backend.core.large_values import apart
from backend.db.outage import retry_until_available
from backend.db.runs.threads import Claim

log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0
"""How long the last writes may take when the saver is closed."""


class BatchedSaver(AsyncPostgresSaver):
    """The checkpointer for the graphs of one claim. Use it inside `async with saver.writing()`.

    `known` are the threads that may have checkpoints already. For any other thread nothing is looked up before its
    first write. Graphs are to run with the saver's `durability`. No value may have more than `largest` bytes.
    """

    def __init__(
        self,
        pool: Pool,
        claim: Claim,
        writer: CheckpointWriter,
        known: Collection[str] = (),
        durability: Durability = "async",
        largest: int | None = None,
    ) -> None:
        # Built-in agents keep messages and plain data in their states; what a user's graph keeps is the user's choice.
        self._serializer = StateSerializer(largest)
        super().__init__(pool, serde=self._serializer)
        self._sequence = WriteSequence(claim)
        self._writer = writer
        self._known = set(known)
        self.durability: Durability = durability
        self._taking: set[asyncio.Future[None]] = set()
        self.refused: dict[str, NotKeptError] = {}
        """By thread, the value that could not be serialized."""
        self._apart: dict[tuple[str, str, str], Any] = {}
        """The versions of long texts that were written apart, by thread, namespace and channel."""

    def leave_out(self, pictures: Iterable[str]) -> None:
        """Keep `data:` URLs of a graph's input by their digests. Call it before the graph runs, or resumes."""
        self._serializer.pictures.add(pictures)

    def keep_in_step(self) -> None:
        """Write each step of graphs that begin from now on before the next one begins."""
        self.durability = "sync"

    def passing(self) -> "BatchedSaver":
        """The same checkpoints for graphs of another process, which serializes their values and reads them itself."""
        other = copy.copy(self)
        other.serde = PassingSerializer(self._serializer)
        return other

    @asynccontextmanager
    async def writing(self) -> AsyncIterator["BatchedSaver"]:
        """On exit, waits up to `CLOSE_SECONDS` for what has not been written yet."""
        try:
            yield self
        finally:
            try:
                async with timeout(CLOSE_SECONDS):
                    await self._written()
            except TimeoutError:
                log.warning("the last checkpoints of %s are not written yet", self._sequence.claim.thread_id)

    async def flush(self) -> None:
        """Wait until everything is written. Raises the error of the write that failed."""
        await self._written()
        if self._sequence.error is not None:
            raise self._sequence.error

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The thread's latest checkpoint; None, without a look-up, for a thread that has none yet."""
        if config["configurable"]["thread_id"] not in self._known:
            return None
        await self.flush()
        return await retry_until_available(partial(super().aget_tuple, config))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The thread's checkpoints, the latest first."""
        await self.flush()
        async for found in super().alist(config, filter=filter, before=before, limit=limit):
            yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        thread, namespace = config["configurable"]["thread_id"], config["configurable"]["checkpoint_ns"]
        versions = dict(new_versions)

        # LangGraph keeps texts and numbers in a `jsonb` column, in each checkpoint again. What that can't hold, and
        # long texts, go where everything else does: once for each version, of which another try may know nothing.
        def kept(channel: str, value: Any) -> Any:
            if is_long(value):
                key, version = (thread, namespace, channel), checkpoint["channel_versions"][channel]
                if self._apart.get(key) != version:
                    self._apart[key] = versions[channel] = version
                return _Apart(value)
            return value if fits_inline(value) else _Apart(value)

        values = {channel: kept(channel, value) for channel, value in checkpoint["channel_values"].items()}
        checkpoint = {**checkpoint, "channel_values": values}
        new = [
            (channel, values[channel])
            for channel in versions
            if not isinstance(values.get(channel), str | int | float | bool | None)
        ]
        serde = await self._snapshots(thread, new, metadata.get("source", "loop"))
        await self._add(
            lambda connection, pipeline: PostgresSaver(connection, pipeline, serde).put(
                config, checkpoint, metadata, versions
            )
        )
        self._known.add(thread)
        if self.durability == "sync":
            await self.flush()
        return {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint["id"]}}

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        # An error's text may contain a secret; cleaned, it is in the records. LangGraph only asks whether there is one.
        writes = [
            (channel, type(value).__qualname__ if isinstance(value, BaseException) else value)
            for channel, value in writes
        ]
        serde = await self._snapshots(config["configurable"]["thread_id"], writes, task_id)
        await self._add(
            lambda connection, pipeline: PostgresSaver(connection, pipeline, serde).put_writes(
                config, writes, task_id, task_path
            )
        )

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints of a thread, those that are still queued included."""
        await self._add(lambda connection, pipeline: PostgresSaver(connection, pipeline).delete_thread(thread_id))
        await self.flush()
        self._known.discard(thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Prune threads as `AsyncPostgresSaver.aprune` does, after everything that is queued was written.

        Pruning takes transactions of its own, so the fence is checked right before it, not in them.
        """
        await self._add(lambda _connection, _pipeline: None)
        await self.flush()
        await super().aprune(thread_ids, strategy=strategy)

    async def _snapshots(self, thread: str, values: Iterable[tuple[str, Any]], source: str) -> "_Snapshots":
        if thread in self.refused:
            raise self.refused[thread]
        kept = [*values]
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._taking.add(taken)
        try:
            return await apart([value for _, value in kept], partial(_Snapshots, self.serde, kept))
        except RuntimeError:  # a node that runs in parallel has changed a container meanwhile
            return _Snapshots(self.serde, kept)
        except NotKeptError as error:
            self.refused[thread] = error.written_by(source)
            raise self.refused[thread] from None
        finally:
            self._taking.discard(taken)
            taken.set_result(None)

    async def taken(self) -> None:
        """Wait until what LangGraph has handed over is serialized, so that nodes may change it."""
        await asyncio.sleep(0)  # LangGraph hands checkpoints over in a task of their own
        while self._taking:
            await asyncio.wait([*self._taking])

    async def _add(self, operation: Operation) -> None:
        if self._sequence.error is not None:
            raise self._sequence.error
        self._sequence.last = pending = self._writer.add(self._sequence, operation)
        await self._writer.room(pending)

    async def _written(self) -> None:
        if self._sequence.last is not None:
            await self._writer.wait_for(self._sequence.last)


class _Apart:
    """A text or number that `jsonb` can't hold, or that is long."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Snapshots(SerializerProtocol):
    """Serializes values when they are handed over, not when they are written: a node may change them meanwhile."""

    def __init__(self, serde: SerializerProtocol, values: Iterable[tuple[str, Any]]) -> None:
        self._serde = serde
        # The values are kept as well: an id belongs to an object only as long as the object exists.
        self._values: list[Any] = []
        self._taken: dict[int, tuple[str, bytes]] = {}
        for channel, value in values:
            self._values.append(value)
            self._taken[id(value)] = self._take(channel, value)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """The value as it was when it was handed over."""
        taken = self._taken.get(id(obj))
        return self._serde.dumps_typed(obj) if taken is None else taken

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return self._serde.loads_typed(data)

    def _take(self, channel: str, value: Any) -> tuple[str, bytes]:
        try:
            return self._serde.dumps_typed(value.value if isinstance(value, _Apart) else value)
        except NotKeptError as error:
            raise error.of(channel) from None
