"""Graphs whose states are large."""

import operator
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

NODES = 4


class State(TypedDict, total=False):
    """A payload of `size` bytes of one `kind`, passed from node to node."""

    kind: str
    size: int
    payload: Any
    steps: Annotated[list[str], operator.add]


class Output(TypedDict):
    """The payload at the end."""

    payload: Any


def made(kind: str, size: int) -> Any:
    """A payload of about this many bytes."""
    if kind == "rows":
        return [{"a": index, "b": "x", "c": None} for index in range(size // 35)]
    return ("ein Wört " if kind == "words" else "a word, ") * (size // 9)


async def _step(state: State) -> State:
    return {"payload": made(state["kind"], state["size"]), "steps": ["step"]}


chain = StateGraph(State, output_schema=Output)
for _number in range(NODES):
    chain.add_node(f"node{_number}", _step)
    chain.add_edge(f"node{_number - 1}" if _number else START, f"node{_number}")
chain.add_edge(f"node{NODES - 1}", END)

endless = StateGraph(State)
endless.add_node("again", lambda _: {"steps": ["step"]})
endless.add_edge(START, "again")
endless.add_edge("again", "again")
