"""A function that makes a graph for each run."""

from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph_sdk.runtime import ServerRuntime


class State(TypedDict, total=False):
    text: str
    access: str


async def make(config: RunnableConfig, runtime: ServerRuntime) -> Any:
    """A graph that says for what it was made."""
    mark = config.get("configurable", {}).get("mark", "")
    access = runtime.access_context

    def say(state: State) -> State:
        return {"text": f"{state.get('text', '')} said{mark}", "access": access}

    return StateGraph(State).add_node("say", say).add_edge(START, "say").compile()
