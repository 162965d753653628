"""Converts whatever an agent returns to JSON that PostgreSQL accepts."""

import json
import math
import re
from typing import Any

from pydantic_core import to_jsonable_python

MAX_DEPTH = 200
"""Levels of lists and objects that a client's JSON may be nested. Later parsers have limits of their own."""

LARGEST_INTEGER = 2**63 - 1
"""What other parsers of JSON read without loss, and databases store."""

# U+0000 is valid in JSON but not in jsonb. An escaped backslash followed by `u0000` is something else.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def to_jsonable(value: Any) -> Any:
    """A copy of `value` that consists of JSON types only.

    Models, dataclasses, dates, sets and decimals get their usual JSON form. NaN and infinities become null, bytes
    become base64, and anything else its `str()`.
    """
    return to_jsonable_python(value, inf_nan_mode="null", bytes_mode="base64", serialize_unknown=True)


def unstorable(value: Any) -> tuple[tuple[str | int, ...], str] | None:
    """The first part of a parsed JSON value that JSON or PostgreSQL does not allow: its path and what is wrong."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while pending:
        path, part = pending.pop()
        if (fault := _fault(part)) is not None:
            return path, fault
        if isinstance(part, dict | list) and len(path) >= MAX_DEPTH:
            return path, f"is nested more than {MAX_DEPTH} levels deep"
        if isinstance(part, dict):
            for key, below in part.items():
                if isinstance(key, str) and (fault := _fault(key)) is not None:
                    return (*path, key), f"is a key that {fault}"
                pending.append(((*path, key), below))
        elif isinstance(part, list):
            pending.extend(((*path, index), below) for index, below in enumerate(part))
    return None


def _fault(value: Any) -> str | None:
    if isinstance(value, str):
        if "\x00" in value:
            return "contains a NUL character (U+0000)"
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            return "contains half of a surrogate pair"
    elif isinstance(value, float):
        if not math.isfinite(value):
            return "is NaN or an infinity, or a number too large for JSON; use null or a text"
    elif isinstance(value, int) and not -LARGEST_INTEGER - 1 <= value <= LARGEST_INTEGER:
        return "is an integer outside 64 bits; send it as a text"
    return None


def dumps(value: Any) -> str:
    """Compact JSON text that `jsonb` accepts: without NUL characters, and with `?` for unpaired surrogates."""
    encoded = json.dumps(to_jsonable(value), separators=(",", ":"), ensure_ascii=False)
    # `ensure_ascii=False` still escapes U+0000.
    return _whole(_NUL.sub(r"\1", encoded))


def storable(text: str) -> str:
    """`text` in a form that a text column accepts, changed in the same way."""
    return _whole(text.replace("\x00", ""))


def _whole(text: str) -> str:
    # An unpaired surrogate, which JSON may contain as an escape, can't be encoded in UTF-8.
    return text.encode("utf-8", "replace").decode()
