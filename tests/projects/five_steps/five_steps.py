"""Five steps one after the other, each one call of a hosted model."""

import operator
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Annotated, TypedDict

from langchain.chat_models import init_chat_model
from langgraph.graph import END, START, StateGraph

NUMBERS = range(1, 6)


class State(TypedDict, total=False):
    topic: str
    answers: Annotated[list[str], operator.add]


def prompt(number: int, state: State) -> str:
    return f"Step {number} of {state['topic']}. So far: {'; '.join(state.get('answers', [])) or 'nothing'}"


def step(number: int) -> Callable[[State], Awaitable[State]]:
    async def call(state: State) -> State:
        model = init_chat_model("openai:gpt-4.1-mini", max_retries=0)
        return {"answers": [(await model.ainvoke(prompt(number, state))).text]}

    return call


def blocking_step(number: int) -> Callable[[State], State]:
    def call(state: State) -> State:
        model = init_chat_model("openai:gpt-4.1-mini", max_retries=0)
        return {"answers": [model.invoke(prompt(number, state)).text]}

    return call


def chain(make: Callable[[int], object]) -> StateGraph:
    built = StateGraph(State)
    for number in NUMBERS:
        built.add_node(f"step_{number}", make(number))
    for source, target in pairwise([START, *(f"step_{n}" for n in NUMBERS), END]):
        built.add_edge(source, target)
    return built


graph = chain(step)
blocking_graph = chain(blocking_step)
