"""Records which roles accounts have in Airflow, where limits of roles find them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backend.db.engine import Database
from backend.db.limits import book
from backend.services.background import in_background

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two writes of what has changed."""


class AccountRoles:
    """The roles of accounts as they are looked up, written when they change."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, frozenset[str]] = {}
        self._changed: dict[str, frozenset[str]] = {}

    def note(self, username: str, roles: Collection[str]) -> None:
        """An account was looked up, and has these roles."""
        found = frozenset(roles)
        if self._known.get(username) != found:
            self._changed[username] = found

    async def write(self) -> None:
        """Write what has changed now. Raises `sqlalchemy.exc.SQLAlchemyError`."""
        if not self._changed:
            return
        changed, self._changed = self._changed, {}

        def write(connection: Connection) -> None:
            for username in sorted(changed):
                book.set_roles(connection, username, changed[username])

        try:
            await self._database.run(write)
        except BaseException:
            self._changed = {**changed, **self._changed}
            raise
        self._known.update(changed)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write what changes until the context ends."""
        async with in_background(self._run()):
            yield

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.write()
            except (SQLAlchemyError, OSError) as error:
                log.warning("the roles of accounts could not be recorded: %s", type(error).__name__)
