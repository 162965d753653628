"""How quickly one process may call a model more often than it has lately, while no limit of the model is known.

Five hundred calls at once would meet a limit five hundred times before anybody has heard of it. So the calls of a fifth
of a second may be twice as many as the most of the last minute or two: from nothing to five hundred in a second.
"""

from backend.core.ratelimit.adaptive_rate import IDLE_SECONDS, RAMP_STEP

LEAST_CALLS = 10
"""So many calls may go within `RAMP_STEP` whatever there was before."""


class Surge:
    """Counts the calls of one process to one model. Times are seconds of any clock that only goes forward."""

    def __init__(self) -> None:
        self._window = 0
        self._count = self._count_before = 0
        self._period = 0
        self._peak = self._peak_before = 0

    def take(self, now: float) -> float:
        """Count a call, if it may go now: 0.0. Otherwise the seconds after which to ask again."""
        self._roll(now)
        if self._count >= max(LEAST_CALLS, 2 * max(self._peak, self._peak_before)):
            return max(1e-3, (self._window + 1) * RAMP_STEP - now)
        self._count += 1
        return 0.0

    def count(self, now: float) -> None:
        """Count a call that something else let go."""
        self._roll(now)
        self._count += 1

    def rate(self, now: float) -> float:
        """How many calls a second there are: the most of this fifth of a second and the one before it."""
        self._roll(now)
        return max(self._count, self._count_before) / RAMP_STEP

    def _roll(self, now: float) -> None:
        window = int(now / RAMP_STEP)
        if window == self._window:
            return
        period = int(self._window * RAMP_STEP / IDLE_SECONDS)
        if period != self._period:
            self._peak_before = self._peak if period == self._period + 1 else 0
            self._peak, self._period = 0, period
        self._peak = max(self._peak, self._count)
        self._count_before = self._count if window == self._window + 1 else 0
        self._window, self._count = window, 0
