"""Map and reduce: each topic goes to a subgraph of its own, the notes come together."""

import operator
from typing import Annotated, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send
from notes import TopicState, topic_graph


class State(TypedDict):
    """The question's topics and the notes about them."""

    topics: list[str]
    notes: Annotated[list[str], operator.add]
    report: str


async def research(state: TopicState) -> dict[str, list[str]]:
    """One topic."""
    result = await topic_graph.ainvoke({"topic": state["topic"], "note": ""})
    return {"notes": [result["note"]]}


def spread(state: State) -> list[Send]:
    """Each topic at the same time."""
    return [Send("research", {"topic": topic}) for topic in state["topics"]]


def report(state: State) -> dict[str, str]:
    """Put the notes together."""
    return {"report": "\n".join(sorted(state["notes"]))}


builder = StateGraph(State)
builder.add_node("research", research)
builder.add_node("report", report)
builder.add_conditional_edges(START, spread, ["research"])
builder.add_edge("research", "report")
builder.add_edge("report", END)
graph = builder.compile()
