"""Which sessions have ended before their tokens expired.

Each process keeps them in memory and reads what was added every two thirds of `VISUAL_AI_ACCOUNT_CHECK_INTERVAL`. What
it ends itself counts there at once.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backend.core.audit import Entry
from backend.core.problems import Unavailable
from backend.db import audit
from backend.db.engine import Database
from backend.db.identity import attempts, sessions
from backend.services.background import in_background

log = logging.getLogger(__name__)

CLEANING = 3600.0
"""Seconds between two deletions of what no longer matters."""


class Revocations:
    """The sessions that have ended. Until they were read once, nothing is accepted."""

    def __init__(self, database: Database, *, interval: float, grace: float) -> None:
        self._database = database
        self._pause = interval * 2 / 3
        self._grace = grace
        self._tokens: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._read_up_to: datetime | None = None
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    async def has_ended(self, token_id: str, username: str, issued_at: float) -> bool:
        """Whether a session has ended. Raises `Unavailable` when that isn't known, because PostgreSQL is away."""
        if self._read_at is None or time.monotonic() - self._read_at > self._grace:
            async with self._reading:
                if self._read_at is None or time.monotonic() - self._read_at > self._grace:
                    try:
                        await self._read()
                    except (SQLAlchemyError, OSError) as error:
                        raise Unavailable(
                            "The database is out of reach, so your session can't be checked; try again shortly.",
                            retry_after=5,
                        ) from error
        return token_id in self._tokens or issued_at <= self._not_before.get(username, 0.0)

    async def end(self, token_id: str, username: str, expires_at: float, entry: Entry) -> None:
        """End one session, and record that. Repeating it changes nothing."""

        def end(connection: Connection) -> None:
            if sessions.revoke(connection, token_id, username, expires_at):
                audit.add(connection, [entry])

        await self._database.run(end)
        self._tokens[token_id] = expires_at

    async def end_all(self, username: str, *, by: str, entry: Entry) -> None:
        """End all sessions of a user, and record that."""
        now = time.time()

        def cut_off(connection: Connection) -> None:
            sessions.cut_off(connection, username, now, by=by)
            audit.add(connection, [entry])

        await self._database.run(cut_off)
        self._not_before[username] = max(now, self._not_before.get(username, 0.0))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read what others have ended, and delete what no longer matters, until the context ends."""
        async with in_background(self._follow(), self._clean()):
            yield

    async def _follow(self) -> None:
        while True:
            try:
                await self._read()
            except (SQLAlchemyError, OSError) as error:
                log.warning("ended sessions could not be read: %s", type(error).__name__)
            await asyncio.sleep(self._pause)

    async def _read(self) -> None:
        began = time.monotonic()
        ended = await self._database.run_autocommit(sessions.read_ended, self._read_up_to)
        now = time.time()
        if self._tokens:
            self._tokens = {name: expires for name, expires in self._tokens.items() if expires > now}
        self._tokens |= ended.tokens
        for username, not_before in ended.not_before.items():
            self._not_before[username] = max(not_before, self._not_before.get(username, 0.0))
        self._read_up_to, self._read_at = ended.read_at, began

    async def _clean(self) -> None:
        while True:
            # Not at the start of a process, and not in all replicas at once.
            await asyncio.sleep(CLEANING * random.uniform(0.5, 1.0))  # noqa: S311  # nothing secret
            try:
                await self._database.run(sessions.forget)
                await self._database.run(attempts.forget)
            except (SQLAlchemyError, OSError) as error:
                log.warning("ended sessions could not be deleted: %s", type(error).__name__)
