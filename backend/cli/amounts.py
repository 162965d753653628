"""Times, counts and money as people read them."""

from datetime import UTC, datetime

NOTHING = "–"


def duration(seconds: float | None) -> str:
    """`0.4 s`, `12.3 s`, `3 min 05 s`, `2 h 03 min`."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def tokens(count: int) -> str:
    """`1 token`, `1,234 tokens`."""
    return f"{count:,} token{'' if count == 1 else 's'}"


def cost(usd: float | None) -> str:
    """`$12.30`, `$0.0123`, `$0.000042`; nothing is known of None."""
    if usd is None:
        return NOTHING
    digits = 2 if usd >= 1 or usd == 0 else 4 if usd >= 0.0001 else 6
    return f"${usd:,.{digits}f}"


def moment(iso: str | None) -> str:
    """A time of the API in the reader's own time zone."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S") if iso else NOTHING


def age(start: str | None, end: str | None) -> float | None:
    """Seconds from start to end, or to now when there is no end yet."""
    if start is None:
        return None
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return (until - datetime.fromisoformat(start)).total_seconds()
