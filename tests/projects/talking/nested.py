"""A graph whose only node is another graph."""

from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]


def think(state: State) -> dict[str, Any]:  # LangGraph passes it
    return {"messages": [AIMessage(content="From within.")]}


inner = StateGraph(State).add_node("think", think).add_edge(START, "think").compile()
graph = StateGraph(State).add_node("thinker", inner).add_edge(START, "thinker").compile()
