"""Text from elsewhere made harmless: what a model or a log says must not steer the terminal."""

# C0 and C1 controls but for line feed and tab, and the characters that turn the direction of text.
_HARMFUL = [code for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)]
_HARMFUL += [0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_REMOVED = dict.fromkeys(_HARMFUL)


def harmless(text: object) -> str:
    """The text without control characters; line breaks and tabs stay."""
    return str(text).translate(_REMOVED)


def one_line(text: object, width: int) -> str:
    """The beginning of the text on one line of at most `width` characters."""
    joined = " ".join(harmless(text).split())
    return joined if len(joined) <= width else joined[: max(width - 1, 0)] + "…"


def last_line(text: object, width: int) -> str:
    """The end of the text on one line of at most `width` characters."""
    joined = " ".join(harmless(text).split())
    return joined if len(joined) <= width else "…" + joined[len(joined) - max(width - 1, 0) :]
