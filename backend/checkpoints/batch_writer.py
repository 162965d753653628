"""Writes checkpoints of many threads in few transactions.

A graph hands over two or three checkpoint operations per node, and a transaction for each of them would cost more than
everything else the recorder writes. So operations are queued, and one transaction takes everything that is waiting: of
one thread for a single agent, of hundreds for a batch or a triggerer.

How it works:

- The operations of one claim are a `WriteSequence`. They are carried out in the order in which they were added, by
  LangGraph's own `PostgresSaver`, so nothing here knows the layout of its tables.
- Each transaction begins with the fence: it locks the thread rows of the claims that still hold their threads, so that
  nobody can take one over before the commit. Operations of superseded claims are left out.
- What the database refuses fails alone: the batch is halved until the refused operations are by themselves. A sequence
  that has failed stays failed, because later checkpoints build on earlier ones.
- A lost connection, a time limit or a read-only database is not an error of the sequence. The whole batch is repeated
  for up to `outage.OUTAGE_SECONDS`; every operation may be repeated.

Transactions run in a thread of the writer's own: a busy event loop can't keep row locks waiting, and nodes that block
all other threads can't hold up checkpoints.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from psycopg import Connection, Pipeline
from psycopg.rows import DictRow

from backend.checkpoints.pool import CONNECTION
from backend.core.coalesced_task import OnDemand
from backend.db.address import plain_url
from backend.db.outage import retry_until_available, temporary
from backend.db.runs.threads import HOLD, Claim, holding, superseded

SHARED_GATHER_SECONDS = 0.05
"""How long operations of a batch's items, or of a triggerer's agents, wait for others to share a transaction. Graphs
don't wait for it between nodes."""
BATCH_LIMIT = 500
"""Operations waiting at which graphs have to wait for the database."""

Operation = Callable[[Connection[DictRow], Pipeline], Any]
"""Calls a `PostgresSaver` made for this connection and pipeline. May be repeated after a lost connection."""


@dataclass(eq=False, slots=True)
class WriteSequence:
    """The operations of one claim, in order. After an `error` none of them is carried out any more."""

    claim: Claim
    error: Exception | None = None
    last: "Pending | None" = None
    """The operation that was added last, with those that share its transaction."""


class Pending:
    """Operations of one sequence that share a transaction."""

    def __init__(self, sequence: WriteSequence) -> None:
        self.sequence = sequence
        self.operations: list[Operation] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Set when the operations are committed or the sequence has an error."""

    def end(self, error: Exception | None = None) -> None:
        """The operations are committed or, with an `error`, can't be."""
        self.sequence.error = self.sequence.error or error
        if not self.done.done():
            self.done.set_result(None)


class _Unsynchronized(Pipeline):
    """A pipeline that `PostgresSaver` can't flush: it would wait for the server after every single operation.

    The pipeline around the transaction sends everything and reports what failed.
    """

    def sync(self) -> None:
        """Do nothing."""


class CheckpointWriter:
    """Carries out the operations of any number of claims. See the module for how, and `BatchedSaver` for its user."""

    def __init__(self, database_url: str, *, gather: float = 0) -> None:
        """An operation waits `gather` seconds for others; what arrives while a transaction runs shares the next one."""
        self._database_url = database_url
        self._gather = gather
        self._waiting: dict[WriteSequence, Pending] = {}
        self._size = 0
        self._batches: deque[list[Pending]] = deque()
        self._work = OnDemand(self._write_all, "visual-ai-checkpoints")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="visual-ai-checkpoints")
        self._connection: Connection[DictRow] | None = None  # used by the thread only

    def add(self, sequence: WriteSequence, operation: Operation) -> Pending:
        pending = self._waiting.get(sequence)
        if pending is None:
            pending = self._waiting[sequence] = Pending(sequence)
        pending.operations.append(operation)
        self._size += 1
        self._work.run()
        return pending

    async def room(self, pending: Pending) -> None:
        """Wait until the operations are committed if the database can't keep up; else return at once."""
        if self._size > BATCH_LIMIT:
            await asyncio.shield(pending.done)

    async def wait_for(self, pending: Pending) -> None:
        """Wait until the operations are committed, or their sequence has an error."""
        if not pending.done.done():
            self._work.run()
        await asyncio.shield(pending.done)

    def close(self) -> None:
        """Stop. A transaction that is under way comes to its end in the thread; nothing else is written."""
        self._work.cancel()
        self._thread.submit(self._disconnect)
        self._thread.shutdown(wait=False)

    async def _write_all(self) -> None:
        while self._batches or self._waiting:
            if not self._batches:
                if self._size <= BATCH_LIMIT:
                    await asyncio.sleep(self._gather)
                self._batches.append([*self._waiting.values()])
                self._waiting, self._size = {}, 0
            await self._write(self._batches[0])

    async def _write(self, batch: list[Pending]) -> None:
        """Write the first batch. It stays the first one until it is written: a successor of a cancelled `_write_all`
        repeats it, in the same thread."""
        try:
            held = await retry_until_available(partial(self._commit, batch))
        except Exception as error:
            self._batches.popleft()
            if len(batch) > 1 and not temporary(error):  # the refused operations must not take others with them
                half = len(batch) // 2
                self._batches.extendleft([batch[half:], batch[:half]])
            else:
                for pending in batch:
                    pending.end(error)
        else:
            self._batches.popleft()
            for pending in batch:
                pending.end(None if pending.sequence.claim in held else superseded(pending.sequence.claim))

    async def _commit(self, batch: Sequence[Pending]) -> set[Claim]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transact, batch)

    def _transact(self, batch: Sequence[Pending]) -> set[Claim]:
        """Carry out the operations of claims that still hold their threads, and return these claims."""
        claims = {pending.sequence.claim for pending in batch}
        connection = self._connect()
        with connection.pipeline(), connection.transaction():
            found = connection.execute(HOLD, holding(claims)).fetchall()
            fenced = {(row["thread_id"], row["try_number"], row["epoch"]) for row in found}
            held = {claim for claim in claims if (claim.thread_id, claim.try_number, claim.epoch) in fenced}
            pipeline = _Unsynchronized(connection)
            for pending in batch:
                if pending.sequence.claim in held and pending.sequence.error is None:
                    for operation in pending.operations:
                        operation(connection, pipeline)
        return held

    def _connect(self) -> Connection[DictRow]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(plain_url(self._database_url), **CONNECTION)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
