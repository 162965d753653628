"""Graphs whose nodes read and write values too large for a row: of many kinds, sent, in a subgraph, and secret."""

import operator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import UUID

import numpy as np
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

LONG = "A sentence of a long text. " * 1_000
"""27 KB, more than a row holds."""

SECRET = "sk-live-abcdefgh12345678"
PICTURE = "data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUg" * 5_000

made: list[str] = []
"""The objects that were made, by whatever means, since a test has cleared it."""


class Colour(Enum):
    """A kind that checkpoints keep by its value."""

    RED = "red"


@dataclass
class Counted:
    """An object that notes when one like it is made."""

    text: str

    def __post_init__(self) -> None:
        made.append(self.text[:20])


class State(TypedDict, total=False):
    """A text, what `produce` makes, and what was said."""

    text: str
    count: int
    found: Any
    said: Annotated[list[AnyMessage], operator.add]
    parts: Annotated[list[str], operator.add]


class Output(TypedDict, total=False):
    """What the graphs return."""

    text: str
    count: int


def values() -> dict[Any, Any]:
    """Values of many kinds."""
    return {
        "long": LONG,
        "object": Counted("an object"),
        "message": AIMessage("Hello.", id="m"),
        "set": {1},
        "pair": (1, "a"),
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "on": date(2026, 1, 2),
        "for": timedelta(days=1, seconds=2),
        "price": Decimal("1.50"),
        "colour": Colour.RED,
        "path": Path("/a/b"),
        "id": UUID(int=1),
        "array": np.arange(6).reshape(2, 3),
        "bytes": b"123",
        "number": 2**63 + 1,
        3: "three",
    }


PLAIN = {
    "long": LONG,
    "object": {"text": "an object"},
    "set": [1],
    "pair": [1, "a"],
    "at": "2026-01-02T03:04:05+00:00",
    "on": "2026-01-02",
    "for": "1 day, 0:00:02",
    "price": "1.50",
    "colour": "red",
    "path": "/a/b",
    "id": "00000000-0000-0000-0000-000000000001",
    "array": [[0, 1, 2], [3, 4, 5]],
    "bytes": "[3 bytes]",
    "number": 2**63 + 1,
    "3": "three",
}
"""What is shown of them; the message is a message's fields."""


def produce(state: State) -> State:
    return {"found": values(), "said": [HumanMessage(LONG)], "count": 1}


def consume(state: State) -> State:
    return {"text": state["found"]["long"], "count": 2}


def _chain(name: str, *nodes: Any) -> StateGraph[Any]:
    built = StateGraph(State, output_schema=Output)
    last = START
    for node in nodes:
        built.add_node(node.__name__, node)
        built.add_edge(last, node.__name__)
        last = node.__name__
    built.add_edge(last, END)
    return built


kinds = _chain("kinds", produce, consume)


def keep(state: State) -> State:
    return {"found": {"password": "hunter2", "told": f"My key is {SECRET}.", "picture": PICTURE, "long": LONG}}


secrets = _chain("secrets", keep)


def split(state: State) -> list[Send]:
    return [Send("part", {"text": f"{number} {LONG}", "number": number}) for number in range(3)]


def part(state: Any) -> State:
    return {"parts": [f"of {state['text']}"]}


sending = StateGraph(State, output_schema=Output)
sending.add_node("part", part)
sending.add_conditional_edges(START, split, ["part"])
sending.add_edge("part", END)


def inner(state: State) -> State:
    return {"text": f"inner {LONG}"}


outer = StateGraph(State, output_schema=Output)
outer.add_node("group", _chain("inner", inner).compile())
outer.add_edge(START, "group")
outer.add_edge("group", END)
