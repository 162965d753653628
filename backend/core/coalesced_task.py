"""A background task that runs only while there is work for it, and only once at a time."""

import asyncio
from collections.abc import Awaitable, Callable


class OnDemand:
    """Runs `work` in a task of its own after each call of `run`, unless it is running already.

    When an event loop shuts down, it cancels all tasks, and some of them still have records to write. `run` then starts
    the work again as soon as the cancelled task has ended.
    """

    def __init__(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        self._work = work
        self._name = name
        self._task: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Start the work unless it is running."""
        if self._task is None or self._task.done() or self._task.cancelling():
            self._task = asyncio.create_task(self._after(self._task), name=self._name)

    def cancel(self) -> None:
        """Cancel the work if it is running."""
        if self._task is not None:
            self._task.cancel()

    async def _after(self, previous: asyncio.Task[None] | None) -> None:
        if previous is not None and not previous.done():
            await asyncio.wait([previous])
        await self._work()
