"""Reads how long a server asks to wait before the next attempt, from headers or from words."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)(ms|s)?)?")
# "Please try again in 8m38.4s", "Please retry after 20 seconds", "Please retry in 53.01s".
_ADVICE = re.compile(r"(?i)\b(?:try again|retry) (?:in|after) (?=\d)((?:\d+h)?(?:\d+m(?!s))?(?:\d+(?:\.\d+)?m?s?)?)\b")


def wait_asked_for(headers: Mapping[str, str], message: str = "", *, now: datetime | None = None) -> float | None:
    """The seconds to wait according to a response's headers (names in lower case), or else to its message, or None.

    `retry-after-ms` takes precedence over `Retry-After`, which is a number of seconds, an HTTP date (RFC 9110,
    section 10.2.3) or, against the standard, a duration such as "3s". A date
    is relative to the response's own `Date`, so that clocks need not agree. Waits of zero or less, such as until a date
    in the past, are ignored.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if (milliseconds := _number(headers.get(name))) is not None:
            return milliseconds / 1000
    given = headers.get("retry-after")
    if given is not None:
        seconds = _number(given) or duration(given)
        return seconds if seconds is not None else _until(given, headers.get("date"), now)
    return _advised(message)


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _until(date: str, answered: str | None, now: datetime | None) -> float | None:
    then = _moment(date)
    start = _moment(answered) or now or datetime.now(UTC)
    if then is None:
        return None
    seconds = (then - start).total_seconds()
    return seconds if seconds > 0 else None


def _moment(date: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(date) if date else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _advised(message: str) -> float | None:
    found = _ADVICE.search(message)
    return duration(found[1]) if found is not None else None


def duration(text: str) -> float | None:
    """The seconds in "3s", "6m0s" or "250ms"; None if the text is no duration, or one of zero."""
    if (parts := _DURATION.fullmatch(text.strip())) is None:
        return None
    hours, minutes, rest, unit = parts.groups()
    seconds = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest or 0) / (1000 if unit == "ms" else 1)
    return seconds if seconds > 0 else None
