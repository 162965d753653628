"""Streamed answers whose chunks stay JSON are the same as those made of OpenAI's objects."""

import re
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, BaseMessageChunk
from langchain_openai import ChatOpenAI
from openai.types.chat import ChatCompletionChunk

from backend.models.openai_stream import leave_chunks_as_they_come
from tests.kit.openai.server import OpenAIServer, Preset

TOOLS = [{"name": "look_up", "description": "", "parameters": {}}]
CALLS = [{"name": "look_up", "arguments": {"q": "a b"}}, {"name": "look_up", "arguments": "q=a"}]


def chat(server: OpenAIServer) -> ChatOpenAI:
    options: dict[str, Any] = {"model": "gpt-4o-mini", "max_retries": 0, "timeout": 0.5, "stream_usage": True}
    return ChatOpenAI(base_url=server.base_url, api_key="test", **options)


async def answered(model: Any) -> list[str]:
    """All chunks, without the parts that differ from call to call."""
    chunks: list[BaseMessageChunk] = [chunk async for chunk in model.astream("Where did the ship go?")]
    return [re.sub(r"call_\d+_", "call_", repr(chunk.model_dump(exclude={"id"}))) for chunk in chunks]


@pytest.mark.parametrize(
    "script",
    [
        {"content": "Far away, to the north, with “quotes” and 🙂."},
        {"content": "With usage.", "usage": {"input_tokens": 7, "output_tokens": 3, "cached_tokens": 2}},
        {"content": "I can", "finish_reason": "content_filter"},
        {"refusal": "I'm sorry, I can't help with that."},
        {"tool_calls": CALLS},
    ],
)
async def test_the_answer_is_the_same(openai_server: OpenAIServer, script: dict[str, Any]) -> None:
    openai_server.script(**script, times=2)
    usual, plain = chat(openai_server), chat(openai_server)
    leave_chunks_as_they_come(plain)
    given = [await answered(model.bind_tools(TOOLS)) for model in (usual, plain)]
    assert given[0] == given[1]
    assert len(given[1]) > 1


FAILURES: list[Preset] = ["stream_error", "cut_stream", "stall_stream", "malformed", "rate_limit", "server_error"]


@pytest.mark.parametrize("preset", FAILURES)
async def test_errors_are_the_same(openai_server: OpenAIServer, preset: Preset) -> None:
    openai_server.script(preset, times=2)
    usual, plain = chat(openai_server), chat(openai_server)
    leave_chunks_as_they_come(plain)
    raised = []
    for model in (usual, plain):
        try:
            await answered(model)
        except Exception as error:
            raised.append((type(error), re.sub(r"req_\w+", "", str(error))))
    assert len(raised) == 2
    assert raised[0] == raised[1]


async def test_chunks_are_not_parsed_into_objects(openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = ChatCompletionChunk.construct.__func__  # type: ignore[attr-defined]

    def construct(cls: Any, *given: Any, **more: Any) -> Any:
        made.append(given)
        return real(cls, *given, **more)

    monkeypatch.setattr(ChatCompletionChunk, "construct", classmethod(construct))
    usual, plain = chat(openai_server), chat(openai_server)
    leave_chunks_as_they_come(plain)
    await answered(usual)
    assert made, "the client makes its objects otherwise by now"
    made.clear()
    await answered(plain)
    assert not made


async def test_an_answer_without_streaming_is_unchanged(openai_server: OpenAIServer) -> None:
    openai_server.script(content="All of it.")
    model = chat(openai_server)
    leave_chunks_as_they_come(model)
    answer = await model.ainvoke("Where did the ship go?")
    assert not isinstance(answer, AIMessageChunk)
    assert answer.text == "All of it."
