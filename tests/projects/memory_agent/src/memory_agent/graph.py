"""The graph of the agent: it answers with what it remembers, and remembers what it hears."""

import os
import uuid
from dataclasses import dataclass
from typing import Annotated

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph, add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.store.base import BaseStore


@dataclass
class State:
    """The conversation."""

    messages: Annotated[list[AnyMessage], add_messages]


async def call_model(state: State, config: RunnableConfig, *, store: BaseStore) -> dict[str, list[AnyMessage]]:
    """Answer with everything that is remembered of the user."""
    namespace = (os.environ["MEMORY_NAMESPACE"], config["configurable"]["user_id"])
    memories = await store.asearch(namespace, limit=10)
    known = "\n".join(sorted(str(memory.value["text"]) for memory in memories))
    model = ChatOpenAI(model=config["configurable"].get("model", "gpt-4.1-mini"))
    reply = await model.ainvoke([("system", f"You know: {known}"), *state.messages])
    return {"messages": [reply]}


async def store_memory(state: State, config: RunnableConfig, *, store: BaseStore) -> dict[str, list[AnyMessage]]:
    """Remember the user's last words."""
    namespace = (os.environ["MEMORY_NAMESPACE"], config["configurable"]["user_id"])
    said = next(message for message in reversed(state.messages) if message.type == "human")
    await store.aput(namespace, str(uuid.uuid4()), {"text": said.text})
    return {"messages": []}


def make_graph(config: RunnableConfig) -> CompiledStateGraph[State, None, State, State]:
    """The graph for a user."""
    if "user_id" not in config.get("configurable", {}):
        raise ValueError("configurable.user_id is needed")
    builder = StateGraph(State)
    builder.add_node("call_model", call_model)
    builder.add_node("store_memory", store_memory)
    builder.add_edge(START, "call_model")
    builder.add_edge("call_model", "store_memory")
    builder.add_edge("store_memory", END)
    return builder.compile(name="Memory Agent")
