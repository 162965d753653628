"""Graphs that write to LangGraph's stream writer."""

from typing import Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph


class Work(TypedDict, total=False):
    key: str
    done: int


def _read(state: Work) -> dict[str, Any]:
    write = get_stream_writer()
    write({"progress": 0.5, "api_key": state["key"]})
    write("half done")
    return {"done": 1}


def _large(state: Work) -> dict[str, Any]:
    get_stream_writer()(["x" * 1_000] * 50)
    return {}


def reporting() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Reports its progress, also in a subgraph."""
    inner = StateGraph(Work)
    inner.add_node("large", _large)
    inner.add_edge(START, "large")
    inner.add_edge("large", END)
    graph = StateGraph(Work)
    graph.add_node("read", _read)
    graph.add_node("inner", inner.compile())
    graph.add_edge(START, "read")
    graph.add_edge("read", "inner")
    graph.add_edge("inner", END)
    return graph.compile()
