"""Shows the user at the terminal what is being done and how long each step takes."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_WIDTH = 46
_pending_notes: list[str] = []
_open_steps: list[str] = []


@contextmanager
def step(name: str) -> Iterator[None]:
    """Show `name` while the block runs, then its duration and whether it failed. The block's notes come after it."""
    sys.stdout.write(f"  {name:<{_WIDTH}}")
    sys.stdout.flush()
    _open_steps.append(name)
    started = time.monotonic()
    outcome = "  failed"
    try:
        yield
        outcome = ""
    finally:
        _open_steps.pop()
        print(f"{time.monotonic() - started:6.1f} s{outcome}", flush=True)
        while _pending_notes:
            note(_pending_notes.pop(0))


def done(name: str, seconds: float) -> None:
    """Show a step that was timed elsewhere."""
    print(f"  {name:<{_WIDTH}}{seconds:6.1f} s", flush=True)


def note(text: str) -> None:
    """Show something worth knowing that stops nothing, after the line of the current step."""
    if _open_steps:
        _pending_notes.append(text)
    else:
        print(f"  note: {text}", flush=True)
