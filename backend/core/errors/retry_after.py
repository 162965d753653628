"""Reads how long a server asks to wait before the next attempt: in headers, in words, or in the response's body."""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_UNIT = r"ms|milli(?:second)?s?|s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|d(?:ays?)?"
_PART = re.compile(rf"(?i)(\d+(?:\.\d+)?)\s*({_UNIT})\b|(\d+(?:\.\d+)?)({_UNIT})(?=\d)")
_LENGTH = rf"(?:\d+(?:\.\d+)?\s*(?:{_UNIT})(?:(?:\s*,)?\s*(?:and\s+)?(?=\d)|\b))+"
_DURATION = re.compile(rf"(?i)\s*(?:{_LENGTH}|\d+(?:\.\d+)?)\s*")
# "Please try again in 8m38.4s", "Please retry after 20 seconds", "wait 2 minutes", "resets in 3h", "retry after 20."
_ADVICE = re.compile(
    rf"(?i)\b(?:(?:try|trying) again|(?<!no )retry(?:ing)?|wait(?:ing)?|resets?|available(?: again)?|renews?)"
    rf"(?: (?:in|after|for|at least|about|your request|another))* (?=\d)({_LENGTH}|\d+(?:\.\d+)?(?!\s*[\w%]|\.\d))"
)
_MOMENT_ADVICE = re.compile(
    r"(?i)\b(?:again|retry|wait|resets?|available|renews?)(?: (?:at|until|after|on|again))+ "
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?: ?(?:Z|UTC|[+-]\d\d:?\d\d))?)"
)
# Google's, printed: `retry_delay { seconds: 34 }`, or in a body that is no JSON: `"retryDelay": "34s"`.
_DELAY = re.compile(r"(?i)\bretry_?delay\W{1,8}(?:seconds\W{1,4})?(\d+(?:\.\d+)?)(?:s\b|(?![\w.]))")

_RESET = re.compile(
    r"^(?:x-ratelimit-reset(?:-(?P<a>.+))?|anthropic-ratelimit-(?P<b>.+)-reset|(?:x-)?rate-?limit-reset)$"
)
_LONG = 1.0
"""A limit that isn't used up says nothing about the wait, unless it is this long, in seconds."""
_FIRST_MOMENT = 1_000_000_000  # a larger number of seconds is a date
_KEYS = {"retrydelay": 1.0, "retryafter": 1.0, "retryafterseconds": 1.0, "retryinseconds": 1.0, "retryafterms": 0.001,
         "waitseconds": 1.0, "resetsinseconds": 1.0, "ratelimitreset": 1.0, "xratelimitreset": 1.0}  # fmt: skip
_DEPTH = 6


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
    return _advised(message, headers, now) if given is None else _wait(given, headers, now)


def wait_until_reset(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """The seconds until a limit that is used up is reset, by headers such as `x-ratelimit-reset-requests`, or None.

    These are durations ("1m30s", "6ms"), seconds or dates, also as seconds or milliseconds since 1970. All responses
    carry them, so they mean a wait only where a limit was exceeded. Of several limits, the one that lasts longest
    counts; one that says that something of it remains only counts from a second up.
    """
    waits = [0.0]
    for name, given in headers.items():
        if (found := _RESET.match(name)) is None or (wait := _wait(given, headers, now)) is None:
            continue
        limit = found["a"] or found["b"]
        remaining = [f"x-ratelimit-remaining-{limit}", f"anthropic-ratelimit-{limit}-remaining"] if limit else []
        left = next((headers[each] for each in (*remaining, "x-ratelimit-remaining") if each in headers), None)
        if wait >= _LONG or left is None or _number(left) is None:
            waits.append(wait)
    return max(waits) or None


def wait_in_body(body: Any, headers: Mapping[str, str] | None = None, *, now: datetime | None = None) -> float | None:
    """The seconds to wait according to a field of a body, such as Google's `retryDelay`, wherever in it that stands."""
    waits = (wait for key, value in _fields(body, _DEPTH) if (wait := _field_wait(key, value, headers or {}, now)))
    return next(waits, None)


def _fields(value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if not depth:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield re.sub(r"[^a-z]", "", str(key).lower()), item
        for item in value.values():
            yield from _fields(item, depth - 1)
    elif isinstance(value, list | tuple):
        for item in value[:20]:
            yield from _fields(item, depth - 1)


def _field_wait(key: str, value: Any, headers: Mapping[str, str], now: datetime | None) -> float | None:
    if (factor := _KEYS.get(key)) is None or isinstance(value, bool):
        return None
    if isinstance(value, Mapping):  # a duration of Protocol Buffers
        seconds, nanos = _number(str(value.get("seconds") or "")), _number(str(value.get("nanos") or ""))
        return (seconds or 0) + (nanos or 0) / 1e9 or None
    if isinstance(value, str | int | float) and (wait := _wait(str(value), headers, now)) is not None:
        return wait if _number(str(value)) is None else wait * factor
    return None


def _wait(given: str, headers: Mapping[str, str], now: datetime | None) -> float | None:
    """The seconds in a header's value: a number, a duration or a date."""
    if (number := _number(given)) is not None:
        if number < _FIRST_MOMENT:
            return number
        seconds = number / 1000 if number >= _FIRST_MOMENT * 1000 else number
        start = _moment(headers.get("date")) or now or datetime.now(UTC)
        return max(0.0, seconds - start.timestamp()) or None
    return duration(given) or _until(given, headers.get("date"), now)


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
    """A date as HTTP or ISO 8601 writes it."""
    if not date:
        return None
    for parse in (parsedate_to_datetime, lambda text: datetime.fromisoformat(text.strip().replace(" UTC", "Z"))):
        try:
            moment = parse(date)
        except (ValueError, TypeError, OverflowError):
            continue
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return None


def _advised(message: str, headers: Mapping[str, str], now: datetime | None) -> float | None:
    if (found := _ADVICE.search(message) or _DELAY.search(message)) is not None:
        return duration(found[1])
    moment = _MOMENT_ADVICE.search(message)
    return _until(moment[1], headers.get("date"), now) if moment is not None else None


def duration(text: str) -> float | None:
    """The seconds in "3s", "6m0s", "250ms" or "1 minute 5 seconds"; None if the text is no duration, or one of zero."""
    if _DURATION.fullmatch(text) is None:
        return None
    if (number := _number(text)) is not None:
        return number
    seconds = 0.0
    for found in _PART.finditer(text):
        unit = (found[2] or found[4]).lower()
        seconds += float(found[1] or found[3]) * _UNITS["ms" if unit.startswith(("ms", "milli")) else unit[0]]
    return seconds if seconds > 0 else None
