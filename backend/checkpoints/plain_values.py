"""Reads what LangGraph's serializer has written as plain data, for people who look at a run.

The serializer writes an object as its class and the arguments that make another one like it. Nothing here imports such
a class or calls it: the arguments stand for the object. Pickles are never loaded. What Python's own classes write
becomes its usual text.
"""

import json
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import ormsgpack

from backend.checkpoints.input_pictures import PictureUrl, filler, joined


class UnreadableValueError(ValueError):
    """A value is stored in a form that is not read. The message says which."""


def plain(kind: str | None, data: bytes | None, picture: PictureUrl = filler) -> Any:
    """The value that `dumps_typed` of LangGraph's serializer wrote as `kind` and `data`. `picture` returns what stands
    for a picture that was cut out.

    Its parts are plain Python data: what is no JSON, such as bytes, is for `redact` to describe. Raises
    `UnreadableValueError`.
    """
    if kind is None or kind == "null" or data is None:
        return None
    kind, data = joined(kind, data, picture)
    if kind in ("bytes", "bytearray"):
        return data
    try:
        if kind == "json":
            return json.loads(data)
        if kind == "msgpack":
            return _unpack(data)
    except (ValueError, TypeError, RecursionError) as error:
        raise UnreadableValueError(f"its checkpoint can't be read: {type(error).__name__}") from None
    raise UnreadableValueError(f"its checkpoint has the form {kind!r}, which isn't read")


def _unpack(data: bytes) -> Any:
    return ormsgpack.unpackb(data, ext_hook=_object, option=ormsgpack.OPT_NON_STR_KEYS)


# The codes of LangGraph's `jsonplus`. Importing them would load LangChain.
_CALLS = range(6)
_ARRAY = 6
_DELTA_SNAPSHOT = 7


def _object(code: int, data: bytes) -> Any:
    parts = _unpack(data)
    if code == _DELTA_SNAPSHOT:
        return parts
    if code == _ARRAY:
        return _array(*parts)
    if code not in _CALLS:
        return f"[{len(data)} bytes]"
    module, name, arguments = parts[:3]
    written = _TEXTS.get((module, name))
    return arguments if written is None else written(arguments)


def _array(kind: str, shape: tuple[int, ...], order: Any, data: bytes) -> Any:
    import numpy as np  # most values have no arrays

    return np.frombuffer(data, np.dtype(kind)).reshape(shape, order=order).tolist()


def _send(arguments: Any) -> dict[str, Any]:
    return {"node": arguments[0], "arg": arguments[1]}


def _time(parts: Mapping[str, Any]) -> str:
    seconds = f"{parts['hour']:02}:{parts['minute']:02}:{parts['second']:02}"
    return f"{seconds}.{parts['microsecond']:06}" if parts["microsecond"] else seconds


_TEXTS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("uuid", "UUID"): lambda digits: str(UUID(digits)),
    ("datetime", "date"): lambda parts: date(*parts).isoformat(),
    ("datetime", "time"): _time,
    ("datetime", "timedelta"): lambda parts: str(timedelta(*parts)),
    ("re", "compile"): lambda parts: parts[0],
    ("langgraph.types", "Send"): _send,
    **{("pathlib", name): lambda parts: str(PurePosixPath(*parts)) for name in ("Path", "PosixPath", "WindowsPath")},
}


def folded(writes: list[tuple[str, Any]]) -> dict[str, Any]:
    """What a node wrote to each channel, in the form in which LangGraph's stream reports it."""
    found: dict[str, Any] = {}
    for channel, value in writes:
        if found.get(channel) is None:
            found[channel] = value
        elif isinstance(found[channel], dict) and isinstance(found[channel].get("$writes"), list):
            found[channel]["$writes"].append(value)
        else:
            found[channel] = {"$writes": [found[channel], value]}
    return found
