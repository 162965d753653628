"""What a graph keeps in its state is the same after a resume, or is refused with its place."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pytest
from langchain_core.messages import AIMessage
from langgraph.types import Send

from backend.checkpoints.state_serializer import NotKeptError, StateSerializer, fits_inline
from backend.core.jsonable import Path


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass
class Record:
    part: Any


def resumed(value: Any) -> Any:
    serializer = StateSerializer()
    return serializer.loads_typed(serializer.dumps_typed(value))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Send("node", {"score": np.float32(0.5)}), Send("node", {"score": 0.5})),
        (Send("node", {"score": 0.5}, timeout=3), Send("node", {"score": 0.5}, timeout=3)),
        (Point(np.int64(1), [np.bool_(True)]), Point(1, [True])),
        (Record({"a": [np.float64(2.5), "\ud83d\ude00"]}), Record({"a": [2.5, "\U0001f600"]})),
        (
            AIMessage("x", additional_kwargs={"score": np.float32(0.5)}),
            AIMessage("x", additional_kwargs={"score": 0.5}),
        ),
        ({np.int64(1): range(2)}, {1: [0, 1]}),
        (np.array([[1, None]], dtype=object), [[1, None]]),
        ([float("inf"), "a\x00"], [float("inf"), "a\x00"]),
    ],
)
def test_values_of_other_libraries_come_back_as_equal_values_of_python(value: Any, expected: Any) -> None:
    before = repr(value)
    assert resumed(value) == expected
    assert repr(value) == before  # the running graph keeps its own


@pytest.mark.parametrize(
    ("value", "path", "words"),
    [
        (Send("node", {"f": print}), ("arg", "f"), "builtin_function_or_method"),
        (Point(1, 2**64), (1,), "outside 64 bits"),
        (Record([{"a": "\ud83d"}]), ("part", 0, "a"), "half of a surrogate pair"),
        ({"a": {"\ud83d": 1}}, ("a", "\ud83d"), "half of a surrogate pair"),
        ({"a": {Decimal(1): 1}}, ("a",), "has a key that is neither"),
        (AIMessage("x", additional_kwargs={"model": object()}), ("additional_kwargs", "model"), "is an object"),
    ],
)
def test_what_can_not_be_kept_is_refused_with_its_place(value: Any, path: Path, words: str) -> None:
    with pytest.raises(NotKeptError, match=words) as caught:
        StateSerializer().dumps_typed(value)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("value", "inline"),
    [
        ("text ü 🙂", True), ("a\x00", False), ("\ud83d", False), (1.5, True), (float("nan"), False),
        (float("-inf"), False), (2**70, True), (True, True), (None, True),
    ],
)  # fmt: skip
def test_what_jsonb_holds_is_stored_inline(value: Any, inline: bool) -> None:
    assert fits_inline(value) is inline
