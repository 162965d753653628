"""Writes records of any number of tasks to the database, many in one transaction, without ever failing anybody."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from backend.core.coalesced_task import OnDemand
from backend.db.engine import Database
from backend.observation.recording.records import Entry, Record, TakeThread, Teller, Written, carry_out

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 0.02
SHARED_INTERVAL_SECONDS = 0.1
"""Between two transactions where hundreds of agents share a process: fewer transactions."""
TRANSACTION_LIMIT = 2_000
"""Records written in one transaction: it holds the executions' row locks."""
_RETRY_DELAYS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


class RecordWriter:
    """One for a task, or for all tasks of an event loop.

    A database that is out of reach is tried again for some seconds; what can't be written then is dropped. So is, at
    once, what the database refuses, and nothing else with it. Each task's records are written in order.
    """

    def __init__(self, database: Database, *, shared: bool = False) -> None:
        """A `shared` one lets nobody wait for an execution that somebody else has locked, and hurries for nobody."""
        self._database = database
        self._shared = shared
        self._interval = SHARED_INTERVAL_SECONDS if shared else INTERVAL_SECONDS
        self._waiting: dict[Teller, deque[Record]] = {}
        self._groups: deque[list[Entry]] = deque()
        self._ready = asyncio.Event()
        self._work = OnDemand(self._write_all, "visual-ai-records")

    def relax(self, interval: float) -> None:
        """Let records of a task that has very many of them wait for longer, unless the writer is shared."""
        if not self._shared:
            self._interval = interval

    def put(self, teller: Teller, record: Record) -> None:
        """Have a record written."""
        queue = self._waiting.get(teller)
        if queue is None:
            queue = self._waiting[teller] = deque()
        queue.append(record)
        self._work.run()

    def hurry(self) -> None:
        """Somebody waits for what was put so far."""
        if not self._shared:
            self._ready.set()
        self._work.run()

    def forget(self, teller: Teller) -> None:
        """Drop what still waits of a teller."""
        records = self._waiting.pop(teller, ())
        if records:
            teller.ended(len(records), dropped=True)

    def close(self) -> None:
        """Write nothing any more."""
        self._work.cancel()

    async def _write_all(self) -> None:
        while self._groups or self._waiting:
            if not self._groups:
                await self._wait_for_others()
                self._groups.append(self._next_group())
            if self._groups[0]:
                await self._write(self._groups[0])
            else:
                self._groups.popleft()

    async def _wait_for_others(self) -> None:
        timer = asyncio.get_running_loop().call_later(self._interval, self._ready.set)
        try:
            await self._ready.wait()
        finally:
            timer.cancel()
        self._ready.clear()

    def _next_group(self) -> list[Entry]:
        group: list[Entry] = []
        for teller in list(self._waiting):
            records = self._waiting.pop(teller)
            while records and len(group) < TRANSACTION_LIMIT:
                record = records.popleft()
                if isinstance(record, TakeThread) and record.given_up():
                    teller.ended(1)
                else:
                    group.append((teller, record))
            if records:  # behind the others
                self._waiting[teller] = records
            if len(group) >= TRANSACTION_LIMIT:
                break
        return group

    async def _write(self, group: list[Entry]) -> None:
        """Write the first group. It stays the first one until it is written: whoever comes after a cancellation goes
        on with it."""
        for delay in (*_RETRY_DELAYS, None):
            try:
                written = await self._database.run(carry_out, group, wait=not self._shared)
            except (OperationalError, InterfaceError, PoolTimeout, OSError) as error:
                if delay is None:
                    self._groups.popleft()
                    self._drop(group, error)
                else:
                    await asyncio.sleep(delay)
            except Exception as error:
                self._groups.popleft()
                if len(group) > 1:  # what can't be written does not take the others with it
                    half = len(group) // 2
                    self._groups.extendleft([group[half:], group[:half]])
                else:
                    self._drop(group, error)
                return
            else:
                self._groups.popleft()
                self._written(group, written)
                return

    def _written(self, group: list[Entry], written: Written) -> None:
        for teller, execution_id in written.ids.items():
            teller.execution_id = execution_id
        for teller in written.lost:
            teller.superseded = True
        for taken, claim in written.taken:
            taken.answer(claim)
        later = {teller for teller, _ in written.put_off}
        for teller, record in group:
            if teller in written.gone:
                self._drop([(teller, record)], LookupError("there is no such run any more"))
            elif teller not in later:
                teller.ended(1)
        if later:
            self._put_off(written.put_off, later)

    def _put_off(self, entries: Sequence[Entry], later: set[Teller]) -> None:
        """To the front of what waits, with what was to be written behind it."""
        behind = [entry for group in self._groups for entry in group if entry[0] in later]
        self._groups = deque([entry for entry in group if entry[0] not in later] for group in self._groups)
        for teller, record in reversed([*entries, *behind]):
            self._waiting.setdefault(teller, deque()).appendleft(record)

    def _drop(self, group: list[Entry], error: Exception) -> None:
        if isinstance(error, OperationalError | InterfaceError | PoolTimeout | OSError):
            log.warning("a record could not be written: %s", type(error).__name__)
        else:
            log.error("a record could not be written", exc_info=error)
        for teller, record in group:
            teller.ended(1, dropped=True)
            if isinstance(record, TakeThread):
                record.answer(error)
