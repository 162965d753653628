"""A graph that looks at `data:` URLs in its input."""

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.graph import END, START, StateGraph, add_messages


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


failures = {"left": 0}


class Talk(TypedDict, total=False):
    """A picture, in a text of its own and in a message."""

    picture: str
    note: str
    messages: Annotated[list[AnyMessage], add_messages]
    seen: Annotated[list[int], operator.add]


def _say(state: Talk) -> Talk:
    content: list[Any] = [{"type": "image_url", "image_url": {"url": state["picture"]}}, {"type": "text", "text": "?"}]
    return {"messages": [HumanMessage(content)], "note": "n" * 5_000}


def _look(state: Talk) -> Talk:
    if failures["left"]:
        failures["left"] -= 1
        raise RuntimeError("not now")
    content: Any = state["messages"][0].content
    return {"seen": [len(state["picture"]), len(content[0]["image_url"]["url"]), len(state["note"])]}


talking = StateGraph(Talk)
talking.add_node("say", _say)
talking.add_node("look", _look)
talking.add_node("rest", lambda _: {"seen": [0]})
talking.add_edge(START, "say")
talking.add_edge("say", "look")
talking.add_edge("look", "rest")
talking.add_edge("rest", END)
