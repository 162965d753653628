"""Coroutines that run in the background of a process for as long as it serves."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

CANCEL_INTERVAL = 6.0
"""Seconds after which a task that has not ended is cancelled again. Longer than the 5 s that psycopg takes to give up a
statement."""


@asynccontextmanager
async def in_background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines as tasks while the context is active, and cancel them on exit.

    They are cancelled repeatedly until they have ended: a library that is cancelled in the middle of a statement may
    raise the statement's error instead of `CancelledError`, and a loop that survives errors would then never end.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        pending = set(tasks)
        while pending:
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=CANCEL_INTERVAL)


def retrieve(task: asyncio.Task[Any]) -> None:
    """A task's done callback: retrieve the error of work that nobody waits for, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()
