"""How values are written for people: durations, counts, money, times, and text that can't steer the terminal."""

from datetime import UTC, datetime

NOTHING = "–"

# C0 and C1 control characters except line feed and tab, and the characters that change the direction of text.
_UNSAFE = [code for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)]
_UNSAFE += [0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_REMOVED = dict.fromkeys(_UNSAFE)


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


def size(count: int) -> str:
    """`40 KB`, `1.5 MB`."""
    return f"{count / 1_000:.0f} KB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


def cost(usd: float | None) -> str:
    """`$12.30`, `$0.0123`, `$0.000042`; a dash when the cost is unknown."""
    if usd is None:
        return NOTHING
    digits = 2 if usd >= 1 or usd == 0 else 4 if usd >= 0.0001 else 6
    return f"${usd:,.{digits}f}"


def moment(iso: str | None) -> str:
    """A timestamp of the API in the reader's own time zone."""
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S") if iso else NOTHING


def age(start: str | None, end: str | None) -> float | None:
    """Seconds from `start` to `end`, or until now if there is no end yet."""
    if start is None:
        return None
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return (until - datetime.fromisoformat(start)).total_seconds()


def safe(text: object) -> str:
    """The text without control characters: what a model or a log says must not steer the terminal. Line breaks and tabs
    are kept."""
    return str(text).translate(_REMOVED)


def first_line(text: object, width: int) -> str:
    """The beginning of the text on a single line of at most `width` characters."""
    joined = " ".join(safe(text).split())
    return joined if len(joined) <= width else joined[: max(width - 1, 0)] + "…"


def last_line(text: object, width: int) -> str:
    """The end of the text on a single line of at most `width` characters."""
    joined = " ".join(safe(text).split())
    return joined if len(joined) <= width else "…" + joined[len(joined) - max(width - 1, 0) :]
