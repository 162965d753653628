"""Checkpoints in few transactions: what waits to be written goes into one, be it of one thread or of thousands."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from psycopg.errors import SerializationFailure

from backend.checkpoints.fenced_saver import Pool
from backend.core.coalesced_task import OnDemand
from backend.db.outage import connection_lost, outlast
from backend.db.runs.threads import HOLD, Claim, holding

SHARED_GATHER_SECONDS = 0.05
"""How long writes of a batch, or of a triggerer's agents, wait for others' to share a transaction. Graphs don't wait
for it between nodes."""
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


@dataclass(eq=False, slots=True)
class Line:
    """One claim's writes, in order. After an `error` nothing of it is written any more."""

    claim: Claim
    error: Exception | None = None


class Part:
    """What a line has in a group: rows by primary key, as an `INSERT` may not meet the same row twice."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.blobs: Rows = {}
        self.checkpoints: Rows = {}
        self.inserted: Rows = {}
        self.upserted: Rows = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the part is written, or the line has an error."""

    def end(self, error: Exception | None = None) -> None:
        """It is written, or can't be."""
        self.line.error = self.line.error or error
        if not self.done.done():
            self.done.set_result(None)


class CheckpointWriter:
    """Writes the parts of any number of claims, in groups: one transaction, one statement for each table.

    A part waits `gather` seconds for others; what comes while a transaction runs shares the next. What one claim can't
    write, because it is superseded or its rows are refused, takes nobody else's with it. A database that is restarted
    is waited for.
    """

    def __init__(self, pool: Pool, *, gather: float = 0) -> None:
        self._pool = pool
        self._gather = gather
        self._waiting: dict[Line, Part] = {}
        self._size = 0
        self._groups: deque[list[Part]] = deque()
        self._work = OnDemand(self._write_all, "visual-ai-checkpoints")

    def part(self, line: Line) -> Part:
        """Where the line's next rows go: add them, then call `added`."""
        part = self._waiting.get(line)
        if part is None:
            part = self._waiting[line] = Part(line)
        return part

    async def added(self, part: Part) -> None:
        """Something was added to the part. Returns at once, unless the database can't keep up."""
        self._size += 1
        self._work.run()
        if self._size > GROUP_LIMIT:
            await asyncio.shield(part.done)

    async def end(self, part: Part) -> None:
        """Wait until the part is written, or can't be."""
        if not part.done.done():
            self._work.run()
        await asyncio.shield(part.done)

    def close(self) -> None:
        """Write nothing any more."""
        self._work.cancel()

    async def _write_all(self) -> None:
        while self._groups or self._waiting:
            if not self._groups:
                if self._size <= GROUP_LIMIT:
                    await asyncio.sleep(self._gather)
                self._groups.append([*self._waiting.values()])
                self._waiting, self._size = {}, 0
            await self._write(self._groups[0])

    async def _write(self, group: list[Part]) -> None:
        """Write the first group. It stays the first one until it is written: whoever comes after a cancellation goes
        on with it."""
        try:
            held = await outlast(partial(self._insert, group))
        except Exception as error:
            self._groups.popleft()
            if len(group) > 1 and not connection_lost(error):  # what is refused takes nothing else with it
                half = len(group) // 2
                self._groups.extendleft([group[half:], group[:half]])
            else:
                for part in group:
                    part.end(error)
        else:
            self._groups.popleft()
            for part in group:
                part.end(None if part.line.claim in held else _superseded(part.line.claim))

    async def _insert(self, group: Sequence[Part]) -> set[Claim]:
        """Write what may be written; gives the claims that last."""
        claims = {part.line.claim for part in group}
        async with (
            self._pool.connection() as connection,
            connection.pipeline(),
            connection.transaction(),
            connection.cursor() as cursor,
        ):
            await cursor.execute(HOLD, holding(claims))
            lasting = {(row["thread_id"], row["try_number"], row["epoch"]) for row in await cursor.fetchall()}
            held = {claim for claim in claims if (claim.thread_id, claim.try_number, claim.epoch) in lasting}
            given = [part for part in group if part.line.claim in held and part.line.error is None]
            for statement, kind in (
                (_BLOBS, "blobs"),
                (_CHECKPOINTS, "checkpoints"),
                (_INSERT_WRITES, "inserted"),
                (_UPSERT_WRITES, "upserted"),
            ):
                rows = [row for part in given for row in getattr(part, kind).values()]
                if rows:
                    await cursor.execute(statement, [list(column) for column in zip(*rows, strict=True)])
        return held


def _superseded(claim: Claim) -> SerializationFailure:
    return SerializationFailure(
        f"try {claim.try_number} (epoch {claim.epoch}) of {claim.thread_id} was superseded by another claim"
    )
