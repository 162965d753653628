"""Counts the streams of users who have a limit of them, across all backends.

Each backend has a row per user, which it confirms every few seconds and whenever a stream ends; rows of a backend that
has died stop counting by themselves. Where no such limit is set, nothing is counted.
"""

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backend.core.limits import LimitUse, fold
from backend.db.engine import Database
from backend.db.limits import book, streams
from backend.services.background import in_background
from backend.services.limits.admission import Admission, refused
from backend.services.limits.roles import AccountRoles

log = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two signs of life."""


class StreamLimits:
    """The streams of one backend that count."""

    def __init__(self, database: Database, admission: Admission, roles: AccountRoles) -> None:
        self._database = database
        self._admission = admission
        self._roles = roles
        self._process_id = str(uuid.uuid4())
        self._open: Counter[str] = Counter()
        self._ended = asyncio.Event()
        # What is written about this process is written in the order in which it is true.
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def counted(self, username: str) -> AsyncIterator[None]:
        """Count a stream of this user while it is served. Raises `TooManyRequests`."""
        if not await self._admission.exist("streams") or not await self._count(username):
            yield
            return
        try:
            yield
        finally:
            self._open[fold(username)] -= 1
            self._ended.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Give signs of life until the context ends."""
        async with in_background(self._run()):
            yield
        self._open.clear()
        with suppress(SQLAlchemyError, OSError):
            await self._confirm()

    async def _count(self, username: str) -> bool:
        """Whether the stream counts: no limit applies to the user otherwise."""

        def count(connection: Connection) -> tuple[bool, LimitUse | None]:
            limits = book.applying(connection, ["streams"], username, None)
            return bool(limits), streams.open_one(connection, limits, self._process_id, username) if limits else None

        await self._roles.write()
        async with self._lock:
            limited, use = await self._database.run(count)
            if limited and use is None:
                self._open[fold(username)] += 1
        if use is not None:
            await self._admission.count(use)
            raise refused(use)
        return limited

    async def _confirm(self) -> None:
        async with self._lock:
            await self._database.run(streams.confirm, self._process_id, +self._open)

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._ended.wait()
            ended = self._ended.is_set()
            self._ended.clear()
            if not ended and not +self._open:
                continue
            try:
                await self._confirm()
            except (SQLAlchemyError, OSError) as error:
                log.warning("open streams could not be counted: %s", type(error).__name__)
