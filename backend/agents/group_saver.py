"""Checkpoints in few transactions: what waits to be written goes into one, be it of one thread or of thousands."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from backend.agents.checkpoints import FencedSaver, Pool
from backend.core.jsonable import dumps
from backend.db.outage import outlast
from backend.db.threads import Claim

log = logging.getLogger(__name__)

BATCH_GATHER_SECONDS = 0.05
"""How long the writes of a batch wait for others' to share a transaction. Graphs don't wait for it between nodes."""
CLOSE_SECONDS = 5.0
"""How long the last writes may take."""
GROUP_LIMIT = 500
"""Checkpoints and sets of writes in one transaction."""

# LangGraph's own statements, with all rows in (binary) arrays: one execution for hundreds of rows.
_BLOBS = """
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bytea[])
    ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING
"""
_CHECKPOINTS = """
    INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
    SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[]::jsonb[], %b::text[]::jsonb[])
    ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id)
    DO UPDATE SET checkpoint = excluded.checkpoint, metadata = excluded.metadata
"""
_WRITES = """
    INSERT INTO checkpoint_writes
        (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT * FROM unnest(
        %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::integer[], %b::text[], %b::text[], %b::bytea[])
    ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
"""
_INSERT_WRITES = f"{_WRITES} DO NOTHING"
_UPSERT_WRITES = f"{_WRITES} DO UPDATE SET channel = excluded.channel, type = excluded.type, blob = excluded.blob"

Rows = dict[tuple[Any, ...], tuple[Any, ...]]


class _Group:
    """Rows by primary key: an `INSERT` may not meet the same row twice."""

    def __init__(self) -> None:
        self.size = 0
        self.blobs: Rows = {}
        self.checkpoints: Rows = {}
        self.inserted: Rows = {}
        self.upserted: Rows = {}
        self.written: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class GroupSaver(FencedSaver):
    """A `FencedSaver` with the same tables and the same fence, but one transaction for many writes.

    `known` are the threads that have checkpoints already; for any other nothing needs to be looked up before its
    first write. A write waits `gather` seconds for others; those that come while a transaction runs share the next.
    Graphs don't wait for their writes: `flush` does, and so does every reading. Use as `async with saver.writing()`.

    A write that fails raises at the graph's next one, or in `flush`. A database that is restarted is waited for: an
    agent that has just paid for an answer doesn't lose it.
    """

    def __init__(self, pool: Pool, claim: Claim, known: Collection[str] = (), *, gather: float = 0) -> None:
        super().__init__(pool, claim)
        self._gather = gather
        self._known = set(known)
        self._group = _Group()
        self._in_flight: _Group | None = None
        self._waiting = asyncio.Event()
        self._closing = False
        self._error: Exception | None = None

    @asynccontextmanager
    async def writing(self) -> AsyncIterator["GroupSaver"]:
        """Write what comes as long as the context lasts. What waits at its end is still written."""
        writer = asyncio.create_task(self._write_groups())
        try:
            yield self
        finally:
            self._closing = True
            self._waiting.set()
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await asyncio.wait([writer])
                    if writer.cancelled():  # the loop is being closed: it cancelled all its tasks
                        await self._write_rest()
            except (TimeoutError, OperationalError, PoolTimeout) as error:
                log.warning("the last checkpoints were not written: %s", type(error).__name__)
            finally:
                writer.cancel()

    async def flush(self) -> None:
        """Wait until everything is written. Raises what made that impossible, `psycopg.OperationalError` above all."""
        last = self._group if self._group.size else self._in_flight
        if last is not None:
            await asyncio.shield(last.written)
        if self._error is not None:
            raise self._error

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The thread's latest checkpoint; none, without asking, for a thread that has none yet."""
        if config["configurable"]["thread_id"] not in self._known:
            return None
        await self.flush()
        return await outlast(partial(super().aget_tuple, config))

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
        """Save a checkpoint together with others'."""
        configurable = config["configurable"]
        thread, namespace = configurable["thread_id"], configurable["checkpoint_ns"]
        inline: dict[str, Any] = {}
        blobs: dict[str, Any] = {}
        for name, value in checkpoint["channel_values"].items():
            if isinstance(value, _DeltaSnapshot):
                blobs[name], inline[name] = value, True
            elif value is None or isinstance(value, str | int | float | bool):
                inline[name] = value
            else:
                blobs[name] = value
        group = self._group
        versions = {name: version for name, version in new_versions.items() if name in blobs}
        for row in self._dump_blobs(thread, namespace, blobs, versions):
            group.blobs.setdefault(row[:4], row)
        group.checkpoints[thread, namespace, checkpoint["id"]] = (
            thread,
            namespace,
            checkpoint["id"],
            configurable.get("checkpoint_id"),
            dumps({**checkpoint, "channel_values": inline}),
            dumps(get_serializable_checkpoint_metadata(config, metadata)),
        )
        self._known.add(thread)
        await self._share(group)
        return {
            "configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint["id"]},
        }

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Save what a node has written together with others' writes."""
        configurable = config["configurable"]
        rows = self._dump_writes(
            configurable["thread_id"],
            configurable["checkpoint_ns"],
            configurable["checkpoint_id"],
            task_id,
            task_path,
            writes,
        )
        group = self._group
        upsert = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        for row in rows:
            key = (*row[:4], row[5])
            if upsert:
                group.upserted[key] = row
            else:
                group.inserted.setdefault(key, row)
        await self._share(group)

    async def _share(self, group: _Group) -> None:
        if self._error is not None:
            raise self._error
        group.size += 1
        self._waiting.set()
        if group.size > GROUP_LIMIT:  # the database can't keep up
            await asyncio.shield(group.written)

    async def _write_groups(self) -> None:
        while True:
            await self._waiting.wait()
            if self._group.size < GROUP_LIMIT and not self._closing:
                await asyncio.sleep(self._gather)
            if not self._group.size:  # closing
                break
            group, self._group = self._group, _Group()
            self._in_flight = group
            if not self._closing:
                self._waiting.clear()
            try:
                if self._error is None:
                    await self._write(group)
            except Exception as error:
                self._error = error
            self._in_flight = None
            group.written.set_result(None)

    async def _write_rest(self) -> None:
        for group in (self._in_flight, self._group):
            if group is not None and group.size and self._error is None:
                await self._write(group)

    async def _write(self, group: _Group) -> None:
        await outlast(partial(self._insert, group))

    async def _insert(self, group: _Group) -> None:
        async with self._cursor(pipeline=True) as cursor:
            for statement, rows in (
                (_BLOBS, group.blobs),
                (_CHECKPOINTS, group.checkpoints),
                (_INSERT_WRITES, group.inserted),
                (_UPSERT_WRITES, group.upserted),
            ):
                if rows:
                    columns = [list(column) for column in zip(*rows.values(), strict=True)]
                    await cursor.execute(statement, columns)
