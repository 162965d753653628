"""What one try of a task has to record, which it neither waits for nor fails of."""

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from backend.db.runs import threads
from backend.db.runs.executions import RunState
from backend.db.runs.threads import Claim
from backend.db.runs.traces import Place
from backend.observation.recording.records import Record, TakeThread
from backend.observation.recording.writer import RecordWriter

log = logging.getLogger(__name__)

QUEUE_LIMIT = 10_000
FLUSH_SECONDS = 15.0


class Recorder:
    """One task's records on their way to a `writer`, which may be that of many tasks.

    What can't be written is dropped and counted. Use as an asynchronous context manager: on exit all that was put is
    written.
    """

    def __init__(self, writer: RecordWriter, place: Place, run: RunState) -> None:
        self._writer = writer
        self.place = place
        self.run = run
        self.thread_id = threads.thread_of(place.dag_id, place.dag_run_id, place.task_id, place.map_index)
        self.execution_id: str | None = None
        """Known once something was written."""
        self.claim: Claim | None = None
        """The try's claim, if it has one; once it is lost, no event is appended any more."""
        self.superseded = False
        """Whether the claim was found to be lost when something was written."""
        self.dropped = 0
        """Records that could not be written."""
        self.hidden: Sequence[str] = ()
        """Keys that may stand in no record."""
        self.errors_told = 0
        """Errors that the stream was told of."""
        self._unwritten = 0
        self._idle = asyncio.Event()
        self._gave_up = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.flush()
        self._writer.forget(self)
        if self.dropped:
            log.error("%s records of this task could not be written to the visual_ai database", self.dropped)

    def put(self, record: Record) -> None:
        """Have something written, in order, soon."""
        if self._unwritten >= QUEUE_LIMIT:
            self.dropped += 1
            return
        self._unwritten += 1
        self._idle.clear()
        self._writer.put(self, record)

    async def take_thread(self, agents: Sequence[str], input_hash: str, *, instance: str | None) -> Claim:
        """Take the task's thread for this try; see `backend.db.runs.threads.begin`, whose errors it raises, and
        `sqlalchemy.exc.OperationalError` when the database has been out of reach for some time."""
        answer: asyncio.Future[Claim] = asyncio.get_running_loop().create_future()

        def tell(found: Claim | Exception) -> None:
            if answer.done():  # nobody waits any more
                return
            if isinstance(found, Claim):
                self.claim = found
                answer.set_result(found)
            else:
                answer.set_exception(found)

        self.put(TakeThread(agents, input_hash, instance, tell, answer.done))
        self._writer.hurry()
        return await answer

    def relax(self, interval: float) -> None:
        """Let records wait for others for `interval` seconds: of a task that has very many."""
        self._writer.relax(interval)

    async def room(self) -> None:
        """Wait until the queue is at most half full, so that nothing has to be dropped."""
        while self._unwritten > QUEUE_LIMIT // 2:  # noqa: ASYNC110  # an event for each record would cost more
            await asyncio.sleep(0.02)

    async def flush(self) -> None:
        """Wait until all that was put is written or dropped, but not for long, and not twice for the same outage."""
        if not self._unwritten or self._gave_up:
            return
        self._writer.hurry()
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            self._gave_up = True

    def ended(self, records: int, *, dropped: bool = False) -> None:
        """So many records are written, or can't be; the writer says so."""
        self._unwritten -= records
        self.dropped += records if dropped else 0
        if not self._unwritten:
            self._idle.set()
            self._gave_up = False
