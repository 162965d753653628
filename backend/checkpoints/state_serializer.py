"""Serializes the values of a graph's state so that a resumed graph gets the same values, or is told which it can't get.

LangGraph's own serializer refuses NumPy's scalars, and loses a few values without a word: halves of surrogate pairs
become question marks, and arrays of objects become None. Such values are rare but looking for them is cheap, so each
value is scanned first. What Python's own types can express is converted to them: scalars to numbers, and arrays that
hold objects, dates, records or masked values to lists. Anything else raises `NotKeptError`.
"""

import copy
import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import orjson
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Send

from backend.checkpoints.input_pictures import InputPictures
from backend.core.exact_json import no_form
from backend.core.jsonable import LARGEST_INTEGER, Path, paired
from langgraph_flow_host.wire import Serialized

LONGEST_INLINE = 2_000
"""Characters of a text that LangGraph keeps in each checkpoint. Longer ones are kept once, like everything else."""

_DEEPEST = 500
"""Levels of lists and objects in a value that has to be converted. LangGraph's own limit is about twice that."""

_DEEP = 100
_TOO_DEEP = "is nested too deep for a checkpoint; keep flatter data, or a text"

_HARMLESS = frozenset({int, float, bool, type(None), bytes})
_ODD_ARRAYS = frozenset("OVMm")  # objects, records, dates and time spans


class NotKeptError(ValueError):
    """A value can't be kept in a checkpoint.

    `path` are the keys and indexes that lead to it, the channel first. `source` is LangGraph's id of the node's
    execution that wrote it, or the checkpoint's source: `input`, or `loop` for what a reducer made.
    """

    def __init__(self, path: Path, fault: str, source: str = "") -> None:
        super().__init__(fault)
        self.path = path
        self.fault = fault
        self.source = source

    def of(self, channel: str) -> "NotKeptError":
        """The same error, about a part of a channel's value."""
        return NotKeptError((channel, *self.path), self.fault, self.source)

    def written_by(self, source: str) -> "NotKeptError":
        """The same error, with its source."""
        return NotKeptError(self.path, self.fault, source)


class StateSerializer(JsonPlusSerializer):
    """LangGraph's serializer for whatever graphs keep in their states. Raises `NotKeptError`."""

    def __init__(self, largest: int | None = None) -> None:
        """`largest` is the limit on one value, in bytes."""
        super().__init__()
        self._largest = largest
        self.pictures = InputPictures()

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        if isinstance(obj, Serialized):
            kind, data = obj.kind, obj.data
        else:
            kind, data = self._serialized(obj)
        if self._largest is not None and len(data) > self._largest:
            fault = f"has {len(data):,} bytes, more than VISUAL_AI_MAX_STATE_BYTES allows; store it elsewhere"
            raise NotKeptError((), fault)
        return self.pictures.cut(kind, data)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return super().loads_typed(self.pictures.restored(*data))

    def _serialized(self, value: Any) -> tuple[str, bytes]:
        if _needs_care(value):
            value = _Conversion().convert(value)
        try:
            return super().dumps_typed(value)
        except (TypeError, ValueError, RecursionError):
            path, fault = self._refused(value)
            raise NotKeptError(path, fault) from None

    def _refused(self, value: Any) -> tuple[Path, str]:
        """The innermost part that can't be serialized, and why."""
        path: list[str | int] = []
        around = {id(value)}
        while len(path) < _DEEPEST:
            for key, part in _parts(value):
                if id(part) in around:
                    return (*path, key), "contains itself; keep plain data"
                if not self._serializes(part):
                    path.append(key)
                    around.add(id(part))
                    value = part
                    break
            else:
                if len(path) < _DEEP:
                    return tuple(path), _fault(value)
                break
        return tuple(path[:10]), _TOO_DEEP

    def _serializes(self, value: Any) -> bool:
        try:
            super().dumps_typed(value)
        except (TypeError, ValueError, RecursionError):
            return False
        return True


class PassingSerializer(StateSerializer):
    """Writes what a `StateSerializer` does, with the same pictures, and reads nothing: values stay `Serialized`."""

    def __init__(self, other: StateSerializer) -> None:
        super().__init__(other._largest)
        self.pictures = other.pictures

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return Serialized(*self.pictures.restored(*data))


def is_long(value: Any) -> bool:
    """Whether a value is a text that should not be repeated in each checkpoint."""
    return isinstance(value, str) and len(value) > LONGEST_INLINE


def fits_inline(value: Any) -> bool:
    """Whether a number or text survives in PostgreSQL's `jsonb`."""
    if isinstance(value, str):
        return "\x00" not in value and _encodable(value)
    return not isinstance(value, float) or math.isfinite(value)


_PLAIN_ONLY = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


def _is_plain_data(value: Any) -> bool:
    """Whether orjson, which looks at a large list thirty times as fast as Python, finds nothing but JSON in it."""
    try:
        orjson.dumps(value, option=_PLAIN_ONLY)
    except (orjson.JSONEncodeError, RecursionError):
        return False
    return True


def _needs_care(value: Any) -> bool:
    """Whether a value has parts that LangGraph's serializer refuses or changes."""
    if isinstance(value, list | dict) and _is_plain_data(value):
        return False
    pending, seen = [value], set()
    while pending:
        part = pending.pop()
        kind = type(part)
        if kind in _HARMLESS:
            continue
        if kind is str:
            if not _encodable(part):
                return True
        elif id(part) not in seen:
            seen.add(id(part))
            if kind is dict:
                pending.extend(part.keys())
                pending.extend(part.values())
            elif isinstance(part, list | tuple | set | frozenset | deque):
                pending.extend(part)
            elif hasattr(part, "dtype"):
                if not getattr(part, "ndim", 0) or part.dtype.kind in _ODD_ARRAYS or hasattr(part, "mask"):
                    return True
            elif isinstance(part, Mapping | range):
                return True
            elif isinstance(part, Send):
                pending.append(part.arg)
            else:
                pending.extend(getattr(part, "__dict__", {}).values())
    return False


def _encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Conversion:
    """Rebuilds a value with Python's own types."""

    def __init__(self) -> None:
        self._path: list[str | int] = []

    def convert(self, value: Any) -> Any:
        if len(self._path) > _DEEPEST:
            raise NotKeptError(tuple(self._path[:10]), _TOO_DEEP)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {self._inside(_step(key), key): self._inside(_step(key), part) for key, part in value.items()}
        if isinstance(value, list | tuple | set | frozenset | deque):
            parts = [self._inside(index, part) for index, part in enumerate(value)]
            kind: Any = type(value)
            return (
                kind(*parts) if hasattr(value, "_fields") else kind(parts)
            )  # a named tuple takes its parts one by one
        if isinstance(value, range):
            return list(value)
        if hasattr(value, "dtype") and hasattr(value, "tolist"):
            return self._of_numpy(value)
        if isinstance(value, Send):
            return Send(value.node, self._inside("arg", value.arg), timeout=value.timeout)
        if hasattr(value, "model_dump") or is_dataclass(value):
            return self._of_fields(value)
        return value

    def _inside(self, step: str | int, part: Any) -> Any:
        self._path.append(step)
        converted = self.convert(part)
        self._path.pop()
        return converted

    def _text(self, text: str) -> str:
        try:
            return paired(text)
        except UnicodeDecodeError:
            fault = "contains half of a surrogate pair, which is no character; remove or replace it"
            raise NotKeptError(tuple(self._path), fault) from None

    def _of_numpy(self, value: Any) -> Any:
        if getattr(value, "ndim", 0) and value.dtype.kind not in _ODD_ARRAYS and not hasattr(value, "mask"):
            return value
        if value.dtype.names:  # records, whose parts have names
            if value.ndim:
                return [self._inside(index, record) for index, record in enumerate(value)]
            return {name: self._inside(name, value[name]) for name in value.dtype.names}
        plain = value.tolist()
        if value.dtype.kind in "Mm" and isinstance(_first(plain), int):  # nanoseconds, which Python's dates don't have
            plain = value.astype(str).tolist()
        if type(plain) is type(value):
            raise NotKeptError(tuple(self._path), no_form(value))
        return self.convert(plain)

    def _of_fields(self, value: Any) -> Any:
        """A model or dataclass of the same class with converted fields."""
        clone = copy.copy(value)
        for name, part in getattr(value, "__dict__", {}).items():
            converted = self._inside(name, part)
            if converted is not part:
                clone.__dict__[name] = converted
        return clone


def _first(value: Any) -> Any:
    while isinstance(value, list) and value:
        value = value[0]
    return value


def _parts(value: Any) -> Iterator[tuple[str | int, Any]]:
    """The parts of a container, with the step that leads to each."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield _step(key), key
            yield _step(key), part
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from enumerate(value)
    elif isinstance(value, Send):
        yield "arg", value.arg
    elif not isinstance(value, type) and (hasattr(value, "model_dump") or is_dataclass(value)):
        yield from getattr(value, "__dict__", {}).items()


def _step(key: Any) -> str | int:
    return key if isinstance(key, str | int) else str(key)


def _fault(value: Any) -> str:
    if isinstance(value, Mapping):
        return "has a key that is neither a text nor a number; use a text"
    if isinstance(value, int) and not -LARGEST_INTEGER - 1 <= value <= 2 * LARGEST_INTEGER + 1:
        return "is an integer outside 64 bits; use a text"
    return no_form(value)
