"""Checkpoints of very many threads at once: what waits to be written goes into one transaction."""

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

from backend.agents.checkpoints import FencedSaver, Pool
from backend.core.jsonable import dumps
from backend.db.outage import outlast
from backend.db.threads import Claim

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.05
"""How long a write waits for others to share its transaction. Graphs don't wait for it between their nodes."""
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
    """A `FencedSaver` for a batch: same tables, same fence, but one transaction for many threads' writes.

    `known` are the threads that have checkpoints already; for any other nothing needs to be looked up before its
    first write. Use as `async with saver.writing()`. A write that fails raises in the graph that waits for it, as with
    LangGraph's own saver.
    """

    def __init__(self, pool: Pool, claim: Claim, known: Collection[str] = ()) -> None:
        super().__init__(pool, claim)
        self._known = set(known)
        self._group = _Group()
        self._waiting = asyncio.Event()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator["GroupSaver"]:
        """Write what comes as long as the context lasts."""
        writer = asyncio.create_task(self._write_groups())
        try:
            yield self
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The thread's latest checkpoint; none, without asking, for a thread that has none yet."""
        if config["configurable"]["thread_id"] not in self._known:
            return None
        return await super().aget_tuple(config)

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
        group.size += 1
        self._waiting.set()
        await asyncio.shield(group.written)

    async def _write_groups(self) -> None:
        while True:
            await self._waiting.wait()
            if self._group.size < GROUP_LIMIT:
                await asyncio.sleep(GATHER_SECONDS)
            group, self._group = self._group, _Group()
            self._waiting.clear()
            try:
                await outlast(partial(self._write, group))
            except Exception as error:
                group.written.set_exception(error)
                group.written.exception()  # graphs that were cancelled meanwhile don't ask for it
            except asyncio.CancelledError:
                group.written.cancel()
                raise
            else:
                group.written.set_result(None)

    async def _write(self, group: _Group) -> None:
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
