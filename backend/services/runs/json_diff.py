"""Differences between two JSON values, by JSON pointer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backend.core.jsonable import Path

_DEEPEST = 20
"""Levels that are compared part by part; what is below differs as a whole."""


class _Missing:
    """Stands for a part that one of the values doesn't have."""


MISSING = _Missing()


@dataclass(frozen=True, slots=True)
class Difference:
    """A part that differs: the keys and indexes that lead to it, and its values, of which one may be `MISSING`."""

    path: Path
    left: Any
    right: Any


def differences(left: Any, right: Any, path: Path = ()) -> Iterator[Difference]:
    """The smallest parts that differ, in order."""
    if left is MISSING or right is MISSING or len(path) >= _DEEPEST:
        if left != right:
            yield Difference(path, left, right)
    elif isinstance(left, dict) and isinstance(right, dict):
        for key in {**left, **right}:
            yield from differences(left.get(key, MISSING), right.get(key, MISSING), (*path, key))
    elif isinstance(left, list) and isinstance(right, list):
        for index in range(max(len(left), len(right))):
            one, other = (values[index] if index < len(values) else MISSING for values in (left, right))
            yield from differences(one, other, (*path, index))
    elif left != right or isinstance(left, bool) != isinstance(right, bool):
        yield Difference(path, left, right)
