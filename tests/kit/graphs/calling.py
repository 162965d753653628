"""Graphs as users write them, with one node that calls a model and knows nothing of budgets or cancellation."""

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

prepared: list[str] = []
"""The inputs of the first node of `calling_late`, for tests in the same process."""


def _prepare(state: Question) -> Question:
    prepared.append(state["question"])
    return {"question": f"{state['question']} Please."}


async def _ask_as_usual(state: Question) -> Question:
    reply = await init_chat_model("openai:gpt-4.1-mini").ainvoke(state["question"])
    return {"answer": reply.text}


calling_late = StateGraph(Question)
calling_late.add_node("prepare", _prepare)
calling_late.add_node("ask", _ask_as_usual)
calling_late.set_entry_point("prepare")
calling_late.add_edge("prepare", "ask")


async def _ask_patiently(state: Question) -> Question:
    reply = await init_chat_model("openai:gpt-4.1-mini", max_retries=2).ainvoke(state["question"])
    return {"answer": reply.text}


calling_patiently = StateGraph(Question)
calling_patiently.add_node("ask", _ask_patiently)
calling_patiently.set_entry_point("ask")


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
