"""Graphs as users write them whose one node calls a model, knowing nothing of budgets or of being stopped."""

import threading
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

left = threading.Event()
"""Set when `asking_twice` has left its node."""


def _ask_twice(state: Question) -> Question:
    try:
        return _ask_sync({"question": _ask_sync(state)["answer"]})
    finally:
        left.set()


asking_twice = StateGraph(Question)
asking_twice.add_node("ask", _ask_twice)
asking_twice.set_entry_point("ask")
