"""Converts anything to JSON text that PostgreSQL accepts, for records that people read.

Nothing here refuses a value: where PostgreSQL can't store the original, a replacement character stands in for it. What
an agent returns is data that others compute with; `exact_json` converts it.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from pydantic_core import to_jsonable_python

MAX_DEPTH = 200
"""Levels of lists and objects that a value may be nested. Later parsers have limits of their own."""

MAX_INPUT_DEPTH = 64
"""The same for what a run is started with, which Airflow renders, serialises and shows, each with limits of its own."""

LARGEST_INTEGER = 2**63 - 1
"""What other parsers of JSON read without loss, and databases store."""

Path = tuple[str | int, ...]
"""The keys and indexes that lead to a part of a value."""

_REPLACEMENT = "\ufffd"

_LONG_NUMBER = re.compile(r"\d{20}")

# U+0000 is valid in JSON but not in jsonb. An escaped backslash followed by `u0000` is something else.
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def to_jsonable(value: Any) -> Any:
    """A copy of `value` that consists of JSON types only, for records: what has no JSON form becomes its `str()`."""
    return to_jsonable_python(value, inf_nan_mode="null", bytes_mode="base64", serialize_unknown=True)


def unstorable(value: Any) -> tuple[Path, str] | None:
    """The first part of a run's input that JSON, PostgreSQL or Airflow does not allow: its path and what is wrong."""
    if not isinstance(value, dict | list):
        fault = fault_of(value)
        return ((), fault) if fault is not None else None
    pending: list[tuple[Path, dict[str, Any] | list[Any]]] = [((), value)]
    while pending:
        path, whole = pending.pop()
        if len(path) >= MAX_INPUT_DEPTH:
            return path, f"is nested more than {MAX_INPUT_DEPTH} levels deep"
        if isinstance(whole, dict):
            for key in whole:
                if (fault := fault_of(key)) is not None:
                    return (*path, key), f"is a key that {fault}"
        parts: Iterable[tuple[str | int, Any]] = whole.items() if isinstance(whole, dict) else enumerate(whole)
        for step, part in parts:
            if isinstance(part, dict | list):
                pending.append(((*path, step), part))
            elif (fault := fault_of(part)) is not None:
                return (*path, step), fault
    return None


def fault_of(value: Any) -> str | None:
    """What JSON or PostgreSQL does not allow about a text or number, and what to do about it."""
    if isinstance(value, str):
        if "\x00" in value:
            return "contains a NUL character (U+0000), which PostgreSQL can't store; remove or replace it"
        if not value.isascii() and not _encodable(value):
            return "contains half of a surrogate pair, which is no character; remove or replace it"
    elif isinstance(value, float):
        if not math.isfinite(value):
            return "is NaN or an infinity, or a number too large for JSON; use null or a text"
    elif isinstance(value, int) and not -LARGEST_INTEGER - 1 <= value <= LARGEST_INTEGER:
        return "is an integer outside 64 bits; send it as a text"
    return None


def _encodable(text: str) -> bool:
    try:
        text.encode()  # a hundred times as fast as a look at each character
    except UnicodeEncodeError:
        return False
    return True


def dumps(value: Any) -> str:
    """Compact JSON text that `jsonb` accepts, with U+FFFD for NUL characters and unpaired surrogates.

    Raises `ValueError` or `TypeError` for what can't be converted at all, such as a list that contains itself; what
    `redact` and `to_json` return always can.
    """
    encoded = json.dumps(to_jsonable(value), separators=(",", ":"), ensure_ascii=False)
    if "\\u0000" in encoded:  # which `ensure_ascii=False` still escapes
        encoded = _NUL.sub(rf"\1{_REPLACEMENT}", encoded)
    return _whole(encoded)


def loads(text: str | bytes) -> Any:
    """The value of JSON text from PostgreSQL, which writes 1e22 as an integer of 23 digits.

    No integer that large can be stored, so it becomes the floating-point number that it was.
    """
    if isinstance(text, bytes):
        text = text.decode()
    return json.loads(text, parse_int=_integer) if _LONG_NUMBER.search(text) else json.loads(text)


def _integer(digits: str) -> int | float:
    number = int(digits)
    return number if -LARGEST_INTEGER - 1 <= number <= 2 * LARGEST_INTEGER + 1 else float(number)


def is_larger(value: Any, limit: int) -> bool:
    """Whether the JSON text of a JSON value has more than `limit` characters, at the cost of writing that many."""
    size = 0
    for piece in json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).iterencode(value):
        size += len(piece)
        if size > limit:
            return True
    return False


def storable(text: str) -> str:
    """`text` in a form that a text column accepts, changed in the same way."""
    return _whole(text.replace("\x00", _REPLACEMENT))


def paired(text: str) -> str:
    """`text` with one character for each surrogate pair: a stream may deliver the halves of an emoji one by one.

    Raises `UnicodeDecodeError` if there are unpaired halves.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    return text


def _whole(text: str) -> str:
    # An unpaired surrogate, which JSON may contain as an escape, can't be encoded in UTF-8.
    try:
        return paired(text)
    except UnicodeDecodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
