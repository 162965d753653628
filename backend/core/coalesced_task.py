"""Work of an event loop that is done by one asyncio task at a time, and by none when there is none."""

import asyncio
from collections.abc import Awaitable, Callable


class OnDemand:
    """Begins `work` when there is some; whoever wants it done says `run`, as often as they like.

    A loop that is closed cancels all its tasks, and some of them still have something to say: then `run` begins the
    work again, when the cancelled one has let go of it.
    """

    def __init__(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        self._work = work
        self._name = name
        self._task: asyncio.Task[None] | None = None

    def run(self) -> None:
        """See to it that somebody works."""
        if self._task is None or self._task.done() or self._task.cancelling():
            self._task = asyncio.create_task(self._after(self._task), name=self._name)

    def cancel(self) -> None:
        """Stop working."""
        if self._task is not None:
            self._task.cancel()

    async def _after(self, former: asyncio.Task[None] | None) -> None:
        if former is not None and not former.done():
            await asyncio.wait([former])
        await self._work()
