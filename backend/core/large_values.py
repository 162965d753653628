"""Work on large values, such as an input of megabytes, which must not hold up the event loop.

Python code in a thread lets the loop's thread run every few milliseconds, so everybody else hardly notices. There is
one such thread in a process: with several, the loop would wait for each of them in turn.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

LARGE = 64 * 1024
"""Bytes of JSON, more or less, above which a value is large. Up to here all that is done to one takes a few
milliseconds."""

_PART = 8
"""What each part of a value counts besides its text, in bytes."""

T = TypeVar("T")

_thread = ThreadPoolExecutor(1, thread_name_prefix="visual-ai-large-values")


async def in_thread(function: Callable[[], T]) -> T:
    """What `function` returns, called in the thread for large values, one after another."""
    return await asyncio.get_running_loop().run_in_executor(_thread, function)


async def apart(value: Any, function: Callable[[], T]) -> T:
    """What `function` returns, called in the thread if `value`, on which it works, is large, or else here."""
    return await in_thread(function) if is_large(value) else function()


def is_large(value: Any) -> bool:
    """Whether a value, JSON or not, has more than about `LARGE` bytes. Looks at no more parts than that takes."""
    left = LARGE
    pending = [value]
    while pending:
        part = pending.pop()
        left -= _PART
        if isinstance(part, str | bytes):
            left -= len(part)
        elif isinstance(part, dict):
            left -= _PART * len(part)
            if left > 0:
                left -= sum(len(key) for key in part if isinstance(key, str))
                pending.extend(part.values())
        elif isinstance(part, list | tuple):
            left -= _PART * len(part)
            if left > 0:
                pending.extend(part)
        if left <= 0:
            return True
    return False
