"""Records what one try of a task does; never blocks or fails the task.

A task puts records into its recorder and goes on. A `RecordWriter`, which may serve hundreds of tasks, writes them
later, in order, and reports back what became of them: how many are still unwritten, how many were dropped, and whether
another try has taken over the task's thread. The task waits for its recorder in three places only: `take_thread` needs
the answer, `flush` and leaving the context wait until everything is settled, and `room` slows down a task that records
faster than the database writes.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Self

from sqlalchemy import Connection

from backend.core.events import NewEvent
from backend.core.states import TaskState
from backend.db.runs import threads, traces
from backend.db.runs.executions import RunState
from backend.db.runs.threads import Claim
from backend.db.runs.traces import Place
from backend.observation.recording.records import Events, Record, RowsWithEvents, StateChange, ThreadClaim
from backend.observation.recording.writer import RecordWriter

log = logging.getLogger(__name__)

QUEUE_LIMIT = 10_000
"""Unwritten records of a task, from which on dispensable ones are left out."""

FLUSH_SECONDS = 70.0
"""A little longer than the writer tries."""


class Recorder:
    """The records of one try, on their way to a `writer`. An asynchronous context manager, which flushes on exit."""

    def __init__(self, writer: RecordWriter, place: Place, run: RunState, *, hidden: list[str] | None = None) -> None:
        self._writer = writer
        self.place = place
        self.run = run
        self.thread_id = threads.thread_of(place.dag_id, place.dag_run_id, place.task_id, place.map_index)
        self.execution_id: str | None = None
        """Known once something has been written."""
        self.claim: Claim | None = None
        """The try's claim on its thread, if it has one. Once it is lost, no more events are appended."""
        self.superseded = False
        """Whether the claim was found to be lost when records were last written."""
        self.dropped = 0
        """Records that could not be written."""
        self.hidden = hidden if hidden is not None else []
        """Secrets that must not appear in any record."""
        self.errors_shown = 0
        """Errors that were reported to the stream."""
        self._unwritten = 0
        self._idle = asyncio.Event()
        self._gave_up = False
        self._overran = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.flush()
        if self.dropped and not self._gave_up:
            self._tell_dropped()
            await self.flush()
        self._writer.forget(self)
        if self.dropped:
            log.error("%s records of this task could not be written to the visual_ai database", self.dropped)

    def put(self, record: Record) -> None:
        """Have a record written soon, after those that were put before it."""
        if self._unwritten >= QUEUE_LIMIT and record.dispensable:
            self.dropped += 1
            return
        self._unwritten += 1
        self._idle.clear()
        self._writer.put(self, record)

    async def take_thread(self, agents: Sequence[str], input_hash: str, *, instance: str | None) -> Claim:
        """Take the task's thread for this try.

        `agents` are the LangGraph threads that belong to it, `input_hash` is that of the agents' input, and `instance`
        is Airflow's id of the task instance. Raises `SupersededError` when a later try holds the thread (a retry
        doesn't help), and `sqlalchemy.exc.OperationalError` when the database has been unavailable for too long.
        """
        answer: asyncio.Future[Claim] = asyncio.get_running_loop().create_future()

        def report(claim: Claim | Exception) -> None:
            if answer.done():  # the task has stopped waiting
                return
            if isinstance(claim, Claim):
                self.claim = claim
                answer.set_result(claim)
            else:
                answer.set_exception(claim)

        self.put(ThreadClaim(agents, input_hash, instance, report, answer.done))
        self._writer.hurry()
        return await answer

    def put_state(self, state: str, *, started_at: datetime, finished_at: datetime | None = None) -> None:
        """Record the task's state, for a task in the triggerer, for which Airflow calls no listener."""
        place = self.place
        duration = (finished_at - started_at).total_seconds() if finished_at is not None else None
        times = (started_at, finished_at, duration)
        self.put(StateChange(TaskState(place.task_id, place.map_index, place.try_number, state, *times)))

    async def check_claim(self) -> bool:
        """Write everything that was put, and report whether the try still holds its thread.

        While the database is unavailable the answer is yes: nobody has shown otherwise.
        """
        if self.claim is not None:
            self.put(Events([]))  # every write checks the claim
            await self.flush()
        return not self.superseded

    def relax(self, interval: float) -> None:
        """Let records wait up to `interval` seconds for others, in a task with very many of them."""
        self._writer.relax(interval)

    async def room(self, limit: int = QUEUE_LIMIT // 2) -> None:
        """Wait until at most `limit` records are unwritten, so that none has to be dropped.

        Like `flush`, it gives up after `FLUSH_SECONDS`, and not a second time for the same outage: the task goes on
        without a database. `flush` still waits for what it has recorded.
        """
        if self._unwritten <= limit or self._overran:
            return
        self._writer.hurry()
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                while self._unwritten > limit:  # noqa: ASYNC110  # an event for each record would cost more
                    await asyncio.sleep(0.02)
        except TimeoutError:
            self._overran = True

    async def flush(self) -> None:
        """Wait until everything that was put is written or dropped.

        Waits up to `FLUSH_SECONDS`, and not a second time for the same outage.
        """
        if not self._unwritten or self._gave_up:
            return
        self._writer.hurry()
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            self._gave_up = True

    def _tell_dropped(self) -> None:
        dropped = self.dropped
        notice = f"{dropped} records of this try are missing: the database did not take them"

        def write(connection: Connection, execution_id: str) -> list[NewEvent]:
            noted = traces.add_notice(connection, execution_id, self.place, notice)
            return [NewEvent("agent_update", traces.payload(row)) for row in noted]

        self.put(RowsWithEvents(write))

    def settle(self, records: int, *, dropped: bool = False) -> None:
        """The writer reports that this many records are written or, with `dropped`, can't be."""
        self._unwritten -= records
        self.dropped += records if dropped else 0
        if not self._unwritten:
            self._idle.set()
            self._gave_up = self._overran = False
