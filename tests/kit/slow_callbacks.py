"""Measures what each callback of an event loop costs, like asyncio's debug mode, but by the thread's own CPU time.

Wall time, which `loop.slow_callback_duration` compares, also counts what other processes of a busy machine take.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_SAMPLING = 0.003


@dataclass
class Callbacks:
    """The callbacks of one loop that took at least `limit` seconds of CPU time, each with where it spent it."""

    limit: float
    slow: list[tuple[float, str]] = field(default_factory=list)

    def clear(self) -> None:
        """Forget what was measured so far."""
        self.slow.clear()

    def __str__(self) -> str:
        return "\n".join(f"{took * 1000:.0f} ms: {where}" for took, where in sorted(self.slow, reverse=True))


@contextmanager
def measured_callbacks(loop: asyncio.AbstractEventLoop, limit: float) -> Iterator[Callbacks]:
    """Measure the callbacks of a loop of asyncio's own kind while the context lasts."""
    found = Callbacks(limit)
    original = asyncio.Handle._run
    samples: Counter[str] = Counter()
    running: list[int] = []
    stop = threading.Event()

    def run(handle: Any) -> None:
        if handle._loop is not loop:
            original(handle)
            return
        samples.clear()
        running.append(threading.get_ident())
        began = time.thread_time()
        try:
            original(handle)
        finally:
            took = time.thread_time() - began
            running.clear()
            if took >= limit:
                seen = dict(samples.most_common(2))
                found.slow.append((took, f"{handle!r:.300} {seen}"))

    def sample() -> None:
        while not stop.wait(_SAMPLING):
            frame = sys._current_frames().get(running[0]) if running else None
            if frame is not None:
                calls = traceback.extract_stack(frame)[-14:]
                samples[
                    " > ".join(f"{call.filename.rpartition('/')[2]}:{call.lineno} {call.name}" for call in calls)
                ] += 1

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    asyncio.Handle._run = run  # type: ignore[assignment]  # each callback of a loop is run by it
    try:
        yield found
    finally:
        asyncio.Handle._run = original  # type: ignore[method-assign]
        stop.set()
        thread.join()
