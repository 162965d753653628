"""A graph's checkpoints, which it doesn't wait for: what waits to be written shares transactions with others'."""

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

from backend.checkpoints.batch_writer import CheckpointWriter, Line, Part
from backend.checkpoints.fenced_saver import FencedSaver, Pool
from backend.core.jsonable import dumps
from backend.db.outage import outlast
from backend.db.runs.threads import Claim

log = logging.getLogger(__name__)

CLOSE_SECONDS = 5.0
"""How long the last writes may take."""


class GroupSaver(FencedSaver):
    """A `FencedSaver` with the same tables and the same fence, which leaves its writes to a `writer`, as others do.

    `known` are the threads that have checkpoints already; for any other nothing needs to be looked up before its
    first write. Graphs don't wait for their writes: `flush` does, and so does every reading. Use as
    `async with saver.writing()`.

    A write that fails raises at the graph's next one, or in `flush`. A database that is restarted is waited for: an
    agent that has just paid for an answer doesn't lose it.
    """

    def __init__(self, pool: Pool, claim: Claim, writer: CheckpointWriter, known: Collection[str] = ()) -> None:
        super().__init__(pool, claim)
        self._line = Line(claim)
        self._writer = writer
        self._known = set(known)
        self._part: Part | None = None

    @asynccontextmanager
    async def writing(self) -> AsyncIterator["GroupSaver"]:
        """What still waits when the context ends is written."""
        try:
            yield self
        finally:
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._written()
            except TimeoutError:
                log.warning("the last checkpoints of %s are not written yet", self._line.claim.thread_id)

    async def flush(self) -> None:
        """Wait until everything is written. Raises what made that impossible, `psycopg.OperationalError` above all."""
        await self._written()
        if self._line.error is not None:
            raise self._line.error

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
        part = self._next_part()
        versions = {name: version for name, version in new_versions.items() if name in blobs}
        for row in self._dump_blobs(thread, namespace, blobs, versions):
            part.blobs.setdefault(row[:4], row)
        part.checkpoints[thread, namespace, checkpoint["id"]] = (
            thread,
            namespace,
            checkpoint["id"],
            configurable.get("checkpoint_id"),
            dumps({**checkpoint, "channel_values": inline}),
            dumps(get_serializable_checkpoint_metadata(config, metadata)),
        )
        self._known.add(thread)
        await self._writer.added(part)
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
        part = self._next_part()
        upsert = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        for row in rows:
            key = (*row[:4], row[5])
            if upsert:
                part.upserted[key] = row
            else:
                part.inserted.setdefault(key, row)
        await self._writer.added(part)

    def _next_part(self) -> Part:
        if self._line.error is not None:
            raise self._line.error
        self._part = self._writer.part(self._line)
        return self._part

    async def _written(self) -> None:
        if self._part is not None:
            await self._writer.end(self._part)
