"""Deletes the events of runs that finished long ago, what conversations have streamed and those whose time is over, the
pieces of large values that were downloaded, and what limits no longer count.

States, usage, errors and results are kept.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError

from backend.core.settings import Settings
from backend.db.conversations import conversations, frames
from backend.db.engine import Database
from backend.db.limits import streams, trigger_windows, usage
from backend.db.runs import events, value_text
from backend.services.background import in_background

log = logging.getLogger(__name__)

INTERVAL = 3600.0
BATCH = 100
"""Runs whose events are deleted in one transaction, so that locks are short however much there is to delete."""


class EventRetention:
    """Prunes once an hour. Several replicas may prune at the same time."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._age = settings.event_retention_days * 86_400
        self._frames_age = settings.frame_retention_hours * 3_600
        self._database = database

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Prune until the context ends."""
        async with in_background(self._run()):
            yield

    async def prune(self) -> int:
        """Delete old events and return how many. Raises `OperationalError`; a retry continues with the rest."""
        total = 0
        while True:
            runs, deleted = await self._database.run(events.prune, older_than=self._age, limit=BATCH)
            total += deleted
            if runs < BATCH:
                return total

    async def prune_conversations(self) -> None:
        """Delete what conversations have streamed long ago, and those whose time is over. Raises `OperationalError`."""
        while (await self._database.run(frames.prune, older_than=self._frames_age, limit=BATCH))[0] == BATCH:
            pass
        while await self._database.run(conversations.delete_expired, limit=BATCH) == BATCH:
            pass

    async def _run(self) -> None:
        while True:
            # Not at the start of a process, and not in all replicas at once.
            await asyncio.sleep(INTERVAL * random.uniform(0.5, 1.0))  # noqa: S311  # nothing secret
            try:
                await self._database.run(value_text.forget)
                for forget in (usage.forget, streams.forget, trigger_windows.forget):
                    await self._database.run(forget)
                await self.prune_conversations()
                if total := await self.prune():
                    log.info("deleted %s events of runs that finished long ago", total)
            except SQLAlchemyError as error:
                log.warning("old events could not be deleted: %s", type(error).__name__)
