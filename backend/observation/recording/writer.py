"""Writes the records of many tasks in few transactions, without blocking or failing any of them.

Records are queued per task. A transaction takes what has arrived within a short interval, a limited number of records,
each task's in order; while it runs, the next one gathers. What goes wrong is handled without the tasks:

- A database that is unavailable, read-only or locked is retried for a minute. What can't be written by then is dropped
  and counted; the reconciler closes what it leaves open.
- What the database refuses is isolated by halving the group until the refused record is alone, and dropped.
- A writer that many tasks share postpones the records of a run that another transaction has locked: they return to the
  front of their queue, and nobody else waits for that lock.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

from backend.core.coalesced_task import OnDemand
from backend.db.engine import Database
from backend.db.outage import temporary
from backend.observation.recording.records import Entry, Record, RecordSource, WriteReport, write_records

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.02
SHARED_INTERVAL_SECONDS = 0.1
"""Time between two transactions where hundreds of agents share a process."""
TRANSACTION_LIMIT = 2_000
"""Records in one transaction, which holds the executions' row locks."""
_RETRY_DELAYS = (0.2, 0.5, 1.0, 2.0, *[4.0] * 15)


class RecordWriter:
    """The writer of one task, or of all tasks of an event loop. See the module for how it works."""

    def __init__(self, database: Database, *, shared: bool = False) -> None:
        """A `shared` writer postpones records of locked executions, and shortens its interval for nobody."""
        self._database = database
        self._shared = shared
        self._interval = SHARED_INTERVAL_SECONDS if shared else INTERVAL_SECONDS
        self._waiting: dict[RecordSource, deque[Record]] = {}
        self._groups: deque[list[Entry]] = deque()
        self._ready = asyncio.Event()
        self._work = OnDemand(self._write_all, "visual-ai-records")

    def relax(self, interval: float) -> None:
        """Write every `interval` seconds, for a task with very many records. A shared writer keeps its own interval."""
        if not self._shared:
            self._interval = interval

    def put(self, source: RecordSource, record: Record) -> None:
        self._waiting.setdefault(source, deque()).append(record)
        self._work.run()

    def hurry(self) -> None:
        """Don't wait for the interval: a task is waiting for what is queued."""
        if not self._shared:
            self._ready.set()
        self._work.run()

    def forget(self, source: RecordSource) -> None:
        """Drop what is still queued for a source."""
        records = self._waiting.pop(source, ())
        if records:
            source.settle(len(records), dropped=True)

    def close(self) -> None:
        self._work.cancel()

    async def _write_all(self) -> None:
        while self._groups or self._waiting:
            if not self._groups:
                await self._gather()
                self._groups.append(self._next_group())
            if self._groups[0]:
                await self._write(self._groups[0])
            else:
                self._groups.popleft()

    async def _gather(self) -> None:
        timer = asyncio.get_running_loop().call_later(self._interval, self._ready.set)
        try:
            await self._ready.wait()
        finally:
            timer.cancel()
        self._ready.clear()

    def _next_group(self) -> list[Entry]:
        group: list[Entry] = []
        for source in list(self._waiting):
            records = self._waiting.pop(source)
            while records and len(group) < TRANSACTION_LIMIT:
                record = records.popleft()
                if record.abandoned:
                    source.settle(1)
                else:
                    group.append((source, record))
            if records:  # behind the others
                self._waiting[source] = records
            if len(group) >= TRANSACTION_LIMIT:
                break
        return group

    async def _write(self, group: list[Entry]) -> None:
        """Write the first group. It stays the first one until it is written: a successor of a cancelled `_write_all`
        repeats it."""
        for delay in (*_RETRY_DELAYS, None):
            try:
                report = await self._database.run(write_records, group, wait=not self._shared)
            except Exception as error:
                if temporary(error) and delay is not None:
                    await asyncio.sleep(delay)
                    continue
                self._groups.popleft()
                if len(group) > 1 and not temporary(error):  # the refused record must not take others with it
                    half = len(group) // 2
                    self._groups.extendleft([group[half:], group[:half]])
                else:
                    self._drop(group, error)
                return
            else:
                self._groups.popleft()
                self._settle(group, report)
                return

    def _settle(self, group: list[Entry], report: WriteReport) -> None:
        for source, execution_id in report.ids.items():
            source.execution_id = execution_id
        for source in report.superseded:
            source.superseded = True
        for request, claim in report.claims:
            request.answer(claim)
        postponed = {source for source, _ in report.postponed}
        for source, record in group:
            if source in report.missing:
                self._drop([(source, record)], LookupError("the run's records don't exist any more"))
            elif source not in postponed:
                source.settle(1)
        if postponed:
            self._postpone(report.postponed, postponed)

    def _postpone(self, entries: Sequence[Entry], sources: set[RecordSource]) -> None:
        """Return entries to the front of their queues, before those that were to be written after them."""
        behind = [entry for group in self._groups for entry in group if entry[0] in sources]
        self._groups = deque([entry for entry in group if entry[0] not in sources] for group in self._groups)
        for source, record in reversed([*entries, *behind]):
            self._waiting.setdefault(source, deque()).appendleft(record)

    def _drop(self, group: list[Entry], error: Exception) -> None:
        if temporary(error):
            log.warning("a record could not be written: %s", type(error).__name__)
        else:
            log.error("a record could not be written", exc_info=error)
        for source, record in group:
            source.settle(1, dropped=True)
            record.fail(error)
