"""What runs in the background of a process for as long as it serves."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

AGAIN_SECONDS = 6.0
"""When who has not ended is cancelled once more. Longer than psycopg takes to give up a statement, which is 5 s."""


@asynccontextmanager
async def in_background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines beside the context, and end them with it.

    They are cancelled until they have ended: a library that is cancelled in the middle of a statement may raise the
    statement's error instead, and who goes on after errors would go on for ever.
    """
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        left = set(tasks)
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)
