"""When so many errors within a time are worth telling."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta


def passed_at(
    times: Sequence[datetime], *, errors: int, within: timedelta, since: datetime, told: datetime | None
) -> list[tuple[datetime, int]]:
    """The moments, from `since` on, at which there were `errors` of them within the time before, and how many.

    `times` are those of the errors, in order. After one moment, or after the last that was `told`, the next is at
    least `within` later: as long as errors keep coming there is one in each such time, and not one for each error.
    """
    found: list[tuple[datetime, int]] = []
    for index, moment in enumerate(times):
        if moment < since or (told is not None and moment < told + within):
            continue
        count = index + 1 - bisect_right(times, moment - within)
        if count >= errors:
            found.append((moment, count))
            told = moment
    return found
