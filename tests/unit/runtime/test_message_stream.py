"""A graph's messages are streamed as LangGraph does it, and its long texts are not looked through."""

from collections.abc import Iterator
from typing import Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import START, StateGraph

from backend.runtime.graphs.message_stream import skip_texts


class Long(str):
    """A text that notices when its characters are looked at."""

    __slots__ = ()
    looks = 0

    def __iter__(self) -> Iterator[str]:
        Long.looks += 1
        return super().__iter__()


class State(TypedDict, total=False):
    text: str
    messages: list[AIMessage]


@pytest.mark.parametrize("returned", [{"text": Long("abc")}, {"text": Long("abc"), "messages": [AIMessage("Hello.")]}])
async def test_messages_are_streamed_and_texts_are_not_walked_through(returned: State) -> None:
    skip_texts()
    graph = StateGraph(State)
    graph.add_node("write", lambda _: returned)
    graph.add_node("read", lambda _: {})
    graph.add_edge(START, "write").add_edge("write", "read")
    Long.looks = 0
    parts: list[Any] = [part async for part in graph.compile().astream({"text": Long("begin")}, stream_mode="messages")]
    assert [message.text for message, _ in parts] == [message.text for message in returned.get("messages", [])]
    assert Long.looks == 0
