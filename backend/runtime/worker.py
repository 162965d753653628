"""Runs agents in a worker: the synchronous entry point, with an event loop for each task."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from langgraph.types import Durability

from backend.core.asking.terms import QuestionTerms
from backend.core.budget import Budget
from backend.core.settings import Settings
from backend.db.engine import ThreadedDatabase, task_engine
from backend.models.resolve import ModelCredentials
from backend.runtime.cancellation import run_cancelled
from backend.runtime.runner import AgentRunner, TaskContext

P = ParamSpec("P")
T = TypeVar("T")

LEAVE_SECONDS = 5.0
"""How long a task that has succeeded waits for work that its graph left behind in threads."""

Work = Callable[[AgentRunner], Awaitable[dict[str, Any]]]


class NodeThreads(ThreadPoolExecutor):
    """The threads of an event loop, in which graphs' synchronous nodes run.

    A blocking call in a thread can't be stopped, but it ends with the task's process. So the loop, when it is closed,
    waits for such calls no longer than `leave_seconds`.
    """

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="visual-ai-node")
        self.leave_seconds = 0.0
        self._under_way: set[Future[Any]] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        future = super().submit(fn, *args, **kwargs)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002  # prescribed
        """Start nothing new, and wait up to `leave_seconds` for running calls."""
        super().shutdown(wait=False, cancel_futures=True)
        if wait:
            futures.wait([*self._under_way], timeout=self.leave_seconds)


class AgentTask:
    """One run of a task's agents that another thread or a signal handler can stop."""

    def __init__(
        self,
        settings: Settings,
        task: TaskContext,
        *,
        budget: Budget | None = None,
        credentials: ModelCredentials | None = None,
        durability: Durability | None = "async",
        terms: QuestionTerms | None = None,
    ) -> None:
        self._credentials = credentials
        self._terms = terms
        self._durability = durability
        self.execution_id: str | None = None
        """The run's id in our records; known once the task has run."""
        self._settings = settings
        self._budget = budget
        self._task = task
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[dict[str, Any]] | None = None
        self._runner: AgentRunner | None = None
        self._cancelled = False

    def run(self, work: Work) -> dict[str, Any]:
        """Carry out `work` and write all records. Raises what it raises, and an `AgentFailure` with
        `RunCancelledError` after `cancel()` or when somebody cancelled the run."""
        return asyncio.run(self._run(work))

    def cancel(self) -> None:
        """Stop: the model call in flight is dropped and its connection closed. Safe at any time, from any thread."""
        with self._lock:
            self._cancelled = True
            if self._loop is not None and self._running is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._runner is not None and self._running is not None:
            self._runner.stop()
            self._running.cancel()

    async def _run(self, work: Work) -> dict[str, Any]:
        threads = NodeThreads()
        asyncio.get_running_loop().set_default_executor(threads)
        database = ThreadedDatabase(
            task_engine(self._settings.database_url), threads=2, redis_url=self._settings.redis_address
        )
        try:
            async with AgentRunner(
                self._settings,
                database,
                await self._task.verified(database),
                budget=self._budget,
                credentials=self._credentials,
                durability=self._durability,
                terms=self._terms,
            ) as runner:
                running = asyncio.ensure_future(work(runner))
                with self._lock:
                    self._loop, self._running, self._runner = asyncio.get_running_loop(), running, runner
                    if self._cancelled:
                        self._stop()
                try:
                    result = await running
                    threads.leave_seconds = LEAVE_SECONDS
                    return result
                except asyncio.CancelledError:
                    if runner.cancelled:
                        raise run_cancelled() from None
                    raise
                finally:
                    self.execution_id = runner.execution_id
        finally:
            await database.close()
