"""Every kind of value that a node may return, and what becomes of it."""

from collections import ChainMap, OrderedDict, UserDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
from langchain_core.messages import AIMessage
from pydantic import BaseModel, SecretStr


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Word(StrEnum):
    YES = "yes"


class Model(BaseModel):
    part: Any = None
    when: date = date(2026, 1, 1)


@dataclass
class Record:
    part: Any


class Point(NamedTuple):
    x: Any
    y: Any = 0


class Text(str):
    """A text of another class."""

    __slots__ = ()


class Table:
    """Rows and columns, as data frames are."""

    def to_dict(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    :param make: makes the value.
    :param output: what it becomes in an output, if it survives there.
    :param refused: the JSON pointer below the value and words of the message, if an output may not hold it.
    :param kept: whether a checkpoint can hold it. None: as an output can.
    """

    make: Callable[[], Any]
    output: Any = None
    refused: tuple[str, str] | None = None
    kept: bool | None = None

    @property
    def is_kept(self) -> bool:
        return self.refused is None if self.kept is None else self.kept


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def circle() -> list[Any]:
    around: list[Any] = [1]
    around.append(around)
    return around


def survives(value: Any, output: Any = ..., *, kept: bool | None = None) -> Kind:
    return Kind(lambda: value, value if output is ... else output, kept=kept)


def refused(make: Callable[[], Any], place: str, words: str, *, kept: bool = False) -> Kind:
    return Kind(make, refused=(place, words), kept=kept)


NUL, HALF = "contains a NUL character", "contains half of a surrogate pair"
RECORDS = np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")])
MASKED = np.ma.masked_array([1, 2], mask=[False, True])
DAYS: list[Hashable] = ["2026-01-01", "NaT"]

KINDS: dict[str, Kind] = {
    # JSON itself
    "plain": survives({"a": [1, 2.5, True, None, "ü🙂\n"]}),
    "64 bits": survives([2**64 - 1, -(2**63)]),
    "150 levels": survives(nested(150)),
    "10 MB": survives("x" * 10_000_000),
    "many numbers": survives(list(range(200_000))),
    "a huge key": survives({"k" * 1_000_000: 1}),
    # what PostgreSQL, JSON or Airflow can't hold
    "NUL": refused(lambda: "a\x00b", "", NUL, kept=True),
    "NUL inside": refused(lambda: {"a/b": ["", "a\x00b"]}, "/a~1b/1", NUL, kept=True),
    "NUL in a key": refused(lambda: {"a\x00": 1}, "/a\x00", f"is a key that {NUL}", kept=True),
    "half a pair": refused(lambda: "x\ud83d", "", HALF),
    "half a pair inside": refused(lambda: [{"a": "x\ud83d"}], "/0/a", HALF),
    "half a pair in a key": refused(lambda: {"\ud83d": 1}, "/\\ud83d", "half of a surrogate pair"),
    "both halves": survives("\ud83d\ude00", "\U0001f600"),
    "65 bits": refused(lambda: [2**64], "/0", "is an integer outside 64 bits; use a text"),
    "thousands of digits": refused(lambda: 10**5000, "", "is an integer outside 64 bits; use a text"),
    "1e999": refused(lambda: [1e999], "/0", "is an infinity, or a number too large", kept=True),
    "minus infinity": refused(lambda: float("-inf"), "", "is an infinity", kept=True),
    "NaN": survives([1.0, float("nan")], [1.0, None]),
    "bare NaN": survives(float("nan"), None),
    "3,000 levels": refused(lambda: nested(3000), "/0/0/0", "nested"),
    "itself": refused(circle, "/1", "contains itself"),
    "a reserved key": refused(lambda: [{"__classname__": 1}], "/0", "which Airflow reserves", kept=True),
    "a reserved pair": refused(lambda: {"__type": 1, "__var": 2}, "", "which Airflow reserves", kept=True),
    # NumPy
    "array": survives(np.arange(5000), list(range(5000))),
    "matrix": survives(np.array([[1.5, np.nan]]), [[1.5, None]]),
    "scalars": survives([np.float32(1.5), np.int64(3), np.bool_(True), np.str_("x"), np.float64(2.5)],
                        [1.5, 3, True, "x", 2.5]),
    "a bare scalar": survives(np.float32(1.5), 1.5),
    "no dimensions": survives(np.array(7), 7),
    "dates of NumPy": survives(np.array(DAYS, "M8[D]"), ["2026-01-01", None]),
    "a date of NumPy": survives(np.datetime64("2026-01-01T10:00:00"), "2026-01-01T10:00:00"),
    "a span of NumPy": survives(np.timedelta64(90, "s"), "PT1M30S"),
    "a record array": survives(RECORDS, [{"a": 1, "b": 2.5}]),
    "a masked array": survives(MASKED, [1, None]),
    "an array of objects": survives(np.array(["a", None, 3], dtype=object), ["a", None, 3]),
    # Python's own types
    "datetime": survives(datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z"),
    "times": survives([date(2026, 1, 1), time(1, 2), timedelta(seconds=90)], ["2026-01-01", "01:02:00", "PT1M30S"]),
    "bytes": survives([b"\x00\xff", bytearray(b"x")], ["AP8=", "eA=="]),
    "2 MB of bytes": survives(b"\x00" * 1_999_998, "A" * 2_666_664),
    "sets": survives([{3, 1, 2}, frozenset("ba")], [[1, 2, 3], ["a", "b"]]),
    "tuples": survives((1, (2, Point(3))), [1, [2, [3, 0]]]),
    "decimal": survives(Decimal("0.10"), "0.10"),
    "uuid": survives(UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "enums": survives([Colour.RED, Size.LARGE, Word.YES], ["red", 3, "yes"]),
    "path": survives(Path("a/b"), "a/b"),
    "deque": survives(deque([1, 2]), [1, 2]),
    "range": survives(range(3), [0, 1, 2]),
    "mappings": survives([OrderedDict(a=1), UserDict(a=1), ChainMap({"a": 1})], [{"a": 1}] * 3),
    "a text of another class": survives(Text("x"), "x"),
    "an error": survives(ValueError("broken"), "ValueError('broken')"),
    "complex": survives(1 + 2j, "1+2j", kept=False),
    "fraction": survives(Fraction(1, 3), "1/3", kept=False),
    "keys": survives({1: "a", None: "b", date(2026, 1, 1): "c", Word.YES: "d", 2.5: "e"},
                     {"1": "a", "None": "b", "2026-01-01": "c", "yes": "d", "2.5": "e"}),
    "colliding keys": refused(lambda: {1: "a", "1": "b"}, "", "has two keys that read '1'", kept=True),
    "a tuple as a key": refused(lambda: {("a", "b"): 1}, "", "has a key that is a tuple; use a text", kept=True),
    # models
    "a model": survives(Model(part=[1]), {"part": [1], "when": "2026-01-01"}),
    "an array in a model": survives(Model(part=np.arange(3)), {"part": [0, 1, 2], "when": "2026-01-01"}),
    "infinity in a model": refused(lambda: Model(part=[1e999]), "/part/0", "is an infinity", kept=True),
    "an object in a model": refused(lambda: Model(part=[Table()]), "/part/0", "to_dict()"),
    "a record": survives(Record(np.float32(1.5)), {"part": 1.5}),
    "a message": survives(AIMessage("hello"), AIMessage("hello").model_dump(mode="json")),
    "a secret": survives(SecretStr("hidden"), "**********"),
    # no data
    "generator": refused(lambda: (n for n in range(3)), "", "can be read only once; return a list"),
    "function": refused(lambda: [print], "/0", "builtin_function_or_method, which has no JSON form"),
    "object": refused(lambda: {"a": object()}, "/a", "is an object, which has no JSON form"),
    "a data frame": refused(lambda: Table(), "", "such as that of its to_dict()"),
}  # fmt: skip
