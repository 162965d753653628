"""Which values count as large, and where work on them is done."""

import threading
import time
from typing import Any

import pytest

from backend.core.large_values import LARGE, apart, is_large


@pytest.mark.parametrize(
    "value",
    [
        "x" * LARGE,
        {"x" * LARGE: 1},
        [{"a": index, "b": None} for index in range(LARGE // 16)],
        {f"k{index}": [] for index in range(LARGE // 8)},
        [[[["x" * LARGE]]]],
    ],
)
def test_what_has_many_bytes_or_many_parts_is_large(value: Any) -> None:
    assert is_large(value)


@pytest.mark.parametrize(
    "value", [None, 1, "x", "x" * (LARGE // 2), [1] * 1_000, {"a": {"b": [1.5, True]}}, {1: "x", None: "y"}]
)
def test_others_are_not(value: Any) -> None:
    assert not is_large(value)


def test_a_large_value_is_recognised_without_a_look_at_all_of_it() -> None:
    value = [{"a": index} for index in range(1_000_000)]
    began = time.thread_time()
    assert is_large(value)
    assert time.thread_time() - began < 0.1


async def test_only_large_values_are_worked_on_in_a_thread() -> None:
    here = threading.get_ident()
    assert await apart("small", threading.get_ident) == here
    assert await apart("x" * LARGE, threading.get_ident) != here
