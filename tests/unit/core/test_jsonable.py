"""Whatever an agent returns becomes JSON that Postgres accepts."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage
from pydantic import BaseModel, SecretStr

from backend.core.jsonable import dumps, loads, storable, to_jsonable


class Colour(Enum):
    RED = "red"


class Model(BaseModel):
    name: str
    when: date


@dataclass
class Record:
    size: int


class Odd:
    def __repr__(self) -> str:
        return "an odd one"


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no name")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        ([float("inf"), float("-inf"), 1.5], [None, None, 1.5]),
        (Decimal("0.10"), "0.10"),
        (b"\x00\xff", "AP8="),
        ({1, }, [1]),
        ((1, "a"), [1, "a"]),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z"),
        (timedelta(seconds=90), "PT1M30S"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("a/b"), "a/b"),
        (Colour.RED, "red"),
        (Model(name="x", when=date(2026, 1, 1)), {"name": "x", "when": "2026-01-01"}),
        (Record(3), {"size": 3}),
        ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
        (Odd(), "an odd one"),
        (2**70, 2**70),
    ],
)  # fmt: skip
def test_values(value: Any, expected: Any) -> None:
    assert to_jsonable(value) == expected
    assert json.loads(dumps(value)) == expected


def test_what_can_not_even_be_named_is_no_error() -> None:
    assert isinstance(to_jsonable(Broken()), str)


def test_messages_and_secrets() -> None:
    told = to_jsonable({"messages": [AIMessage("hello")], "key": SecretStr("sk-secret")})
    assert told["messages"][0]["content"] == "hello"
    assert "sk-secret" not in dumps(told)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x00b", "a\ufffdb"),
        ("\x00", "\ufffd"),
        ("\x00\x00\x00", "\ufffd\ufffd\ufffd"),
        ("\\u0000", "\\u0000"),  # six characters, none of them NUL
        ("\\\x00", "\\\ufffd"),
        ("\\\\\x00u0000", "\\\\\ufffdu0000"),
        ("\n\t\x1f\u2028ü🙂", "\n\t\x1f\u2028ü🙂"),
    ],
)
def test_only_nul_characters_are_replaced(text: str, expected: str) -> None:
    assert json.loads(dumps(text)) == expected
    assert json.loads(dumps({text: [text]})) == {expected: [expected]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("half a pair: \ud83d", "half a pair: \ufffd"),
        ("\udc80", "\ufffd"),
        ("\ud83d\x00", "\ufffd\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),  # both halves, as a model may stream them
        ("\ude00\ud83d", "\ufffd\ufffd"),
    ],
)
def test_halves_of_surrogate_pairs_are_joined_or_replaced(text: str, expected: str) -> None:
    assert json.loads(dumps({"text": text}).encode()) == {"text": expected}
    assert storable(text) == expected


def test_the_text_is_one_line() -> None:
    assert "\n" not in dumps({"a": "1\n2\r3", "b": [1, 2]})
    assert dumps({"a": 1, "b": [1, 2]}) == '{"a":1,"b":[1,2]}'


@pytest.mark.parametrize(
    "text",
    [
        '{"a":9007199254740993,"b":18446744073709551617}',
        "[-0.0,1e999,NaN]",
        '{"a":"\\ud800"}',
        '{"a":1,"a":2}',
    ],
)
def test_loads_agrees_with_the_standard_library(text: str) -> None:
    assert repr(loads(text)) == repr(json.loads(text))
    assert repr(loads(text.encode())) == repr(json.loads(text))


@pytest.mark.parametrize("text", ["\x00", "\\\x00", "\\u0000", "\\\\u0000", "\x00\x00", "a\x00\\", "\\\x00u0000"])
def test_dumps_replaces_nul_and_nothing_that_looks_like_it(text: str) -> None:
    assert json.loads(dumps([text, {text: 1}])) == [text.replace("\x00", "\ufffd"), {text.replace("\x00", "\ufffd"): 1}]


def test_dumps_is_quick_with_many_nul_characters() -> None:
    began = time.thread_time()
    dumps("\x00\\u0000" * 1_000_000)
    assert time.thread_time() - began < 5


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1e16, "10000000000000000.0"),
        (1e22, "10000000000000000000000.0"),
        (-1.5e17, "-150000000000000000.0"),
        ({"a": [1e23, "1e+23", '"1e+23,"'], "b,1e+23}": 1.1}, None),
        (["\\", 1e300, '\\"', 1e16, "e+16]"], None),
        (1e15, "1000000000000000.0"),
        ([5e-324, 1e-7, 0.1, 2**63 - 1], "[5e-324,1e-7,0.1,9223372036854775807]"),
    ],
)
def test_large_floats_stay_floats(value: Any, written: str | None) -> None:
    text = dumps(value)
    assert written is None or text == written
    assert repr(json.loads(text)) == repr(value)
