"""The subgraph that works on one topic."""

from typing import TypedDict

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph


class TopicState(TypedDict):
    """One topic and what was found about it."""

    topic: str
    note: str


def write_note(state: TopicState) -> dict[str, str]:
    """Write a note about the topic; synchronous, as many nodes are."""
    reply = ChatOpenAI(model="gpt-4.1-mini").invoke(f"A note about {state['topic']}")
    return {"note": reply.text}


def shorten(state: TopicState) -> dict[str, str]:
    """Keep the note short."""
    return {"note": state["note"][:80]}


_builder = StateGraph(TopicState)
_builder.add_node("write_note", write_note)
_builder.add_node("shorten", shorten)
_builder.add_edge(START, "write_note")
_builder.add_edge("write_note", "shorten")
_builder.add_edge("shorten", END)
topic_graph = _builder.compile()
