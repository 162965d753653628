"""A graph that searches the store by vectors of the project's own."""

from typing import Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime


class State(TypedDict, total=False):
    notes: dict[str, str]
    question: str
    found: list[str]


async def letters(texts: list[str]) -> list[list[float]]:
    """How often each letter is in a text."""
    return [[float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]


async def recall(state: State, runtime: Runtime[Any]) -> State:
    assert runtime.store is not None
    for key, text in state.get("notes", {}).items():
        await runtime.store.aput(("letters",), key, {"text": text})
    found = await runtime.store.asearch(("letters",), query=state["question"], limit=2)
    return {"found": [f"{item.key} {item.score:.2f}" for item in found]}


def recall_blocking(state: State, runtime: Runtime[Any]) -> State:
    assert runtime.store is not None
    for key, text in state.get("notes", {}).items():
        runtime.store.put(("letters",), key, {"text": text})
    found = runtime.store.search(("letters",), query=state["question"], limit=2)
    return {"found": [f"{item.key} {item.score:.2f}" for item in found]}


def chain(node: Any) -> Any:
    built = StateGraph(State)
    built.add_node("recall", node)
    built.add_edge(START, "recall")
    return built


graph, blocking = chain(recall), chain(recall_blocking)
