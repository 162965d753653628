"""Stops running agents within a second after their run was cancelled."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from sqlalchemy.exc import SQLAlchemyError

from backend.core.workflow_error_handler import AgentFailure, classify
from backend.db.engine import Database
from backend.db.runs import executions

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two queries."""


class RunCancelledError(RuntimeError):
    """A user cancelled the run. A retry doesn't help."""

    def __init__(self) -> None:
        super().__init__("the run was cancelled")


def run_cancelled() -> AgentFailure:
    """The failure of a task whose run was cancelled. Its agents have recorded that already."""
    error = RunCancelledError()
    return AgentFailure(error, classify(error), recorded=True)


class CallStop(BaseCallbackHandler):
    """Refuses the model calls of an agent that has ended.

    A synchronous node runs in a thread, which can't be stopped; this way it makes no further calls.
    """

    raise_error = True  # what it raises ends the call before it is made
    run_inline = True

    def __init__(self, finished: Callable[[], bool]) -> None:
        self._finished = finished

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """Raise an error, which nobody receives, if the agent has ended."""
        if self._finished():
            raise RuntimeError("the agent was stopped: no further model call is made")

    on_llm_start = on_chat_model_start


class CancelWatch:
    """Watches the runs of all agents of a process, with one query per second, and none while there are no agents."""

    def __init__(self, database: Database, interval: float = INTERVAL) -> None:
        self._database = database
        self._interval = interval
        self._watched: dict[str, set[asyncio.Task[Any]]] = {}
        self._poller: asyncio.Task[None] | None = None
        self.cancelled: set[str] = set()
        """Executions that were cancelled while they were watched."""

    @asynccontextmanager
    async def watching(self, execution_id: str, task: "asyncio.Task[Any]") -> AsyncIterator[None]:
        """Cancel `task` when the execution is cancelled."""
        self._watched.setdefault(execution_id, set()).add(task)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            yield
        finally:
            tasks = self._watched[execution_id]
            tasks.discard(task)
            if not tasks:
                del self._watched[execution_id]
                self.cancelled.discard(execution_id)
            if not self._watched and self._poller is not None:
                self._poller.cancel()
                with suppress(asyncio.CancelledError):
                    await self._poller
                self._poller = None

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                found = await self._database.run(executions.cancelled_among, list(self._watched))
            except (SQLAlchemyError, OSError) as error:
                log.warning("could not check whether runs were cancelled: %s", type(error).__name__)
                continue
            for execution_id in found - self.cancelled:
                self.cancelled.add(execution_id)
                for task in self._watched.get(execution_id, ()):
                    task.cancel()
