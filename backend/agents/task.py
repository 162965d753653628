"""The synchronous entry: a worker's task runs its agents on an event loop of its own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from backend.agents.cancellation import RunCancelledError
from backend.agents.models import ModelCredentials
from backend.agents.runner import AgentRunner, TaskContext
from backend.core.budget import Budget
from backend.core.settings import Settings
from backend.db.engine import ThreadedDatabase, task_engine

Work = Callable[[AgentRunner], Awaitable[dict[str, Any]]]


class AgentTask:
    """One run of a task's agents that another thread or a signal handler can stop."""

    def __init__(
        self,
        settings: Settings,
        task: TaskContext,
        *,
        budget: Budget | None = None,
        credentials: ModelCredentials | None = None,
    ) -> None:
        self._credentials = credentials
        self.execution_id: str | None = None
        """The run's id in our records, when the task has run."""
        self._settings = settings
        self._budget = budget
        self._task = task
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[dict[str, Any]] | None = None
        self._cancelled = False

    def run(self, work: Work) -> dict[str, Any]:
        """Carry out `work` and write all records. Raises what it raises, and `RunCancelledError` after
        `cancel()` or when somebody cancelled the run."""
        return asyncio.run(self._run(work))

    def cancel(self) -> None:
        """Stop: the model call in flight is dropped and its connection closed. Safe at any time, from any thread."""
        with self._lock:
            self._cancelled = True
            if self._loop is not None and self._running is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._running.cancel)

    async def _run(self, work: Work) -> dict[str, Any]:
        database = ThreadedDatabase(
            task_engine(self._settings.database_url), threads=2, redis_url=self._settings.redis_address
        )
        try:
            async with AgentRunner(
                self._settings, database, self._task, budget=self._budget, credentials=self._credentials
            ) as runner:
                running = asyncio.ensure_future(work(runner))
                with self._lock:
                    self._loop, self._running = asyncio.get_running_loop(), running
                    if self._cancelled:
                        running.cancel()
                try:
                    return await running
                except asyncio.CancelledError:
                    if self._cancelled or runner.cancelled:
                        raise RunCancelledError from None
                    raise
                finally:
                    self.execution_id = runner.execution_id
        finally:
            await database.close()
