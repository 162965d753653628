"""An event loop whose clock jumps to the next timer whenever nothing is ready: hours pass in milliseconds, and a test
with timers gives the same result each time."""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """For code that waits only for timers and other tasks, not for threads, processes or the network."""

    # asyncio's own, the same since 3.4
    _ready: Any
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self._moment = 1_000_000.0

    def time(self) -> float:
        """Virtual seconds, which only the loop advances."""
        return self._moment

    def _run_once(self) -> None:
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)._scheduled = False  # type: ignore[attr-defined]
        if not self._ready and self._scheduled:
            self._moment = max(self._moment, self._scheduled[0].when())
        super()._run_once()  # type: ignore[misc]


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a virtual loop of its own, where jitter is the same each time as well."""
    before = random.getstate()
    random.seed(1)
    try:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(work)
    finally:
        random.setstate(before)
