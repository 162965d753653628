"""Waiting for what another task, thread or process does."""

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Return as soon as the condition holds. Raises `TimeoutError` when it does not within so many seconds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # the condition is not ours to signal
            await asyncio.sleep(0.01)
