"""Writes what agents do to the database, without making them wait and without ever failing them."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from backend.core.events import NewEvent
from backend.db import events, executions, traces
from backend.db.engine import Database
from backend.db.executions import RunState
from backend.db.threads import Claim, holds
from backend.db.traces import Place

log = logging.getLogger(__name__)

Operation = Callable[[Connection, str], list[NewEvent]]
"""Writes rows for the execution of that id and gives the events that tell of them."""


@dataclass(frozen=True, slots=True)
class TraceRow:
    """A row of `agent_traces` in its present state; all that wait go into one statement. `values` makes the row."""

    values: Callable[[], dict[str, Any]]
    event: NewEvent | None = None


@dataclass(frozen=True, slots=True)
class RunUsage:
    """Tokens and cost (US dollars, None when unknown) to add to the run's totals; added up before they are written."""

    input_tokens: int
    output_tokens: int
    cost: Decimal | None


Record = Operation | TraceRow | RunUsage

QUEUE_LIMIT = 10_000
TRANSACTION_LIMIT = 2_000
"""Records written in one transaction: it holds the execution's row lock."""
INTERVAL_SECONDS = 0.02
FLUSH_SECONDS = 15.0
_RETRY_DELAYS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


class Recorder:
    """A queue of writes and one task that carries them out, many in one transaction.

    A database that is out of reach is tried again for some seconds; what can't be written then is dropped and
    counted. Use as an asynchronous context manager: on exit all that was put is written.
    """

    def __init__(self, database: Database, place: Place, run: RunState) -> None:
        self._database = database
        self._place = place
        self._run = run
        self._queue: asyncio.Queue[Record | None] = asyncio.Queue(QUEUE_LIMIT)
        self._execution_id: str | None = None
        self._writer: asyncio.Task[None] | None = None
        self._batch: list[Record | None] = []
        self.claim: Claim | None = None
        """The try's claim, if it has one; once it is lost, no event is appended any more."""
        self.dropped = 0
        """Records that could not be written."""
        self.hidden: Sequence[str] = ()
        """Keys that may stand in no record."""
        self.errors_told = 0
        """Errors that the stream was told of."""
        self.interval = INTERVAL_SECONDS
        """Seconds between two transactions: with many agents at once, larger ones cost less."""
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._write_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._writer is not None:
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    await self._queue.put(None)
                    await asyncio.wait([self._writer])
                    if self._writer.cancelled():  # the loop is being closed: it cancelled all its tasks
                        await self._write_all()
            except TimeoutError:
                self.dropped += self._queue.qsize()
            finally:
                self._writer.cancel()
        if self.dropped:
            log.error("%s records of this task could not be written to the visual_ai database", self.dropped)

    def put(self, record: Record) -> None:
        """Have something written, in order, soon."""
        try:
            self._queue.put_nowait(record)
        except asyncio.QueueFull:
            self.dropped += 1

    async def room(self) -> None:
        """Wait until the queue is at most half full, so that nothing has to be dropped."""
        while self._queue.qsize() > QUEUE_LIMIT // 2:  # noqa: ASYNC110  # an event for each record would cost more
            await asyncio.sleep(0.02)

    async def _write_all(self) -> None:
        ended = False
        while not ended:
            batch = self._batch  # not empty when a writer was cancelled that had it in hand
            if not batch:
                batch.append(await self._queue.get())
            if batch[0] is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.interval):
                        await self._closing.wait()
            while not self._queue.empty() and len(batch) < TRANSACTION_LIMIT:
                batch.append(self._queue.get_nowait())
            ended = None in batch
            records = [record for record in batch if record is not None]
            if records:
                await self._write(records)
            self._batch = []

    async def _write(self, records: list[Record]) -> None:
        for delay in (*_RETRY_DELAYS, None):
            try:
                await self._database.run(self._carry_out, records)
            except (OperationalError, InterfaceError, PoolTimeout, OSError) as error:
                if delay is None:
                    self.dropped += len(records)
                    log.warning("a record could not be written: %s", type(error).__name__)
                else:
                    await asyncio.sleep(delay)
            except Exception:
                if len(records) > 1:  # what can't be written does not take the others with it
                    await self._write(records[: len(records) // 2])
                    await self._write(records[len(records) // 2 :])
                else:
                    self.dropped += 1
                    log.exception("a record could not be written")
                return
            else:
                return

    def _carry_out(self, connection: Connection, records: list[Record]) -> None:
        execution_id = self._execution_id or executions.ensure(connection, self._run)
        new: list[NewEvent] = []
        rows: list[dict[str, Any]] = []
        used: list[RunUsage] = []
        for record in records:
            if isinstance(record, TraceRow):
                rows.append(record.values())
                if record.event is not None:
                    new.append(record.event)
            elif isinstance(record, RunUsage):
                used.append(record)
            else:
                new.extend(record(connection, execution_id))
        traces.write(connection, execution_id, rows)
        if used:
            costs = [usage.cost for usage in used if usage.cost is not None]
            executions.add_usage(
                connection,
                execution_id,
                input_tokens=sum(usage.input_tokens for usage in used),
                output_tokens=sum(usage.output_tokens for usage in used),
                cost_usd=sum(costs) if costs else None,
            )
        if new and (self.claim is None or holds(connection, self.claim)):
            place = self._place
            events.append_from_try(
                connection,
                execution_id,
                new,
                task_id=place.task_id,
                map_index=place.map_index,
                try_number=place.try_number,
            )
        self._execution_id = execution_id
