"""What LangGraph's serializer writes, read without making objects of it."""

import pickle
from typing import Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Send

from backend.checkpoints.plain_values import UnreadableValueError, folded, plain
from tests.kit.graphs import kept


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        ("text", "text"),
        (b"123", b"123"),
        ({"a": [1, 2.5, True, None, "ü"]}, {"a": [1, 2.5, True, None, "ü"]}),
        (kept.Counted("x"), {"text": "x"}),
        (kept.Colour.RED, "red"),
        (Send("node", {"a": kept.Counted("x")}), {"node": "node", "arg": {"a": {"text": "x"}}}),
    ],
)
def test_arguments_stand_for_objects(value: Any, shown: Any) -> None:
    written = JsonPlusSerializer().dumps_typed(value)
    kept.made.clear()
    assert plain(*written) == shown
    assert kept.made == []


def test_a_pickle_is_never_loaded() -> None:
    with pytest.raises(UnreadableValueError, match="'pickle'"):
        plain("pickle", pickle.dumps(kept.Counted("x")))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xc7\x02\x00\x01\x02", b"\xc7\x01\x06\x01"])
def test_broken_data_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableValueError, match="can't be read"):
        plain("msgpack", data)


def test_several_writes_to_a_channel_are_listed() -> None:
    assert folded([("a", 1), ("b", 2), ("a", 3), ("a", 4)]) == {"a": {"$writes": [1, 3, 4]}, "b": 2}
