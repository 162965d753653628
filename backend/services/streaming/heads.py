"""Heads of executions, read for all who ask at the same time."""

import asyncio

from backend.db.engine import Database
from backend.db.runs import executions
from backend.db.runs.executions import Head

Key = tuple[str, str]


class Heads:
    """One query at a time: who asks while it runs shares the next. What a caller gets was read after it asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted: dict[Key, asyncio.Future[Head | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def get(self, dag_id: str, dag_run_id: str) -> Head | None:
        """The run's head, if it is recorded. Raises SQLAlchemy's errors; a retry may help."""
        key = (dag_id, dag_run_id)
        future = self._wanted.get(key)
        if future is None:
            future = self._wanted[key] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        return await asyncio.shield(future)

    async def _read(self) -> None:
        try:
            while self._wanted:
                wanted, self._wanted = self._wanted, {}
                try:
                    found = await self._database.run_autocommit(executions.heads, list(wanted))
                except Exception as error:
                    for future in wanted.values():
                        future.set_exception(error)
                        future.exception()  # who asked may be gone
                else:
                    for key, future in wanted.items():
                        future.set_result(found.get(key))
        finally:
            self._reading = None
