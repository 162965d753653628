"""Tells the person at the terminal what is being done and how long it took."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_WIDTH = 46


@contextmanager
def step(name: str) -> Iterator[None]:
    """Show `name` while the block runs, then its seconds, or that it failed."""
    sys.stdout.write(f"  {name:<{_WIDTH}}")
    sys.stdout.flush()
    started = time.monotonic()
    try:
        yield
    except BaseException:
        print(f"{time.monotonic() - started:6.1f} s  failed")
        raise
    print(f"{time.monotonic() - started:6.1f} s")


def done(name: str, seconds: float) -> None:
    """Show a step that was measured elsewhere."""
    print(f"  {name:<{_WIDTH}}{seconds:6.1f} s")


def note(text: str) -> None:
    """Show something worth knowing that stops nothing."""
    print(f"  note: {text}")
