"""A graph whose nodes put a value of any kind anywhere in their state. Each node stands for a paid call."""

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from tests.kit.value_kinds import KINDS

calls: list[tuple[str, str]] = []
"""The nodes that ran, in order, each with its kind of value."""

failures: set[str] = set()
"""The kinds with which `finish` fails once."""

seen: dict[str, Any] = {}
"""The value between nodes, as `finish` saw it last, by kind."""


class State(TypedDict, total=False):
    """A value of a `kind`: given (`question`), between nodes (`kept`), or returned (`answer`), as `place` says."""

    kind: str
    place: str
    question: Any
    kept: Any
    answer: Any


class Output(TypedDict, total=False):
    """What the graph returns."""

    answer: Any


def pay(state: State) -> State:
    calls.append((state["kind"], "pay"))
    return {"place": state.get("place", "")}


def produce(state: State) -> State:
    calls.append((state["kind"], "produce"))
    value = KINDS[state["kind"]].make()
    return {"answer": value} if state["place"] == "answer" else {"kept": value} if state["place"] == "kept" else {}


def finish(state: State) -> State:
    kind = state["kind"]
    calls.append((kind, "finish"))
    if kind in failures:
        failures.discard(kind)
        raise ConnectionError("try again")
    seen[kind] = state.get("kept")
    return {} if state["place"] == "answer" else {"answer": "done"}


builder = StateGraph(State, output_schema=Output)
for node in (pay, produce, finish):
    builder.add_node(node)
builder.add_edge(START, "pay")
builder.add_edge("pay", "produce")
builder.add_edge("produce", "finish")
builder.add_edge("finish", END)


stored: list[Any] = []
"""What the store returned for the value that was put there."""


async def store(state: State, runtime: Runtime[None]) -> State:
    assert runtime.store is not None
    kind = state["kind"]
    await runtime.store.aput(("values",), kind, {"value": KINDS[kind].make()})
    item = await runtime.store.aget(("values",), kind)
    stored.append(item.value if item is not None else None)
    return {"answer": "done"}


storing = StateGraph(State, output_schema=Output)
storing.add_node(store)
storing.add_edge(START, "store")
