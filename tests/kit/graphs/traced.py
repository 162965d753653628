"""Users' graphs that trace themselves with Langfuse's SDK, or that call models inside tools."""

from typing import TypedDict

from langchain.chat_models import init_chat_model
from langchain_core.tools import tool
from langfuse import get_client
from langfuse.langchain import CallbackHandler
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph


class Question(TypedDict, total=False):
    """A question and its answer."""

    question: str
    answer: str


async def _ask(state: Question) -> Question:
    reply = await init_chat_model("openai:gpt-4.1-mini", max_retries=0).ainvoke(state["question"])
    return {"answer": str(reply.text)}


async def _look_up(state: Question) -> Question:
    with get_client().start_as_current_observation(name="my own span", input="data:image/png;base64," + "QUJD" * 50):
        answer = state["question"].upper()
    get_client().flush()
    return {"answer": answer}


@tool
async def expert(question: str) -> str:
    """Asks a model."""
    return (await _ask({"question": question}))["answer"]


async def _consult(state: Question) -> Question:
    return {"answer": await expert.ainvoke({"question": state["question"]})}


def _graph(node: object) -> StateGraph[Question, None, Question, Question]:
    graph = StateGraph(Question)
    graph.add_node("ask", node)  # type: ignore[call-overload]  # any of them
    graph.add_edge(START, "ask")
    return graph


def handled() -> CompiledStateGraph[Question, None, Question, Question]:
    """A graph with Langfuse's handler bound to it."""
    return _graph(_ask).compile().with_config({"callbacks": [CallbackHandler()]})


def observed() -> StateGraph[Question, None, Question, Question]:
    """A graph that opens a span of its own in a node."""
    return _graph(_look_up)


consulting = _graph(_consult)
