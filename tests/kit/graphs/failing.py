"""Graphs that fail."""

import os
from typing import Any, TypedDict

from langgraph.graph import START, StateGraph


class _Nothing(TypedDict, total=False):
    value: int


def _with_a_token(_: _Nothing) -> _Nothing:
    token = os.environ["SHIP_TOKEN"]
    try:
        raise ConnectionError(f"https://ships/?token={token} refused")
    except ConnectionError as error:
        raise LookupError(f"no ship with {token}") from error


def _plainly(_: _Nothing) -> _Nothing:
    raise LookupError("no ship at all")


def _graph(node: Any) -> Any:
    built = StateGraph(_Nothing)
    built.add_node("fail", node)
    built.add_edge(START, "fail")
    return built.compile()


with_a_token, plainly = _graph(_with_a_token), _graph(_plainly)
