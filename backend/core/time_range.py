"""The `time_range` of a monitoring request, and the width of the buckets of its time series."""

import math
import re
from datetime import timedelta

from backend.core.problems import FieldError, Invalid

MAX_RANGE = timedelta(days=366)

_FORM = re.compile(r"([1-9][0-9]{0,5})([mhd])")  # six digits are enough for the minutes of `MAX_RANGE`
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

_TARGET_BUCKETS = 40
# Each is at most 2.5 times the one before, so that every range gets close to the target.
_WIDTHS = (
    *(timedelta(seconds=seconds) for seconds in (1, 2, 5, 10, 15, 30)),
    *(timedelta(minutes=minutes) for minutes in (1, 2, 5, 10, 15, 30)),
    *(timedelta(hours=hours) for hours in (1, 2, 4, 6, 12)),
    *(timedelta(days=days) for days in (1, 2, 3, 7)),
)


def parse_time_range(text: str) -> timedelta:
    """Parse `15m`, `24h`, `7d` and the like, up to `MAX_RANGE`. Raises `Invalid` for anything else."""
    match = _FORM.fullmatch(text)
    span = int(match[1]) * _UNITS[match[2]] if match else None
    if span is None or span > MAX_RANGE:
        detail = f"Give a whole number of minutes, hours or days, such as 15m, 24h or 7d, up to {MAX_RANGE.days}d."
        raise Invalid(f"?time_range: {detail}", errors=[FieldError("?time_range", detail)])
    return span


def bucket_width(span: timedelta) -> timedelta:
    """The round width that splits `span` into about 40 buckets, between 24 and 64."""
    return min(_WIDTHS, key=lambda width: abs(math.log(span / width / _TARGET_BUCKETS)))
