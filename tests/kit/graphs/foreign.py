"""Graphs as users write them, without any knowledge of this project."""

import asyncio
import operator
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

from langchain.chat_models import init_chat_model
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.runtime import Runtime
from langgraph.types import Command, Send
from langgraph_sdk.runtime import ServerRuntime

runs: list[str] = []
"""The nodes that ran, in order, for tests in the same process."""


class Counted(TypedDict, total=False):
    """A number that nodes add to."""

    value: int
    fail_once: bool


failures = {"left": 0}


def add_one(state: Counted) -> Counted:
    runs.append("add_one")
    return {"value": state["value"] + 1}


def double(state: Counted) -> Counted:
    runs.append("double")
    if failures["left"]:
        failures["left"] -= 1
        raise RuntimeError("the second node failed")
    return {"value": state["value"] * 2}


builder = StateGraph(Counted)
builder.add_node(add_one)
builder.add_node(double)
builder.add_edge(START, "add_one")
builder.add_edge("add_one", "double")
builder.add_edge("double", END)

compiled = builder.compile()


class Growing(TypedDict, total=False):
    """A list that grows with each step of a loop."""

    steps: int
    items: Annotated[list[str], operator.add]


def _grow(state: Growing) -> Growing:
    return {"items": [f"{len(state['items'])} " + "word " * 400]}


def _again(state: Growing) -> str:
    return "grow" if len(state["items"]) < state["steps"] else END


_loop = StateGraph(Growing)
_loop.add_node("grow", _grow)
_loop.add_edge(START, "grow")
_loop.add_conditional_edges("grow", _again)
loop = _loop.compile().with_config(recursion_limit=10_000)


def factory() -> StateGraph[Counted, None, Counted, Counted]:
    return builder


async def async_factory(config: RunnableConfig) -> CompiledStateGraph[Counted, None, Counted, Counted]:
    step = config["configurable"].get("step", 1)

    def add(state: Counted) -> Counted:
        return {"value": state["value"] + step}

    graph = StateGraph(Counted)
    graph.add_node("add", add)
    graph.add_edge(START, "add")
    graph.add_edge("add", END)
    return graph.compile()


closed: list[str] = []


@entrypoint()
async def shout(given: list[str] | str) -> str:
    """A graph whose input and output are no dicts."""
    return " ".join([given] if isinstance(given, str) else given).upper()


@asynccontextmanager
async def resourceful() -> AsyncIterator[StateGraph[Counted, None, Counted, Counted]]:
    yield builder
    closed.append("resourceful")


@dataclass
class Language:
    """A runtime context."""

    name: str


class Said(TypedDict, total=False):
    said: str
    config: dict[str, Any]


async def made_for_a_run(config: RunnableConfig, runtime: ServerRuntime[Language]) -> StateGraph[Any, Any, Any, Any]:
    """As LangGraph's server calls it: what a run makes its graph with."""
    execution = runtime.execution_runtime
    assert execution is not None
    assert execution.user is not None
    said = f"{execution.context.name} for {execution.user.identity}, {type(execution.store).__name__}"

    def say(state: Said, config: RunnableConfig) -> Said:
        return {"said": said, "config": {"tags": config.get("tags"), "owner": (config.get("metadata") or {})["owner"]}}

    graph = StateGraph(Said, context_schema=Language)
    graph.add_node(say)
    graph.add_edge(START, "say")
    return graph


class Fanned(TypedDict, total=False):
    """Words that are processed in parallel."""

    words: list[str]
    lengths: Annotated[list[int], operator.add]
    verdict: str
    memory: Any


def _spread(state: Fanned) -> list[Send]:
    return [Send("measure", {"word": word}) for word in state["words"]]


class OneWord(TypedDict):
    """The input of one execution of `measure`."""

    word: str


def _measure(state: OneWord) -> Fanned:
    return {"lengths": [len(state["word"])]}


async def _judge(state: Fanned, runtime: Runtime[Language]) -> Command[Literal["remember", "__end__"]]:
    verdict = f"{sum(state['lengths'])} letters in {runtime.context.name}"
    return Command(update={"verdict": verdict}, goto="remember")


async def _remember(state: Fanned, runtime: Runtime[Language]) -> Fanned:
    assert runtime.store is not None
    await runtime.store.aput(("words",), "last", {"verdict": state["verdict"]})
    item = await runtime.store.aget(("words",), "last")
    return {"memory": item.value if item else None}


_fan = StateGraph(Fanned, context_schema=Language)
_fan.add_node("spread", lambda _: {})
_fan.add_node("measure", _measure)
_fan.add_node("judge", _judge)
_fan.add_node("remember", _remember)
_fan.add_edge(START, "spread")
_fan.add_conditional_edges("spread", _spread, ["measure"])
_fan.add_edge("measure", "judge")
fanned = _fan.compile()


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"It rains in {city}."


async def _chat(state: MessagesState) -> dict[str, list[AnyMessage]]:
    model = init_chat_model("openai:gpt-4.1-mini", max_retries=0, stream_usage=True).bind_tools([weather])
    return {"messages": [await model.ainvoke(state["messages"])]}


def assistant() -> StateGraph[MessagesState, None, MessagesState, MessagesState]:
    graph = StateGraph(MessagesState)
    graph.add_node("chat", _chat)
    graph.add_node("tools", ToolNode([weather]))
    graph.add_edge(START, "chat")
    graph.add_conditional_edges("chat", tools_condition)
    graph.add_edge("tools", "chat")
    return graph


class Outer(TypedDict, total=False):
    """A question that a subgraph answers."""

    question: str
    answer: str


async def _inside(state: Outer) -> Outer:
    reply = await assistant().compile().ainvoke({"messages": [HumanMessage(state["question"])]})
    return {"answer": reply["messages"][-1].content}


nested = StateGraph(Outer)
nested.add_node("inside", _inside)
nested.add_edge(START, "inside")
nested.add_edge("inside", END)


broken = 42


def failing_factory() -> None:
    raise KeyError("no such setting")


async def hesitate(state: Counted) -> Counted:
    runs.append("hesitate")
    if failures.get("hesitate"):
        failures["hesitate"] -= 1
        await asyncio.Event().wait()
    return {"value": state["value"] * 2}


async def stare(state: Counted) -> Counted:
    time.sleep(1.0)  # noqa: ASYNC251  # what nobody should do
    return state


hesitant = StateGraph(Counted)
hesitant.add_node(add_one)
hesitant.add_node(hesitate)
hesitant.add_edge(START, "add_one")
hesitant.add_edge("add_one", "hesitate")

blocking = StateGraph(Counted)
blocking.add_node(stare)
blocking.add_edge(START, "stare")
