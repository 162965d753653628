"""A graph that looks in LangGraph's store for what is nearest in meaning to what it is asked."""

from typing import Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class State(TypedDict, total=False):
    notes: dict[str, str]
    question: str
    found: list[str]


def letters(texts: list[str]) -> list[list[float]]:
    """How often each letter is in a text: an embedding of the project's own."""
    return [[float(text.lower().count(letter)) for letter in LETTERS] for text in texts]


async def recall(state: State, runtime: Runtime[Any]) -> State:
    store = runtime.store
    assert store is not None
    for key, text in state.get("notes", {}).items():
        await store.aput(("notes",), key, {"text": text, "length": len(text)})
    found = await store.asearch(("notes",), query=state["question"], limit=2)
    assert all(item.score is not None for item in found)
    return {"found": [item.key for item in found]}


def recall_in_thread(state: State, runtime: Runtime[Any]) -> State:
    """As `recall`, as a node that is synchronous."""
    store = runtime.store
    assert store is not None
    for key, text in state.get("notes", {}).items():
        store.put(("notes",), key, {"text": text, "length": len(text)})
    return {"found": [item.key for item in store.search(("notes",), query=state["question"], limit=2)]}


graph = StateGraph(State)
graph.add_node("recall", recall)
graph.add_edge(START, "recall")

blocking = StateGraph(State)
blocking.add_node("recall", recall_in_thread)
blocking.add_edge(START, "recall")
