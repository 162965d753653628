"""Checks the operator's limits where the backend admits something: runs, batches, uploads and streams.

Which limits there are is known for `KNOWN_SECONDS`, so that nothing is asked where none is set. Model calls are checked
where they are made (`backend.runtime.budget.call_limits`).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backend.core.limits import SPEND, Kind, LimitUse
from backend.core.problems import FieldError, Invalid, TooManyRequests, Unavailable
from backend.db.engine import Database
from backend.db.limits import book, usage
from backend.services.limits.roles import AccountRoles

log = logging.getLogger(__name__)

KNOWN_SECONDS = 1.0
"""How long a process knows which kinds of limits there are. Its own changes count at once."""

RETRY_SECONDS = 15.0
"""When to ask again after a refusal that ends when something else does."""


class Admission:
    """Admits what limits permit, and counts what it refuses."""

    def __init__(self, database: Database, roles: AccountRoles) -> None:
        self._database = database
        self._roles = roles
        self._kinds: frozenset[Kind] | None = None
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()
        self.refusals: dict[str, int] = {}
        """What was refused since counting began, by kind of limit, as last read; in all processes together."""

    def forget(self) -> None:
        """The limits have changed."""
        self._read_at = float("-inf")

    async def exist(self, *kinds: Kind) -> bool:
        """Whether there are limits of these kinds.

        While the database is away, what is known still counts. Raises `Unavailable` if nothing is.
        """
        async with self._lock:
            began = time.monotonic()
            if began - self._read_at >= KNOWN_SECONDS:
                self._read_at = began
                try:
                    self._kinds = frozenset(await self._database.run_autocommit(book.kinds))
                except (SQLAlchemyError, OSError) as error:
                    log.warning("the operator's limits can't be read: %s", type(error).__name__)
        if self._kinds is None:
            raise Unavailable("The operator's limits can't be read; try again shortly.", retry_after=5)
        return not self._kinds.isdisjoint(kinds)

    async def check_spend(self, user: str, dag_id: str) -> None:
        """Check that a user who wants to run this DAG has tokens and money left. Raises `TooManyRequests`."""
        if not await self.exist(*SPEND):
            return
        await self._roles.write()

        def check(connection: Connection) -> LimitUse | None:
            for use in usage.of_limits(connection, book.applying(connection, SPEND, user, dag_id), user):
                if use.used_up:
                    return use
            return None

        await self._refuse(await self._database.run(check))

    @asynccontextmanager
    async def slot(self, execution_id: str, user: str, dag_id: str) -> AsyncIterator[None]:
        """A place among the runs that a user may have at once, for a run that starts in the context and is recorded as
        active when it ends. Raises `TooManyRequests`."""
        if not await self.exist("runs_at_once"):
            yield
            return
        await self._roles.write()

        def take(connection: Connection) -> LimitUse | None:
            limits = book.applying(connection, ["runs_at_once"], user, dag_id)
            return usage.take_slot(connection, limits, execution_id, user, dag_id) if limits else None

        await self._refuse(await self._database.run(take))
        try:
            yield
        finally:
            try:
                await self._database.run(usage.free_slot, execution_id)
            except SQLAlchemyError as error:  # it expires
                log.warning("a run's slot could not be freed: %s", type(error).__name__)

    async def check_batch(self, user: str, count: int) -> None:
        """Check that a user may trigger this many runs with one request. Raises `Invalid`."""
        if not await self.exist("batch_size"):
            return
        await self._roles.write()
        limits = await self._database.run(book.applying, ["batch_size"], user, None)
        for limit in limits:
            if count > limit.amount:
                await self._count(limit.kind)
                detail = f"has {count} entries; the operator's limit {limit.label} permits fewer: send it in parts"
                raise Invalid(f"/inputs: {detail}", errors=[FieldError("/inputs", detail)])

    async def upload_check(self, user: str) -> Callable[[Connection, int], LimitUse | None] | None:
        """What checks, in the transaction that stores an upload, whether this many more bytes are permitted; None where
        there are no such limits."""
        if not await self.exist("upload_bytes"):
            return None
        await self._roles.write()

        def check(connection: Connection, size: int) -> LimitUse | None:
            limits = book.applying(connection, ["upload_bytes"], user, None)
            usage.lock(connection, limits)
            for use in usage.of_limits(connection, limits, user):
                if (use.used or 0) + size > use.limit.amount:
                    return use
            return None

        return check

    async def count(self, use: LimitUse) -> None:
        """Count a refusal. Never raises."""
        await self._count(use.limit.kind)

    async def refresh(self) -> None:
        """Read what was refused. Never raises."""
        try:
            self.refusals = await self._database.run(book.count_refusals)
        except (SQLAlchemyError, OSError) as error:
            log.warning("the refusals of limits could not be read: %s", type(error).__name__)

    async def _refuse(self, use: LimitUse | None) -> None:
        if use is not None:
            await self._count(use.limit.kind)
            raise refused(use)

    async def _count(self, kind: Kind) -> None:
        try:
            await self._database.run(book.count_refusal, kind)
        except (SQLAlchemyError, OSError) as error:
            log.warning("a refusal could not be counted: %s", type(error).__name__)


def refused(use: LimitUse, asked: str = "") -> TooManyRequests:
    """The problem that reports a limit that is reached."""
    resets = use.resets_at
    wait = (resets - use.now).total_seconds() if resets is not None else RETRY_SECONDS
    return TooManyRequests(use.refusal(asked), retry_after=max(1.0, wait))
