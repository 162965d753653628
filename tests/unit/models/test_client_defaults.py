"""Models that users' graphs make themselves get by with a server that doesn't stream."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI

from backend.models import client_defaults, whole_answers
from backend.models.openai_chat import openai_chat
from tests.kit.openai.refusals import OTHER_ERRORS, STREAM_USAGE, STREAMING
from tests.kit.openai.server import OpenAIServer

LOOK_UP = [{"name": "look_up", "description": "", "parameters": {}}]


@pytest.fixture(autouse=True)
def _unchanged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("_stream", "_astream"):
        monkeypatch.setattr(ChatOpenAI, name, getattr(ChatOpenAI, name))
    for client in (openai.OpenAI, openai.AsyncOpenAI):
        monkeypatch.setattr(client, "_make_sse_decoder", client._make_sse_decoder)
    client_defaults.accept_refused_streams.cache_clear()
    whole_answers.accept_whole_answers_everywhere.cache_clear()
    yield
    client_defaults.accept_refused_streams.cache_clear()
    whole_answers.accept_whole_answers_everywhere.cache_clear()


def chat(server: OpenAIServer, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(model="m", base_url=server.base_url, api_key="test", max_retries=0, **more)


def streams(server: OpenAIServer) -> list[bool]:
    return [request.stream for request in server.requests]


@pytest.mark.parametrize("given", STREAMING.values(), ids=STREAMING)
async def test_a_refused_stream_is_requested_whole(openai_server: OpenAIServer, given: tuple[int, Any]) -> None:
    client_defaults.accept_refused_streams(streaming=True)
    openai_server.script(sends='"stream":true', status=given[0], body=given[1], times=None)
    model = chat(openai_server)
    chunks = [chunk async for chunk in model.astream("hello")]
    assert "".join(chunk.text for chunk in chunks) == "You said: hello"
    assert sum((chunk.usage_metadata or {"total_tokens": 0})["total_tokens"] for chunk in chunks) > 0
    assert "".join(chunk.text for chunk in model.stream("hello")) == "You said: hello"
    assert streams(openai_server) == [True, False, False]


async def test_a_tool_call_survives_being_whole(openai_server: OpenAIServer) -> None:
    client_defaults.accept_refused_streams(streaming=False)
    openai_server.script(tool_calls=[{"name": "look_up", "arguments": {"q": "ships"}}], times=None)
    model = chat(openai_server)
    whole: Any = None
    async for chunk in model.bind_tools(LOOK_UP).astream("hello"):
        whole = chunk if whole is None else whole + chunk
    assert [call["args"] for call in whole.tool_calls] == [{"q": "ships"}]
    assert streams(openai_server) == [False]


async def test_what_the_users_code_sets_still_counts(openai_server: OpenAIServer) -> None:
    client_defaults.accept_refused_streams(streaming=False)
    await chat(openai_server, streaming=True).ainvoke("hello")
    await chat(openai_server).ainvoke("hello")
    assert streams(openai_server) == [True, False]


@pytest.mark.parametrize("given", STREAM_USAGE.values(), ids=STREAM_USAGE)
def test_refused_usage_leaves_the_stream(openai_server: OpenAIServer, given: tuple[int, Any]) -> None:
    client_defaults.accept_refused_streams(streaming=True)
    openai_server.script(sends='"stream_options"', status=given[0], body=given[1], times=None)
    model = chat(openai_server, stream_usage=True)
    for _ in range(2):
        assert len(list(model.stream("hello"))) > 2
    assert streams(openai_server) == [True, True, True]


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_an_ignored_wish_for_a_stream_is_no_loss(openai_server: OpenAIServer, asynchronous: bool) -> None:
    client_defaults.accept_refused_streams(streaming=True)
    message = {"role": "assistant", "content": "All of it."}
    openai_server.script(body={"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    model = chat(openai_server)
    chunks = [chunk async for chunk in model.astream("hello")] if asynchronous else list(model.stream("hello"))
    assert "".join(chunk.text for chunk in chunks) == "All of it."
    assert streams(openai_server) == [True]


@pytest.mark.parametrize("given", OTHER_ERRORS.values(), ids=OTHER_ERRORS)
async def test_other_errors_are_raised(openai_server: OpenAIServer, given: tuple[int, Any]) -> None:
    client_defaults.accept_refused_streams(streaming=True)
    openai_server.script(status=given[0], body=given[1], times=None)
    with pytest.raises(openai.APIError):
        await chat(openai_server).ainvoke("hello", stream=True)
    assert streams(openai_server) == [True]


async def test_refusals_that_arrive_at_the_same_time(openai_server: OpenAIServer) -> None:
    client_defaults.accept_refused_streams(streaming=True)
    refused = STREAMING["openai unverified"]
    openai_server.script(sends='"stream":true', status=refused[0], body=refused[1], delay=0.2, times=None)
    model = chat(openai_server)

    async def whole() -> str:
        return "".join([chunk.text async for chunk in model.astream("hello")])

    assert await asyncio.gather(*(whole() for _ in range(5))) == ["You said: hello"] * 5
    assert streams(openai_server).count(True) == 5


async def test_models_of_built_in_agents_are_left_alone(openai_server: OpenAIServer) -> None:
    client_defaults.accept_refused_streams(streaming=False)
    await openai_chat("m", base_url=openai_server.base_url, api_key="test", max_retries=0).ainvoke("hi", stream=True)
    assert streams(openai_server) == [True]
