"""The audit log: what is recorded besides a change itself, what is read, and how long it is kept.

A change records itself, in its own transaction (`backend.db.audit.record`). This is for what changes nothing here, such
as a refusal: it is written soon after, in batches, so that it neither delays a request nor fails with the database.
"""

import asyncio
import logging
import random
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from backend.core.audit import Entry
from backend.db import audit
from backend.db.audit import AuditFilter
from backend.db.engine import Database
from backend.db.rows import Row
from backend.services.background import in_background
from backend.services.runs.page_cursor import decode_numbered_cursor, encode_cursor

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Entries that are kept in memory while the database is away. Further ones are lost, and counted in the log."""

QUIET = 60.0
"""Seconds for which the same refusal isn't recorded again. The next entry says how often it was repeated."""

MAX_PER_MINUTE = 1_000
"""Refusals that one process records in a minute: who has no rights must not fill the table."""

_BATCH = 500
_PAUSE = 2.0
_PRUNING = 3600.0
_PRUNED_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, newest first, and the cursor of the next page."""

    rows: list[Row]
    next_cursor: str | None


class AuditLog:
    """Records and lists entries."""

    def __init__(self, database: Database, *, retention_days: int) -> None:
        self._database = database
        self._days = retention_days
        self._waiting: deque[Entry] = deque()
        self._wake = asyncio.Event()
        self._lost = 0
        self._recent: OrderedDict[tuple[str | None, ...], tuple[float, int]] = OrderedDict()
        self._minute, self._in_minute = 0.0, 0

    async def write(self, entry: Entry) -> None:
        """Record an entry now. Raises `OperationalError`."""
        await self._database.run(audit.add, [entry])

    def note(self, entry: Entry) -> None:
        """Record an entry soon, without waiting. Never raises."""
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            return
        self._waiting.append(entry)
        self._wake.set()

    def note_refusal(self, entry: Entry) -> None:
        """`note` for what may be repeated at will: the same caller's same refusals become one entry a minute."""
        now = time.monotonic()
        address = entry.origin.address if entry.origin is not None else None
        key: tuple[str | None, ...]
        if entry.action == "request.refused":
            key = (entry.action, entry.user_id, entry.credential, address, entry.object)
        else:  # a sign-in may give another name each time
            key = (entry.action, address)
        since, repeated = self._recent.get(key, (-QUIET, 0))
        if now - since < QUIET:
            self._recent[key] = (since, repeated + 1)
            return
        if now - self._minute >= QUIET:
            self._minute, self._in_minute = now, 0
        self._in_minute += 1
        if self._in_minute > MAX_PER_MINUTE:
            self._lost += 1
            return
        self._recent[key] = (now, 0)
        self._recent.move_to_end(key)
        while len(self._recent) > MAX_WAITING:
            self._recent.popitem(last=False)
        self.note(replace(entry, details={**entry.details, "repeated": repeated}) if repeated else entry)

    async def list_page(self, wanted: AuditFilter, *, cursor: str | None, limit: int) -> AuditPage:
        """Entries, newest first. Raises `Invalid` for a malformed cursor."""
        before = decode_numbered_cursor(cursor) if cursor else None
        rows = await self._database.run(audit.list_entries, wanted, before=before, limit=limit + 1)
        page = rows[:limit]
        more = len(rows) > limit
        return AuditPage(page, encode_cursor(page[-1]["occurred_at"], str(page[-1]["id"])) if more else None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write what was noted, and delete what is too old, until the context ends; then write the rest once."""
        async with in_background(self._write_noted(), self._prune()):
            yield
        try:
            async with asyncio.timeout(5):
                await self._flush()
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning("%s entries of the audit log were lost: %s", len(self._waiting), type(error).__name__)

    async def _write_noted(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._flush()
            except (SQLAlchemyError, OSError) as error:
                log.warning("the audit log could not be written, and will be: %s", type(error).__name__)
                await asyncio.sleep(_PAUSE)
                self._wake.set()

    async def _flush(self) -> None:
        """Write what is waiting. What was not written stays."""
        while self._waiting:
            entries = [self._waiting[index] for index in range(min(_BATCH, len(self._waiting)))]
            try:
                await self._database.run(_add, entries)
            except (DataError, IntegrityError):  # one of them can't be written, and must not hold up the others
                entries = entries[:1]
                try:
                    await self._database.run(_add, entries)
                except (DataError, IntegrityError) as error:
                    log.error("an entry of the audit log (%s) was lost: %s", entries[0].action, type(error).__name__)
            for _ in entries:
                self._waiting.popleft()
        if self._lost:
            log.error("%s entries of the audit log were lost: there were too many", self._lost)
            self._lost = 0

    async def _prune(self) -> None:
        while True:
            # Not at the start of a process, and not in all replicas at once.
            await asyncio.sleep(_PRUNING * random.uniform(0.5, 1.0))  # noqa: S311  # nothing secret
            try:
                while await self._database.run(audit.prune, days=self._days, limit=_PRUNED_AT_ONCE) >= _PRUNED_AT_ONCE:
                    pass
            except (SQLAlchemyError, OSError) as error:
                log.warning("old entries of the audit log could not be deleted: %s", type(error).__name__)


def _add(connection: Connection, entries: Sequence[Entry]) -> None:
    for entry in entries:
        if entry.action == "role.change":
            audit.add_role_change(connection, entry)
    if rest := [entry for entry in entries if entry.action != "role.change"]:
        audit.add(connection, rest)
