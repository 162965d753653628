"""Does once what each run would do for the first time, before the host forks: imports above all.

LangGraph, LangChain and OpenAI's client import much of themselves when they are first used, which takes a quarter of a
second. Nothing of it may be left open: no thread, no connection.
"""

import asyncio
import importlib
import importlib.util
from contextlib import suppress
from typing import Any, TypedDict

from langchain_core.language_models import FakeListChatModel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

_NOBODY = "http://127.0.0.1:1/v1"
"""An address that refuses connections at once."""

_LATE = ("openai.lib.streaming.chat", "openai.types.chat.completions", "jiter")
"""Modules that a call imports only once it is answered."""


class _State(TypedDict, total=False):
    text: str


def rehearse() -> None:
    """Run a graph with a model that is none, and call OpenAI's client in vain, if the project has it."""
    with suppress(Exception):  # of whatever version something is missing, tasks do it themselves
        asyncio.run(_run_graph())
    for name in _LATE:
        with suppress(Exception):
            importlib.import_module(name)
    with suppress(Exception):
        if importlib.util.find_spec("openai") is not None:
            asyncio.run(_call_in_vain())


async def _run_graph() -> None:
    model = FakeListChatModel(responses=["nothing"])

    async def call(state: _State) -> _State:
        return {"text": str((await model.ainvoke(state.get("text", ""))).content)}

    graph: Any = StateGraph(_State)
    graph.add_node("call", call)
    graph.add_edge(START, "call")
    graph.add_edge("call", END)
    compiled = graph.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "rehearsal"}}
    async for _ in compiled.astream({"text": ""}, config, stream_mode=["tasks", "messages", "values"], subgraphs=True):
        pass
    await compiled.aget_state(config)


async def _call_in_vain() -> None:
    import openai

    given: Any = {"model": "none", "messages": [{"role": "user", "content": ""}], "stream": True}
    async with openai.AsyncOpenAI(api_key="none", base_url=_NOBODY, max_retries=0, timeout=1.0) as client:
        with suppress(openai.APIError):
            await client.chat.completions.create(**given)
    blocking = openai.OpenAI(api_key="none", base_url=_NOBODY, max_retries=0, timeout=1.0)
    with blocking, suppress(openai.APIError):
        blocking.chat.completions.create(**given)
