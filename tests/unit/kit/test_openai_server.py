"""What each misbehaviour of the fake OpenAI server makes the real clients raise.

The rest of the project relies on these types: where a newer client changes one, this file shows it first.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import openai
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from langchain_anthropic import ChatAnthropic
from langchain_anthropic.chat_models import AnthropicOverloadedError
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelTimeoutError,
)
from langchain_core.messages import AIMessageChunk, BaseMessageChunk, HumanMessage
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models.base import OpenAIRefusalError
from ollama import ResponseError
from pydantic import BaseModel, Field, ValidationError

from tests.kit.documents.json_example import example
from tests.kit.openai.server import PRESETS, Behaviour, OpenAIServer, Preset, Stats, read_behave

MODEL = "gpt-4o-mini"
APIS = ("chat", "responses")


def chat(server: OpenAIServer, api: str = "chat", **options: Any) -> ChatOpenAI:
    given: dict[str, Any] = {"model": MODEL, "max_retries": 0, "timeout": 5, **options}
    return ChatOpenAI(base_url=server.base_url, api_key="test", use_responses_api=api == "responses", **given)


def stream(model: ChatOpenAI, prompt: str, chunks: list[AIMessageChunk]) -> AIMessageChunk:
    """The sum of the chunks; those that came before an error are in `chunks`."""
    for chunk in model.stream(prompt):
        chunks.append(chunk)
    return total(chunks)


def total(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole: BaseMessageChunk = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert isinstance(whole, AIMessageChunk)
    return whole


# The default answer


@pytest.mark.parametrize("api", APIS)
def test_repeats_the_last_user_message(openai_server: OpenAIServer, api: str) -> None:
    answer = chat(openai_server, api).invoke([("system", "Be brief."), ("user", "hello")])
    assert answer.text == "You said: hello"
    assert answer.usage_metadata is not None
    assert (answer.usage_metadata["input_tokens"], answer.usage_metadata["output_tokens"]) == (4, 4)


@pytest.mark.parametrize("api", APIS)
def test_streams_by_tokens_and_ends_with_usage(openai_server: OpenAIServer, api: str) -> None:
    chunks: list[AIMessageChunk] = []
    # Left to itself ChatOpenAI asks for usage only where no base URL is set.
    whole = stream(chat(openai_server, api, stream_usage=True), "hello", chunks)
    assert whole.text == "You said: hello"
    assert sum(bool(chunk.text) for chunk in chunks) == 4
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 4
    assert openai_server.requests[0].stream


@pytest.mark.parametrize("api", APIS)
def test_describes_images(openai_server: OpenAIServer, api: str) -> None:
    pictures = [base64.b64encode(bytes(size)).decode() for size in (70, 71, 72)]
    parts: list[str | dict[Any, Any]] = [{"type": "text", "text": "what?"}]
    parts += [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{p}"}} for p in pictures]
    answer = chat(openai_server, api).invoke([HumanMessage(parts)])
    sizes = "image/png 70 bytes, image/png 71 bytes, image/png 72 bytes"
    assert answer.text == f"You said: what? [3 images: {sizes}]"
    assert openai_server.requests[0].images == sizes.split(", ")


def test_long_messages_are_repeated_in_part_and_max_tokens_cuts(openai_server: OpenAIServer) -> None:
    assert len(chat(openai_server).invoke("x" * 5000).text) == len("You said: ") + 200 + 1
    cut = chat(openai_server, max_tokens=2).invoke("hello")
    assert (cut.text, cut.response_metadata["finish_reason"]) == ("You said", "length")


def test_lists_models(openai_server: OpenAIServer) -> None:
    with openai.OpenAI(base_url=openai_server.base_url, api_key="test") as client:
        assert MODEL in {model.id for model in client.models.list()}


# Tools and structured output


class Line(BaseModel):
    text: str = Field(min_length=6)
    at: tuple[int, int] | None


class Invoice(BaseModel):
    number: str
    total: float
    paid: bool
    lines: list[Line] = Field(min_length=2)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_fits_the_schema(openai_server: OpenAIServer, api: str, method: Any) -> None:
    model = chat(openai_server, api).with_structured_output(Invoice, method=method)
    answer = model.invoke("read it")
    assert isinstance(answer, Invoice)
    assert len(answer.lines) == 2


def test_structured_output_can_be_scripted_to_fit_or_not(openai_server: OpenAIServer) -> None:
    model = chat(openai_server).with_structured_output(Invoice, method="json_schema")
    openai_server.script(
        content={
            "number": "7",
            "total": 1.5,
            "paid": True,
            "lines": [{"text": "a hammer", "at": None}, {"text": "a nail", "at": None}],
        }
    )
    openai_server.script(content={"number": "7"})
    openai_server.script("refusal")
    answer = model.invoke("read it")
    assert isinstance(answer, Invoice)
    assert answer.number == "7"
    with pytest.raises(ValidationError):
        model.invoke("read it")
    with pytest.raises(OpenAIRefusalError):
        model.invoke("read it")


@pytest.mark.parametrize("api", APIS)
def test_tool_calls(openai_server: OpenAIServer, api: str) -> None:
    calls = [{"name": "look_up", "arguments": {"q": "a b"}}, {"name": "look_up", "arguments": "q=a"}]
    openai_server.script(tool_calls=calls, times=2)
    model = chat(openai_server, api).bind_tools([{"name": "look_up", "description": "", "parameters": {}}])
    for answer in (
        model.invoke("go"),
        total([c for c in model.stream("go") if isinstance(c, AIMessageChunk)]),
    ):
        assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("look_up", {"q": "a b"})]
        assert len(answer.invalid_tool_calls) == 1
    assert openai_server.requests[0].tools == ["look_up"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 3, "multipleOf": 4},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
        {"type": "number", "maximum": -2.5},
        {"type": ["null", "string"], "format": "date-time"},
        {"anyOf": [{"type": "null"}, {"enum": ["a", "b"]}]},
        {"allOf": [{"$ref": "#/$defs/a"}, {"properties": {"y": {"const": 1}}, "required": ["y"]}],
         "$defs": {"a": {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]}}},
        {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
         "required": ["next"]},
    ],
)  # fmt: skip
def test_the_smallest_value_fits_its_schema(schema: dict[str, Any]) -> None:
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(example(schema))


# What the clients raise

ERRORS: dict[Preset, tuple[type[openai.APIError], type[ModelError] | None, int | None, str | None]] = {
    "rate_limit": (openai.RateLimitError, ModelRateLimitError, 429, "rate_limit_exceeded"),
    "quota": (openai.RateLimitError, ModelRateLimitError, 429, "insufficient_quota"),
    "auth": (openai.AuthenticationError, ModelAuthenticationError, 401, "invalid_api_key"),
    "forbidden": (openai.PermissionDeniedError, ModelPermissionDeniedError, 403, "model_not_found"),
    "not_found": (openai.NotFoundError, ModelNotFoundError, 404, "model_not_found"),
    "bad_request": (openai.BadRequestError, ModelInvalidRequestError, 400, None),
    "unprocessable": (openai.UnprocessableEntityError, None, 422, None),
    # Not LangChain's ContextOverflowError: this wording it does not know, only the code tells.
    "context_length": (openai.BadRequestError, ModelInvalidRequestError, 400, "context_length_exceeded"),
    "context_window": (openai.BadRequestError, ContextOverflowError, 400, "context_length_exceeded"),
    "content_filter": (openai.BadRequestError, ModelInvalidRequestError, 400, "content_filter"),
    "server_error": (openai.InternalServerError, ModelAPIError, 500, None),
    "bad_gateway": (openai.InternalServerError, ModelAPIError, 502, None),
    "overloaded": (openai.InternalServerError, ModelAPIError, 503, None),
    "gateway_timeout": (openai.InternalServerError, ModelAPIError, 504, None),
    "timeout": (openai.APITimeoutError, ModelTimeoutError, None, None),
    "reset": (openai.APIConnectionError, ModelConnectionError, None, None),
}
BROKEN: set[Preset] = {"cut_stream", "stall_stream", "stream_error", "malformed", "empty"}
ANSWERED: set[Preset] = {"content_filter_reply", "refusal", "length", "ended_stream"}


async def _invoke(model: ChatOpenAI) -> None:
    model.invoke("hello")


async def _stream(model: ChatOpenAI) -> None:
    list(model.stream("hello"))


async def _ainvoke(model: ChatOpenAI) -> None:
    await model.ainvoke("hello")


async def _astream(model: ChatOpenAI) -> None:
    async for _ in model.astream("hello"):
        pass


WAYS = {"invoke": _invoke, "stream": _stream, "ainvoke": _ainvoke, "astream": _astream}


def test_each_preset_is_tested() -> None:
    assert set(ERRORS) | BROKEN | ANSWERED == set(PRESETS)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("preset", ERRORS)
async def test_failed_calls(openai_server: OpenAIServer, preset: Preset, way: str, api: str) -> None:
    kind, typed, status, code = ERRORS[preset]
    model = chat(openai_server, api, timeout=0.2 if preset == "timeout" else 5)
    openai_server.script(preset)
    with pytest.raises(kind) as caught:
        await WAYS[way](model)
    error = caught.value
    assert typed is None or isinstance(error, typed)
    assert isinstance(error, ModelError) == (typed is not None)
    assert error.code == code
    if status is not None:
        assert isinstance(error, openai.APIStatusError)
        assert error.status_code == status
        assert error.request_id == error.response.headers["x-request-id"] != ""
        assert "x-ratelimit-remaining-requests" in error.response.headers
    record = openai_server.requests[-1]
    assert (record.behaviour, record.status) == (preset, status)


def test_retry_after_in_its_three_forms(openai_server: OpenAIServer) -> None:
    openai_server.script("rate_limit", retry_after=2.5)
    openai_server.script("rate_limit", retry_after=30, retry_after_format="date")
    openai_server.script("rate_limit", retry_after=0.25, retry_after_format="ms")
    headers = []
    for _ in range(3):
        with pytest.raises(openai.RateLimitError) as caught:
            chat(openai_server).invoke("hello")
        headers.append(caught.value.response.headers)
    assert headers[0]["retry-after"] == "2.5"
    assert 28 <= parsedate_to_datetime(headers[1]["retry-after"]).timestamp() - time.time() <= 31
    assert headers[2]["retry-after-ms"] == "250"
    assert "retry-after" not in headers[2]


@pytest.mark.parametrize("api", APIS)
def test_a_cut_stream_raises_while_it_is_read(openai_server: OpenAIServer, api: str) -> None:
    openai_server.script("cut_stream", cut_after=7)
    chunks: list[AIMessageChunk] = []
    with pytest.raises(openai.APIConnectionError) as caught:
        stream(chat(openai_server, api), "hello there, and more", chunks)
    assert isinstance(caught.value, ModelConnectionError)
    assert total(chunks).text.startswith("You said")
    record = openai_server.requests[0]
    assert (record.status, record.events_sent, record.client_disconnected) == (200, 7, False)


@pytest.mark.parametrize("api", APIS)
def test_a_stalled_stream_times_out_while_it_is_read(openai_server: OpenAIServer, api: str) -> None:
    openai_server.script("stall_stream")
    chunks: list[AIMessageChunk] = []
    with pytest.raises(openai.APITimeoutError) as caught:
        stream(chat(openai_server, api, timeout=0.2), "hello there", chunks)
    assert isinstance(caught.value, ModelTimeoutError)
    assert chunks
    openai_server.wait_for(lambda stats: stats.disconnected == 1)


def test_a_stream_that_ends_in_order_and_too_early_raises_nothing(openai_server: OpenAIServer) -> None:
    openai_server.script("ended_stream")
    answer = stream(chat(openai_server), "hello", [])
    assert (answer.text, "finish_reason" in answer.response_metadata) == ("You said", False)


def anthropic(server: OpenAIServer) -> ChatAnthropic:
    return ChatAnthropic(model="claude-x", base_url=server.root_url, api_key="test", max_retries=0)


def test_anthropics_client_is_answered(openai_server: OpenAIServer) -> None:
    model = anthropic(openai_server)
    answer = model.invoke([("system", "Be brief."), ("user", "hello")])
    assert (answer.text, answer.response_metadata["stop_reason"]) == ("You said: hello", "end_turn")
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 4
    whole = total([chunk for chunk in model.stream("hello") if isinstance(chunk, AIMessageChunk)])
    assert (whole.text, whole.response_metadata["stop_reason"]) == ("You said: hello", "end_turn")
    assert [request.api for request in openai_server.requests] == ["messages", "messages"]
    openai_server.script(status=529, error={"type": "overloaded_error", "message": "Overloaded"})
    with pytest.raises(AnthropicOverloadedError, match="Overloaded"):
        model.invoke("hello")


def test_ollamas_client_is_answered(openai_server: OpenAIServer) -> None:
    model = ChatOllama(model="llama", base_url=openai_server.root_url)
    answer = model.invoke("hello")
    assert (answer.text, answer.response_metadata["done_reason"]) == ("You said: hello", "stop")
    openai_server.script(status=404, error={"message": "model 'llama' not found"})
    with pytest.raises(ResponseError, match="model 'llama' not found") as raised:
        model.invoke("hello")
    assert raised.value.status_code == 404


@pytest.mark.parametrize("preset", ["cut_stream", "stall_stream"])
def test_a_whole_answer_breaks_in_the_middle(openai_server: OpenAIServer, preset: Preset) -> None:
    openai_server.script(preset)
    with pytest.raises(openai.APIConnectionError):
        chat(openai_server, timeout=0.2).invoke("hello")


def test_an_error_within_a_stream_has_no_status(openai_server: OpenAIServer) -> None:
    openai_server.script("stream_error", times=2)
    chunks: list[AIMessageChunk] = []
    with pytest.raises(openai.APIError) as caught:
        stream(chat(openai_server), "hello there", chunks)
    assert type(caught.value) is openai.APIError  # none of the typed ones
    assert caught.value.type == "server_error"
    assert chunks
    with pytest.raises(ValueError, match=r"^server_error: The server had an error"):
        stream(chat(openai_server, "responses"), "hello there", [])


@pytest.mark.parametrize("api", APIS)
def test_malformed_and_empty_bodies(openai_server: OpenAIServer, api: str) -> None:
    openai_server.script("malformed", times=2)
    openai_server.script("empty", times=2)
    model = chat(openai_server, api)
    with pytest.raises(json.JSONDecodeError) as caught:
        model.invoke("hello")
    assert caught.value.response.status_code == 200  # type: ignore[attr-defined]  # added by langchain-openai
    with pytest.raises(json.JSONDecodeError):
        stream(model, "hello", [])
    with pytest.raises(json.JSONDecodeError):
        model.invoke("hello")
    with pytest.raises(ValueError, match="No generation chunks were returned"):
        stream(model, "hello", [])


def test_answers_that_stop_early(openai_server: OpenAIServer) -> None:
    for preset, reason in (("content_filter_reply", "content_filter"), ("length", "length")):
        openai_server.script(preset, times=2)  # type: ignore[arg-type]  # a tuple's str is no Literal
        model = chat(openai_server)
        for answer in (model.invoke("hello"), stream(model, "hello", [])):
            assert answer.response_metadata["finish_reason"] == reason
        openai_server.script(preset)  # type: ignore[arg-type]
        answer = chat(openai_server, "responses").invoke("hello")
        assert answer.response_metadata["status"] == "incomplete"
    openai_server.script("refusal")
    answer = chat(openai_server).invoke("hello")
    assert (answer.text, answer.additional_kwargs["refusal"]) == ("", PRESETS["refusal"].refusal)


def test_requires_a_key(openai_server: OpenAIServer) -> None:
    openai_server.configure(api_key="right")
    with pytest.raises(openai.AuthenticationError):
        chat(openai_server).invoke("hello")
    openai_server.configure(api_key="test")
    chat(openai_server).invoke("hello")
    assert httpx.post(f"{openai_server.base_url}/chat/completions", json={}).status_code == 401
    refused, accepted, anonymous = openai_server.requests
    assert (refused.has_authorization, accepted.has_authorization) == (True, True)
    assert not anonymous.has_authorization
    assert "authorization" not in accepted.headers


@pytest.mark.parametrize("body", ["{", "[]", "{}", '{"model": "m"}', '{"model": "m", "messages": [1]}'])
def test_invalid_requests_are_400(openai_server: OpenAIServer, body: str) -> None:
    answer = httpx.post(
        f"{openai_server.base_url}/chat/completions", content=body, headers={"authorization": "Bearer k"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


# Scripting


def test_behaviours_are_matched_and_counted(openai_server: OpenAIServer) -> None:
    openai_server.script(model="other", content="other model", times=None)
    openai_server.script(contains="magic", content="magic word")
    openai_server.script(nth=2, content="second")
    openai_server.script(every=3, times=None, content="third")
    model = chat(openai_server)
    assert [model.invoke(f"{i}").text for i in range(1, 7)] == [
        "You said: 1", "second", "third", "You said: 4", "You said: 5", "third",
    ]  # fmt: skip
    assert model.invoke("say magic").text == "magic word"
    assert model.invoke("say magic").text == "You said: say magic"
    assert {chat(openai_server, model="other").invoke("hi").text for _ in range(2)} == {"other model"}


def test_models_are_refused_only_when_named(openai_server: OpenAIServer) -> None:
    openai_server.script("server_error")
    openai_server.script("auth", api="models")
    with openai.OpenAI(base_url=openai_server.base_url, api_key="test", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
        client.models.list()


def test_scripted_usage_headers_and_body(openai_server: OpenAIServer) -> None:
    openai_server.script(usage={"input_tokens": 1000, "output_tokens": 7, "cached_tokens": 900})
    answer = chat(openai_server).invoke("hello")
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == 1000
    assert answer.usage_metadata["input_token_details"]["cache_read"] == 900
    openai_server.script(status=418, body={"detail": "teapot"}, headers={"X-Kettle": "on"})
    with pytest.raises(openai.APIStatusError) as caught:
        chat(openai_server).invoke("hello")
    assert (caught.value.status_code, caught.value.response.headers["x-kettle"]) == (418, "on")
    assert caught.value.body == {"detail": "teapot"}


def test_mistakes_in_a_script_are_found(openai_server: OpenAIServer) -> None:
    with pytest.raises(ValidationError):
        openai_server.script(statsu=500)
    with pytest.raises(KeyError):
        openai_server.script("no_such_preset")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ValueError, match="latensy"):
        openai_server.configure(latensy=1)
    answer = httpx.post(f"{openai_server.url}/_kit/behaviours", json={"preset": "nothing"})
    assert answer.status_code == 422


def test_reset_forgets_everything(openai_server: OpenAIServer) -> None:
    openai_server.script("auth", times=None)
    openai_server.configure(latency=30, rate=0.001)
    openai_server.reset()
    assert chat(openai_server).invoke("hello").text == "You said: hello"
    assert openai_server.stats() == Stats(requests=1, max_in_flight=1, statuses={200: 1})


def test_the_clients_own_retries_are_seen(openai_server: OpenAIServer) -> None:
    openai_server.script("rate_limit", retry_after=0.01, retry_after_format="ms", times=2)
    assert chat(openai_server, max_retries=2).invoke("hello").text == "You said: hello"
    assert [record.status for record in openai_server.requests] == [429, 429, 200]
    times = [record.time for record in openai_server.requests]
    assert times == sorted(times)


def test_rate_limit_of_the_server(openai_server: OpenAIServer) -> None:
    openai_server.configure(rate=0.01, burst=2)
    model = chat(openai_server)
    model.invoke("1")
    model.invoke("2")
    with pytest.raises(openai.RateLimitError) as caught:
        model.invoke("3")
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 100
    assert caught.value.response.headers["x-ratelimit-limit-requests"] == "2"
    assert openai_server.requests[-1].behaviour == "rate"


def test_options_of_the_command() -> None:
    assert read_behave("rate_limit:10") == Behaviour(name="rate_limit", status=429, retry_after=1, times=None, every=10)


# Concurrency


@pytest.mark.parametrize("script", [{"hold": True}, {"hang": True}, {"token_delay": 0.2}])
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_cancelled_call_is_seen(openai_server: OpenAIServer, script: dict[str, Any], streaming: bool) -> None:
    if "token_delay" in script and not streaming:
        script = {"delay": 5}
    openai_server.script(**script)
    call = asyncio.create_task(chat(openai_server, streaming=streaming).ainvoke("hello, a long message"))
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.in_flight == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    stats = await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.in_flight == 0)
    assert stats.disconnected == 1
    record = openai_server.requests[0]
    assert record.client_disconnected
    assert record.duration is not None


async def test_held_requests_are_answered_on_release(openai_server: OpenAIServer) -> None:
    openai_server.script(hold=True, content="at last")
    call = asyncio.create_task(chat(openai_server).ainvoke("hello"))
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.in_flight == 1)
    await asyncio.sleep(0.05)
    assert not call.done()
    openai_server.release()
    assert (await call).text == "at last"


@pytest.fixture
async def client(openai_server: OpenAIServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=openai_server.base_url, api_key="test", max_retries=0, timeout=60) as client:
        yield client


async def test_five_hundred_slow_requests_at_once(openai_server: OpenAIServer, client: openai.AsyncOpenAI) -> None:
    """Held, not delayed, so that a slow machine sees the same number."""
    openai_server.script(hold=True, times=None)
    calls = [
        asyncio.create_task(client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": str(i)}]))
        for i in range(500)
    ]
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.in_flight == 500, 60)
    openai_server.release()
    answers = await asyncio.gather(*calls)
    assert [answer.choices[0].message.content for answer in answers] == [f"You said: {i}" for i in range(500)]
    assert openai_server.max_in_flight == 500


async def test_in_a_process_of_its_own() -> None:
    with OpenAIServer.subprocess(latency=0.05, keep_alive=False) as server:
        server.script("overloaded")
        model = chat(server)
        with pytest.raises(openai.InternalServerError):
            await model.ainvoke("hello")
        answers = await model.abatch([str(i) for i in range(100)])
        assert len(answers) == 100
        assert server.max_in_flight > 10
        assert min(r.duration or 0 for r in server.requests) >= 0.04  # the clock is coarse
    server.stop()
    with pytest.raises(RuntimeError, match="not running"):
        server.stats()
