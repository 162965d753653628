"""Writes what agents do to the database, without making them wait and without ever failing them."""

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backend.core.events import NewEvent
from backend.db import events, executions
from backend.db.engine import Database
from backend.db.executions import RunState
from backend.db.threads import Claim, holds
from backend.db.traces import Place

log = logging.getLogger(__name__)

Operation = Callable[[Connection, str], list[NewEvent]]
"""Writes rows for the execution of that id and gives the events that tell of them."""

QUEUE_LIMIT = 10_000
FLUSH_SECONDS = 15.0
_RETRY_DELAYS = (0.2, 0.5, 1.0, 2.0, 4.0)


class Recorder:
    """A queue of writes and one task that carries them out, many in one transaction.

    A database that is out of reach is tried again for some seconds; what can't be written then is dropped and
    counted. Use as an asynchronous context manager: on exit all that was put is written.
    """

    def __init__(self, database: Database, place: Place, run: RunState) -> None:
        self._database = database
        self._place = place
        self._run = run
        self._queue: asyncio.Queue[Operation | None] = asyncio.Queue(QUEUE_LIMIT)
        self._execution_id: str | None = None
        self._writer: asyncio.Task[None] | None = None
        self._batch: list[Operation | None] = []
        self.claim: Claim | None = None
        """The try's claim, if it has one; once it is lost, no event is appended any more."""
        self.dropped = 0
        """Operations that could not be written."""

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._write_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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

    def put(self, operation: Operation) -> None:
        """Have something written, in order, soon."""
        try:
            self._queue.put_nowait(operation)
        except asyncio.QueueFull:
            self.dropped += 1

    async def _write_all(self) -> None:
        ended = False
        while not ended:
            if not self._batch:  # what a cancelled writer had in hand comes first
                self._batch.append(await self._queue.get())
            while not self._queue.empty():
                self._batch.append(self._queue.get_nowait())
            ended = None in self._batch
            operations = [operation for operation in self._batch if operation is not None]
            if operations:
                await self._write(operations)
            self._batch = []

    async def _write(self, operations: list[Operation]) -> None:
        for delay in (*_RETRY_DELAYS, None):
            try:
                await self._database.run(self._carry_out, operations)
            except (SQLAlchemyError, OSError) as error:
                if delay is None:
                    self.dropped += len(operations)
                    log.warning("a record could not be written: %s", type(error).__name__)
                else:
                    await asyncio.sleep(delay)
            except Exception:
                self.dropped += len(operations)
                log.exception("a record could not be written")
                return
            else:
                return

    def _carry_out(self, connection: Connection, operations: list[Operation]) -> None:
        execution_id = self._execution_id or executions.ensure(connection, self._run)
        new: list[NewEvent] = []
        for operation in operations:
            new.extend(operation(connection, execution_id))
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
