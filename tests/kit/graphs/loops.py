"""Graphs of one node in a loop, whose states grow with each step."""

import operator
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypedDict

from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, StateGraph

failures: dict[str, int] = {}
"""At which step a graph fails once, by its name."""
steps: list[int] = []
"""The steps that were run."""


def extend(state: Sequence[str], writes: Sequence[Sequence[str]]) -> list[str]:
    """Append everything that was written."""
    return [*state, *(item for written in writes for item in written)]


class Whole(TypedDict, total=False):
    """Each checkpoint has all messages."""

    rounds: int
    size: int
    messages: Annotated[list[str], operator.add]


class Deltas(TypedDict, total=False):
    """Each checkpoint has the messages that are new."""

    rounds: int
    size: int
    messages: Annotated[list[str], DeltaChannel(extend)]


def _loop(name: str, schema: Any) -> Any:
    def step(state: Any) -> dict[str, Any]:
        number = len(state.get("messages", [])) + 1
        if failures.get(name) == number:
            del failures[name]
            raise RuntimeError(f"step {number} failed")
        steps.append(number)
        return {"messages": [f"{number}:".ljust(state.get("size", 10), "x")]}

    def after(state: Any) -> str:
        return "step" if len(state["messages"]) < state["rounds"] else "__end__"

    built = StateGraph(schema)
    built.add_node("step", step)
    built.add_edge(START, "step")
    decide: Callable[[Any], str] = after
    built.add_conditional_edges("step", decide, ["step", "__end__"])
    return built.compile().with_config(recursion_limit=10_000)


whole = _loop("whole", Whole)
deltas = _loop("deltas", Deltas)
