"""Says something, uses a tool, asks a person, and hands over to another graph."""

import operator
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt


class State(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    mood: str
    steps: Annotated[list[str], operator.add]


def tell(step: str) -> None:
    get_stream_writer()({"name": "progress", "step": step})


async def greet(state: State) -> dict[str, Any]:
    tell("greet")
    said = len(state.get("messages", []))
    model = GenericFakeChatModel(messages=iter([AIMessage(content=f"Good morning, message {said} is mine.")]))
    return {"messages": [await model.ainvoke(state.get("messages", []))], "mood": "calm", "steps": ["greeted"]}


@tool
def weigh(what: str) -> str:
    """How heavy something is."""
    return f"{what} weighs nothing"


def measure(state: State) -> dict[str, Any]:  # LangGraph passes it
    tell("measure")
    call = AIMessage(content="", tool_calls=[{"id": "call-1", "name": "weigh", "args": {"what": "a word"}}])
    return {
        "messages": [call, ToolMessage(weigh.invoke({"what": "a word"}), tool_call_id="call-1")],
        "steps": ["weighed"],
    }


def ask(state: State) -> dict[str, Any]:  # LangGraph passes it
    tell("ask")
    answer = interrupt("Shall I go on?")
    tell("answered")
    return {"messages": [AIMessage(content=f"You said: {answer}")], "steps": ["asked"]}


class Inner(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]


def close(state: Inner) -> dict[str, Any]:  # LangGraph passes it
    return {"messages": [AIMessage(content="Good evening.")]}


farewell = StateGraph(Inner).add_node("close", close).add_edge(START, "close").compile()


def hand_over(state: State) -> dict[str, Any]:  # LangGraph passes it
    tell("hand_over")
    return {"messages": farewell.invoke({"messages": []})["messages"], "steps": ["closed"]}


builder = StateGraph(State)
for node in (greet, measure, ask, hand_over):
    builder.add_node(node.__name__, node)
builder.add_edge(START, "greet")
builder.add_edge("greet", "measure")
builder.add_edge("measure", "ask")
builder.add_edge("ask", "hand_over")
graph = builder.compile()
