"""How long a notification waits before its next attempt."""

import random

LONGEST_WAIT = 3600.0
"""Seconds that the backoff grows to."""

LONGEST_ADVICE = 6 * 3600.0
"""Seconds that a receiver may ask to wait: it has a day in all."""


def next_wait(attempt: int, first: float, asked_for: float | None = None) -> float:
    """Seconds to wait after so many attempts: `first` doubled with each, and half of it at random.

    What the receiver asked for (`Retry-After`) goes before a shorter one, with up to a tenth more, so that those who
    were told the same do not come back at the same moment.
    """
    backoff = min(first * 2.0 ** min(attempt - 1, 30), LONGEST_WAIT) * random.uniform(0.5, 1.0)  # noqa: S311  # spread, not secrecy
    if asked_for is None or asked_for < backoff:
        return backoff
    return min(asked_for, LONGEST_ADVICE) * random.uniform(1.0, 1.1)  # noqa: S311  # the same
