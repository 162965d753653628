"""Graphs as users write them whose one node calls a model, knowing nothing of budgets."""

from typing import TypedDict

from langchain.chat_models import init_chat_model
from langgraph.graph import StateGraph


class Question(TypedDict, total=False):
    """A question and its answer."""

    question: str
    answer: str


def _ask_sync(state: Question) -> Question:
    return {"answer": init_chat_model("openai:gpt-4.1-mini", max_retries=0).invoke(state["question"]).text}


async def _ask_async(state: Question) -> Question:
    reply = await init_chat_model("openai:gpt-4.1-mini", max_retries=0).ainvoke(state["question"])
    return {"answer": reply.text}


calling_sync = StateGraph(Question)
calling_sync.add_node("ask", _ask_sync)
calling_sync.set_entry_point("ask")

calling_async = StateGraph(Question)
calling_async.add_node("ask", _ask_async)
calling_async.set_entry_point("ask")
