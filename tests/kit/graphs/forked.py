"""Graphs to be forked: of several nodes, each of which calls a model, so that it can be counted what is paid again."""

import operator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

from langchain.chat_models import init_chat_model
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command


class Essay(TypedDict, total=False):
    topic: str
    outline: str
    draft: str
    review: str
    log: Annotated[list[str], operator.add]


@dataclass
class Context:
    """What LangGraph's templates let a client choose."""

    model: str = "openai:gpt-4.1-mini"
    system_prompt: str = "You write."


def _step(name: str, reads: str, writes: str) -> Any:
    async def run(state: Essay, runtime: Runtime[Context]) -> dict[str, Any]:
        model = init_chat_model(runtime.context.model)
        reply = await model.ainvoke(
            [("system", runtime.context.system_prompt), ("user", f"{name}: {dict(state)[reads]}")]
        )
        return {writes: reply.text, "log": [name]}

    return run


def essay() -> CompiledStateGraph[Any, Any, Any, Any]:
    """Three nodes, one after another."""
    graph = StateGraph(Essay, context_schema=Context)
    graph.add_node("plan", _step("plan", "topic", "outline"))
    graph.add_node("write", _step("write", "outline", "draft"))
    graph.add_node("review", _step("review", "draft", "review"))
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "write")
    graph.add_edge("write", "review")
    return graph.compile()


def routed() -> CompiledStateGraph[Any, Any, Any, Any]:
    """The first node chooses the second, and no edge leads there."""

    def choose(state: Essay) -> Command[Literal["answer"]]:
        return Command(goto="answer", update={"outline": state["topic"].upper()})

    graph = StateGraph(Essay)
    graph.add_node("choose", choose)
    graph.add_node("answer", lambda state: {"draft": f"About {state['outline']}."})
    graph.add_edge(START, "choose")
    graph.add_edge("answer", END)
    return graph.compile()


def nested() -> CompiledStateGraph[Any, Any, Any, Any]:
    """The three nodes as a subgraph."""
    graph = StateGraph(Essay, context_schema=Context)
    graph.add_node("essay", essay())
    graph.add_edge(START, "essay")
    return graph.compile()
