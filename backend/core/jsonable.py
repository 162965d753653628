"""Converts anything to JSON text that PostgreSQL accepts, for records that people read.

Nothing here refuses a value: where PostgreSQL can't store the original, a replacement character stands in for it. What
an agent returns is data that others compute with; `exact_json` converts it.
"""

import json
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import orjson
from pydantic_core import from_json, to_jsonable_python

MAX_DEPTH = 200
"""Levels of lists and objects that a value may be nested. Later parsers have limits of their own."""

MAX_INPUT_DEPTH = 64
"""The same for what a run is started with, which Airflow renders, serialises and shows, each with limits of its own."""

LARGEST_INTEGER = 2**63 - 1
"""What other parsers of JSON read without loss, and databases store."""

Path = tuple[str | int, ...]
"""The keys and indexes that lead to a part of a value."""

_REPLACEMENT = "\ufffd"
_NUL = "\\u0000"

_LARGE_FLOAT = re.compile(r"e\+\d{2,3}[,\]}]|e\+\d{2,3}$")
_TEXT_OR_LARGE_FLOAT = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d(?:\.\d+)?e\+\d+')

_LONG_NUMBER = re.compile(r"\d{20}")

# What orjson would write in its own way is left to pydantic, so that every value has one form.
_OPTIONS = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


def to_jsonable(value: Any) -> Any:
    """A copy of `value` that consists of JSON types only, for records: what has no JSON form becomes its `str()`."""
    return to_jsonable_python(value, inf_nan_mode="null", bytes_mode="base64", serialize_unknown=True)


def loads(text: bytes | str) -> Any:
    """The value of a JSON text, with every integer exact. Raises `ValueError`, and `RecursionError` for deep nests.

    Like `json.loads`, which takes three times as long, in all that either accepts.
    """
    try:
        return from_json(text, cache_strings="keys")
    except ValueError:
        return json.loads(text)  # accepts halves of surrogate pairs, and says better what is wrong


def unstorable(value: Any) -> tuple[Path, str] | None:
    """The first part of a run's input that JSON, PostgreSQL or Airflow does not allow: its path and what is wrong."""
    return None if _is_storable(value) else _fault_in(value)


def _is_storable(value: Any) -> bool:
    """Whether nothing is wrong with any part of a value, a third of the time it takes to say where it is."""
    level = [[value]]
    depth = 0
    while True:
        below: list[Any] = []
        for parts in level:
            for part in parts:
                kind = type(part)
                if kind is str:
                    if "\x00" in part or not (part.isascii() or _encodable(part)):
                        return False
                elif kind is dict:
                    for key in part:
                        if "\x00" in key or not (key.isascii() or _encodable(key)):
                            return False
                    below.append(part.values())
                elif kind is list:
                    below.append(part)
                elif kind is int:
                    if not -LARGEST_INTEGER - 1 <= part <= LARGEST_INTEGER:
                        return False
                elif kind is float:
                    if not math.isfinite(part):
                        return False
                elif part is not None and kind is not bool:
                    return False
        if not below:
            return True
        if depth == MAX_INPUT_DEPTH:
            return False
        level, depth = below, depth + 1


def _fault_in(value: Any) -> tuple[Path, str] | None:
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

    `jsonb` keeps all numbers of 64 bits exactly but one: negative zero becomes zero.

    Raises `ValueError` or `TypeError` for what can't be converted at all, such as a list that contains itself; what
    `redact` and `to_json` return always can.
    """
    try:
        encoded = orjson.dumps(value, to_jsonable, _OPTIONS).decode()
    except (orjson.JSONEncodeError, RecursionError):
        # Keys that are no texts, integers beyond 64 bits, halves of surrogate pairs, nests of more than 254 levels.
        encoded = json.dumps(to_jsonable(value), separators=(",", ":"), ensure_ascii=False)
    return _whole(_without_nul(_with_points(encoded)))


def _with_points(encoded: str) -> str:
    """JSON text with 1e22 as `10000000000000000000000.0`: jsonb keeps no exponents, but it keeps digits after a point,
    without which readers take the number for an integer. The digits of 1e23, as an integer, are another number.
    """
    if _LARGE_FLOAT.search(encoded) is None:
        return encoded
    return _TEXT_OR_LARGE_FLOAT.sub(_with_point, encoded)


def _with_point(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith('"') else f"{Decimal(found[0]):f}.0"


def _without_nul(encoded: str) -> str:
    """JSON text with U+FFFD for U+0000, which is valid in JSON but not in jsonb."""
    first, *others = encoded.split(_NUL)
    pieces = [first]
    before = first
    for piece in others:
        # An odd number of backslashes before it: the last one belongs to it, and what follows is plain text.
        escaped = (len(before) - len(before.rstrip("\\"))) % 2
        pieces += [_NUL if escaped else _REPLACEMENT, piece]
        before = piece
    return "".join(pieces) if others else encoded


def loads_stored(text: bytes | str) -> Any:
    """The value of JSON text from PostgreSQL, in which earlier releases stored 1e22 as an integer of 23 digits.

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
