"""A graph that looks at `data:` URLs in its input."""

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph


class State(TypedDict, total=False):
    """Pictures, and the lengths of their URLs."""

    picture: str
    parts: list[dict[str, Any]]
    sizes: list[int]


class Output(TypedDict):
    """The lengths alone."""

    sizes: list[int]


def _measure(state: State) -> State:
    urls = [state["picture"], *(part["url"] for part in state["parts"])]
    return {"sizes": [len(url) for url in urls if url.startswith("data:image/png;base64,")]}


described = StateGraph(State, output_schema=Output)
described.add_node("measure", _measure)
described.add_edge(START, "measure")
described.add_edge("measure", END)
