"""Graphs that take turns in a conversation: each turn adds to what was said before."""

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt

failures: list[str] = []
"""What the next replies fail with."""


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    items: Annotated[list[str], operator.add]


async def reply(state: State) -> dict[str, Any]:
    get_stream_writer()({"name": "progress", "step": "reply"})
    if failures:
        raise ValueError(failures.pop())
    said = len(state.get("messages", []))
    model = GenericFakeChatModel(messages=iter([AIMessage(content=f"reply after {said} messages")]))
    return {"messages": [await model.ainvoke(state.get("messages", []))], "items": ["replied"]}


def ask(state: State) -> dict[str, Any]:  # LangGraph passes it
    return {"items": [f"asked: {interrupt('Go on?')}"]}


plain = StateGraph(State)
plain.add_node("reply", reply)
plain.add_edge(START, "reply")

asking = StateGraph(State)
asking.add_node("reply", reply)
asking.add_node("ask", ask)
asking.add_edge(START, "reply")
asking.add_edge("reply", "ask")
