"""How long, and in which steps, to wait for a backend that went away."""

import random
import time

from backend.cli.errors import Unreachable

_FIRST = 1.0
_LONGEST = 15.0


class Patience:
    """Waits between attempts: doubling from one second to fifteen, spread so that a thousand clients don't come at
    once. After `limit` seconds without success it ends."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._since: float | None = None
        self._next = _FIRST

    def wait(self, failure: Unreachable) -> float:
        """Seconds to wait before the next attempt. Raises the failure when patience is at its end."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self.limit:
            raise failure
        step, self._next = self._next, min(self._next * 2, _LONGEST)
        return max(failure.retry_after or 0.0, step * random.uniform(0.5, 1.0))  # noqa: S311  # no secret

    def rewarded(self) -> None:
        """An attempt succeeded."""
        self._since, self._next = None, _FIRST
