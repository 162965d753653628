"""Converts what agents return, and what they are given, to JSON without losing anything.

Downstream tasks compute with a result, so each value keeps its meaning or is refused: `to_json` raises
`NoJsonFormError`, which says where the value is and what to return instead.
"""

import math
from collections import UserString
from collections.abc import Callable, Iterator, Mapping, Sequence, Set, ValuesView
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from types import FunctionType
from typing import Any, NamedTuple

from pydantic_core import PydanticSerializationError, to_jsonable_python

from backend.core.jsonable import LARGEST_INTEGER, MAX_DEPTH, Path, dumps, fault_of, paired


class SizeLimit(NamedTuple):
    """The largest size of a value's texts, in bytes, and the name of the setting that raises it."""

    size: int
    setting: str


LARGEST = SizeLimit(240_000_000, "PostgreSQL")
"""What PostgreSQL's `jsonb`, which has a limit of 256 MB, can hold in any case."""

_LARGEST_PASSED_ON = 2 * LARGEST_INTEGER + 1
"""The largest integer that survives in Airflow's messages and in LangGraph's checkpoints."""

_RESERVED = frozenset({"__classname__", "__id__"})
_RESERVED_PAIR = frozenset({"__type", "__var"})
"""Keys with which Airflow marks objects in XComs: it refuses a dict with one of the former, and takes one with both of
the latter for something else."""


class NoJsonFormError(ValueError):
    """A value has no JSON form that PostgreSQL and Airflow can hold.

    `path` are the keys and indexes that lead to it, and `fault` says what is wrong with it and what to return instead.
    """

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(fault)
        self.path = path
        self.fault = fault


def to_json(value: Any, nulled: list[Path] | None = None, *, for_xcom: bool = False, limit: SizeLimit = LARGEST) -> Any:
    """A copy of `value` that consists of JSON types only and has lost nothing. Raises `NoJsonFormError`.

    Models, dataclasses, dates, UUIDs, enums, decimals, paths and complex numbers get their usual JSON form. Tuples and
    sets become lists, NumPy's arrays and scalars become lists and numbers, and bytes become base64. NaN becomes null,
    and its path is appended to `nulled`. A value `for_xcom` may not have the keys that Airflow reserves.
    """
    return _Conversion([] if nulled is None else nulled, for_xcom, limit).convert(value)


class _Conversion:
    """One call of `to_json`."""

    def __init__(self, nulled: list[Path], for_xcom: bool, limit: SizeLimit) -> None:
        self._nulled = nulled
        self._for_xcom = for_xcom
        self._path: list[str | int] = []
        self._around: set[int] = set()
        """The ids of the containers around the present value."""
        self._limit = limit
        self._left = limit.size

    def convert(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is bool or value is None:
            return value
        if kind is int:
            if not -LARGEST_INTEGER - 1 <= value <= _LARGEST_PASSED_ON:
                raise self._fault("is an integer outside 64 bits; use a text")
            return value
        if kind is float:
            return self._number(value)
        if kind is list or kind is tuple:
            return self._inside(value, self._list)
        if kind is dict or isinstance(value, Mapping):
            return self._inside(value, self._object)
        return self._other(value)

    def _other(self, value: Any) -> Any:
        """The JSON form of a value that is no plain JSON."""
        if isinstance(value, Enum):
            return self.convert(value.value)
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if isinstance(value, int):
            return self.convert(int(value))
        if isinstance(value, float):  # NumPy's float64 is one
            return self._number(float(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return self._text(str(to_jsonable_python(bytes(value), bytes_mode="base64")))
        if isinstance(value, UserString):
            return self._text(str(value))
        if isinstance(value, Sequence | ValuesView):
            self._take(len(value))
            return self._inside(value, self._list)
        if isinstance(value, Set):
            return self._inside(value, lambda members: self._list(_in_order(members)))
        if hasattr(type(value), "__pydantic_serializer__"):
            return self._model(value)
        if isinstance(value, type | FunctionType | Iterator):
            raise self._fault(no_form(value))
        if is_dataclass(value):
            return self._inside(value, self._fields)
        if hasattr(value, "dtype") and hasattr(value, "tolist"):
            return self._array(value)
        if callable(getattr(value, "tolist", None)):
            return self._inside(value, lambda one: self.convert(one.tolist()))
        if isinstance(value, BaseException):
            return self._text(repr(value))  # as LangGraph keeps it in checkpoints
        if isinstance(value, Fraction | PurePath):
            return self._text(str(value))
        try:
            plain = to_jsonable_python(value, inf_nan_mode="constants", bytes_mode="base64")
        except (PydanticSerializationError, ValueError, TypeError, RecursionError):
            raise self._fault(no_form(value)) from None
        return self.convert(plain)

    def _text(self, text: str) -> str:
        self._take(len(text))
        with suppress(UnicodeDecodeError):
            text = paired(text)
        if (fault := fault_of(text)) is not None:
            raise self._fault(fault)
        if not text.isascii():
            self._take(len(text.encode()) - len(text))
        return text

    def _number(self, number: float) -> float | None:
        if math.isfinite(number):
            return number
        if math.isnan(number):
            self._nulled.append(tuple(self._path))
            return None
        raise self._fault("is an infinity, or a number too large for JSON; use null or a text")

    def _list(self, values: Any) -> list[Any]:
        found = []
        self._path.append(0)
        for index, value in enumerate(values):
            self._path[-1] = index
            found.append(self.convert(value))
        self._path.pop()
        self._take(len(found))
        return found

    def _object(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in values.items():
            name = self._key(key)
            if name in found:
                raise self._fault(f"has two keys that read {name[:100]!r} in JSON; use texts as keys")
            self._path.append(name)
            found[name] = self.convert(value)
            self._path.pop()
        self._take(4 * len(found))
        if self._for_xcom and (
            taken := _RESERVED & found.keys() or (found.keys() >= _RESERVED_PAIR and _RESERVED_PAIR)
        ):
            raise self._fault(f"has the key {min(taken)!r}, which Airflow reserves for its own; rename it")
        return found

    def _fields(self, value: Any) -> dict[str, Any]:
        return self._object({field.name: getattr(value, field.name) for field in fields(value)})

    def _key(self, key: Any) -> str:
        """A key as JSON writes it. Numbers, dates and the like become texts."""
        if isinstance(key, Enum):
            key = key.value
        if isinstance(key, tuple | frozenset | bytes):
            raise self._fault(f"has a key that is {_a(key)}; use a text")
        if not isinstance(key, str):
            try:
                key = next(iter(to_jsonable_python({key: None}, inf_nan_mode="constants", serialize_unknown=False)))
            except (PydanticSerializationError, ValueError, TypeError):
                raise self._fault(f"has a key that is {_a(key)}; use a text") from None
        try:
            return self._text(str.__str__(key))
        except NoJsonFormError as error:
            self._path.append(str(key))
            raise self._fault(f"is a key that {error.fault}") from None

    def _model(self, value: Any) -> Any:
        """A pydantic model or dataclass, with its own serializers."""
        parts = value.model_dump(warnings=False) if hasattr(value, "model_dump") else vars(value)
        try:
            plain = to_jsonable_python(value, inf_nan_mode="constants", bytes_mode="base64", fallback=_simpler)
        except (PydanticSerializationError, ValueError, TypeError, RecursionError):
            plain = parts  # the fields as they are show which of them has no JSON form
        else:
            if _has_nonfinite(parts):  # models write these as null, whatever the mode
                plain = parts
        return self._inside(value, lambda _: self.convert(plain))

    def _array(self, value: Any) -> Any:
        """A NumPy array or scalar, or what has the same attributes."""
        if getattr(value.dtype, "names", None):  # a structured array: its items have named parts
            if value.ndim:
                return self._inside(value, self._list)
            return self._inside(value, lambda one: self._object({name: one[name] for name in one.dtype.names}))
        self._take(2 * getattr(value, "size", 0))
        kind = getattr(value.dtype, "kind", None)
        if kind == "M":  # `tolist` returns bare integers for nanoseconds
            plain = _each(value.astype(str).tolist(), lambda text: math.nan if text == "NaT" else text)
        elif kind == "m":
            exact = value.astype("timedelta64[us]")
            if not ((exact == value) | (value != value)).all():
                raise self._fault("is a time span with nanoseconds; use a number or a text")
            plain = _each(exact.tolist(), lambda span: math.nan if span is None else span)
        else:
            plain = value.tolist()
        if type(plain) is type(value):
            raise self._fault(no_form(value))
        return self._inside(value, lambda _: self.convert(plain))

    def _inside(self, value: Any, convert: Callable[[Any], Any]) -> Any:
        """Convert the parts of a container."""
        if id(value) in self._around:
            raise self._fault("contains itself; return plain data")
        if len(self._around) >= MAX_DEPTH:
            raise self._fault(f"is nested more than {MAX_DEPTH} levels deep; return flatter data, or a text")
        self._around.add(id(value))
        converted = convert(value)
        self._around.discard(id(value))
        return converted

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            del self._path[1:]  # the part that is too large, rather than the one with which it became so
            raise self._fault(
                f"has more than {self._limit.size:,} bytes, the limit of {self._limit.setting}; store it elsewhere and "
                "pass on its address"
            )

    def _fault(self, fault: str) -> NoJsonFormError:
        return NoJsonFormError(tuple(self._path), fault)


def no_form(value: Any) -> str:
    """What is wrong with a value of a class that is no data, and what to use instead."""
    if isinstance(value, Iterator):
        return f"is {_a(value)}, which can be read only once; return a list"
    hint = " such as that of its to_dict()" if hasattr(value, "to_dict") else ": texts, numbers, lists and dicts"
    return f"is {_a(value)}, which has no JSON form; return plain data{hint}"


def _a(value: Any) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def _in_order(members: Set[Any]) -> Sequence[Any]:
    """A set's members in an order that is the same in every process, if they have one."""
    try:
        return sorted(members)
    except TypeError:
        return sorted(members, key=lambda member: (type(member).__name__, repr(member)))


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    return [_each(part, change) for part in value] if isinstance(value, list) else change(value)


def _has_nonfinite(value: Any) -> bool:
    pending, seen = [value], set()
    while pending:
        part = pending.pop()
        if isinstance(part, float):
            if not math.isfinite(part):
                return True
        elif isinstance(part, dict | list | tuple) and id(part) not in seen:
            seen.add(id(part))
            pending.extend(part.values() if isinstance(part, dict) else part)
    return False


def _simpler(value: Any) -> Any:
    """What pydantic asks for the values of fields that it can't serialize."""
    if hasattr(value, "tolist") or isinstance(value, BaseException | Fraction | Mapping | Sequence | Set):
        return to_json(value)
    raise TypeError(no_form(value))


def fingerprint_text(value: Any) -> str:
    """A text that is the same for equal values and differs for others, as far as they have a JSON form."""
    try:
        return dumps(to_json(value))
    except NoJsonFormError as error:
        return f"{list(error.path)!r}: {error.fault}"
