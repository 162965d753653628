"""Graphs of all kinds, whose states hold objects of this project."""

import asyncio
import operator
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.types import interrupt

from agent.notes import Note


class State(TypedDict, total=False):
    topic: str
    answers: Annotated[list[str], operator.add]
    notes: Annotated[list[Note], operator.add]
    about: dict[str, Any]


@dataclass
class Context:
    language: str = "en"


def model() -> ChatOpenAI:
    return ChatOpenAI(model="gpt-4.1-mini")


def prompt(number: int, state: State) -> str:
    return f"Step {number} of {state['topic']}. So far: {'; '.join(state.get('answers', [])) or 'nothing'}"


def chain(*nodes: Any, context: Any = None) -> StateGraph:
    built = StateGraph(State, context_schema=context)
    names = [START]
    for node in nodes:
        name = getattr(node, "__name__", "node")
        built.add_node(name, node)
        built.add_edge(names[-1], name)
        names.append(name)
    built.add_edge(names[-1], END)
    return built


async def first(state: State) -> State:
    get_stream_writer()({"doing": "first"})
    answer = await model().ainvoke(prompt(1, state))
    return {"answers": [answer.text], "notes": [Note("first")]}


async def second(state: State) -> State:
    answer = await model().ainvoke(prompt(2, state))
    return {"answers": [answer.text], "notes": [Note(f"after {state['notes'][0].text}")]}


def first_blocking(state: State) -> State:
    return {"answers": [model().invoke(prompt(1, state)).text]}


async def second_blocking(state: State) -> State:
    """Blocks the event loop, as many projects do."""
    return {"answers": [model().invoke(prompt(2, state)).text]}


def ask(state: State) -> State:
    said = [interrupt({"question": "Who?"}), interrupt({"question": "How many?"})]
    return {"answers": [" ".join(map(str, said))]}


async def remember(state: State, runtime: Runtime[Context], config: RunnableConfig) -> State:
    store = runtime.store
    assert store is not None
    await store.aput(("agent", "notes"), state["topic"], {"language": runtime.context.language})
    found = await store.asearch(("agent",))
    user = config["configurable"].get("user_id", "nobody")
    return {
        "answers": [f"{user}: {item.key} in {item.value['language']}" for item in found if item.key == state["topic"]]
    }


async def tell_versions(state: State) -> State:
    print("telling versions")  # noqa: T201  # as users' code does
    about = {name: version(name) for name in ("langgraph", "tenacity")}
    return {"about": {**about, "package": str(Path(__file__).parents[1]), "token": os.environ["AGENT_API_TOKEN"]}}


async def work(state: State) -> State:
    """Take as long as a file, which the topic names, isn't there."""
    place = Path(state["topic"])
    with place.with_suffix(".begun").open("a") as begun:
        begun.write(f"{os.getpid()}\n")
    while not place.exists():  # noqa: ASYNC110, ASYNC240  # another process makes it
        await asyncio.sleep(0.02)
    return {"answers": ["worked"]}


@tool
def weigh(what: str) -> str:
    """How heavy something is."""
    return f"{what} weighs nothing"


def use_tool(state: State) -> State:
    return {"answers": [weigh.invoke({"what": state["topic"]})]}


def make(config: RunnableConfig) -> StateGraph:
    async def made(state: State) -> State:
        return {"answers": [str(config["configurable"].get("step"))]}

    return chain(made)


def make_for(config: RunnableConfig, runtime: Any) -> StateGraph:
    """As projects check it that were written for LangGraph's server."""
    if not isinstance(runtime.store, BaseStore):
        raise TypeError(f"the store is a {type(runtime.store).__name__}")
    access = runtime.access_context
    runs = runtime.execution_runtime is not None
    kind = f"{type(runtime).__module__}.{type(runtime).__name__}"

    async def made(state: State) -> State:
        return {"answers": [access, str(runs), kind]}

    return chain(made)


steps = chain(first, second).compile()
blocking_steps = chain(first_blocking, second_blocking)
asking = chain(ask)
nested = StateGraph(State)
nested.add_node("inside", chain(tell_versions, ask).compile())
nested.add_edge(START, "inside")
nested.add_edge("inside", END)
stopping = chain(tell_versions, ask).compile(interrupt_before=["ask"])
remembering = chain(remember, context=Context)
working = chain(tell_versions, work)
using = chain(use_tool)
