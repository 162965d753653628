"""Graphs with many steps, large states and large answers. All texts are random, so that nothing compresses."""

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, TypedDict

import numpy as np
from langchain.chat_models import init_chat_model
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph

ASCII = (33, 127)
CYRILLIC = (0x400, 0x450)
NODES = 10

_random = np.random.default_rng()


def random_text(size: int, *, foreign: bool = False) -> str:
    """A text of so many characters. Fast: what is measured is not how it is made."""
    codes = _random.integers(*(CYRILLIC if foreign else ASCII), size, dtype=np.uint32)
    return codes.tobytes().decode("utf-32-le")


class Whole(TypedDict, total=False):
    """Each checkpoint has all messages."""

    rounds: int
    size: int
    messages: Annotated[list[str], operator.add]


def extend(state: Sequence[str], writes: Sequence[Sequence[str]]) -> list[str]:
    """Append everything that was written."""
    return [*state, *(item for written in writes for item in written)]


class Deltas(TypedDict, total=False):
    """Each checkpoint has the messages that are new."""

    rounds: int
    size: int
    messages: Annotated[list[str], DeltaChannel(extend)]


def _loop(schema: Any) -> Any:
    built = StateGraph(schema)
    built.add_node("step", lambda state: {"messages": [random_text(state["size"])]})
    built.add_edge(START, "step")
    built.add_conditional_edges(
        "step", lambda state: "step" if len(state["messages"]) < state["rounds"] else END, ["step", END]
    )
    return built.compile().with_config(recursion_limit=100_000)


class Text(TypedDict, total=False):
    """A large text that each node replaces."""

    size: int
    foreign: bool
    text: str


def _states() -> Any:
    built = StateGraph(Text)
    names = [f"node_{number}" for number in range(NODES)]
    for name in names:
        built.add_node(name, lambda state: {"text": random_text(state["size"], foreign=state.get("foreign", False))})
    for source, target in pairwise([START, *names, END]):
        built.add_edge(source, target)
    return built.compile()


class Payload(TypedDict, total=False):
    """An input, and an output of a size or with the input's."""

    payload: Any
    size: int
    foreign: bool
    text: str


def _echo() -> Any:
    def answer(state: Payload) -> Payload:
        return {"text": random_text(state.get("size", 10), foreign=state.get("foreign", False))}

    return StateGraph(Payload).add_node("answer", answer).add_edge(START, "answer").compile()


async def _ask(state: Payload) -> Payload:
    answer = await init_chat_model("openai:gpt-4.1-mini", max_retries=0).ainvoke("Tell me everything.")
    return {"text": answer.text}


loop = _loop(Whole)
loop_of_deltas = _loop(Deltas)
states = _states()
echo = _echo()
tokens = StateGraph(Payload).add_node("ask", _ask).add_edge(START, "ask").compile()
