"""How fast the calls of one process may ramp up on a model whose limit isn't known yet."""

MIN_SLEEP = 0.001
"""Seconds."""


class BurstLimit:
    """Caps how fast the calls of one process may ramp up while no limit of the model is known.

    Five hundred calls at once would all be refused before the first 429 is known. So each window of `WINDOW` seconds
    admits at most a certain number of calls: `FIRST_CALLS`, and twice as many after each window that was full. The
    number is reset after `QUIET_SECONDS` without a window that was at least half full.
    """

    WINDOW, FIRST_CALLS, QUIET_SECONDS = 0.2, 10, 60.0

    def __init__(self) -> None:
        self._allowed = self.FIRST_CALLS
        self._window = self._count = 0
        self._busy_at = 0.0

    def wait(self, now: float) -> float:
        """Count a call and return 0.0 if it may start now, else the seconds after which to ask again."""
        window = int(now / self.WINDOW)
        if window != self._window:
            if self._count >= self._allowed / 2:
                self._busy_at = now
            elif now - self._busy_at > self.QUIET_SECONDS:
                self._allowed = self.FIRST_CALLS
            if self._count >= self._allowed:
                self._allowed *= 2
            self._window, self._count = window, 0
        if self._count >= self._allowed:
            return max(MIN_SLEEP, (window + 1) * self.WINDOW - now)
        self._count += 1
        return 0.0
