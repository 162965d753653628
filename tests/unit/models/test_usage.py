"""Tokens and cost are those of the server's own bill, wherever in an answer the server reports them."""

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from backend.core.settings import Settings
from backend.models.adaptation import StructuredAnswer
from backend.models.call import ModelCall, make_model_call
from backend.models.client_defaults import count_usage_once
from backend.models.resolve import ModelCredentials, resolve_model
from backend.models.usage import CallUsage, answers
from tests.kit.clock import Clock
from tests.kit.openai.server import OpenAIServer

MODEL = "openai:gpt-4.1-mini"
INPUT, CACHED, OUTPUT = Decimal("0.40"), Decimal("0.10"), Decimal("1.60")
"""The model's list prices in US dollars per million tokens."""

PLAIN = {"input_tokens": 1_200, "output_tokens": 345}


class Counted(BaseCallbackHandler):
    """The usage of the answers as recorder and budgets count it."""

    def __init__(self) -> None:
        self.usages: list[CallUsage] = []

    def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        self.usages += [CallUsage.of(message, MODEL) for message in answers(response)]


@dataclass(frozen=True)
class Shape:
    """What a server reports, and what it bills for: input (of which cached) and output tokens; None if unknown."""

    name: str
    script: dict[str, Any]
    billed: tuple[int, int, int] | None
    notice: str | None = None
    streams: tuple[bool, ...] = field(default=(False, True))

    def __str__(self) -> str:
        return self.name


def raw(prompt: Any, completion: Any, **more: Any) -> dict[str, Any]:
    return {"raw_usage": {"prompt_tokens": prompt, "completion_tokens": completion, **more}}


STREAM = (True,)
SHAPES = [
    Shape("at the end", {"usage": PLAIN}, (1_200, 0, 345)),
    Shape("in each chunk", {"usage": PLAIN, "usage_in": "each"}, (1_200, 0, 345)),
    Shape("growing in each chunk", {"usage": PLAIN, "usage_in": "growing"}, (1_200, 0, 345), streams=STREAM),
    Shape("with the finish reason", {"usage": PLAIN, "usage_in": "last"}, (1_200, 0, 345)),
    Shape("in halves", {"usage": PLAIN, "usage_in": "halves"}, (1_200, 0, 345), streams=STREAM),
    Shape("null after it", {"usage": PLAIN, "usage_in": "middle"}, (1_200, 0, 345), streams=STREAM),
    Shape("in a choice", {"usage": PLAIN, "usage_in": "choice"}, (1_200, 0, 345), streams=STREAM),
    Shape("missing", {"usage": PLAIN, "usage_in": "never"}, None),
    Shape("cached", {"usage": {**PLAIN, "cached_tokens": 1_000}}, (1_200, 1_000, 345)),
    Shape("cached in each chunk", {"usage": {**PLAIN, "cached_tokens": 64}, "usage_in": "each"}, (1_200, 64, 345)),
    Shape("with reasoning", {"usage": {**PLAIN, "reasoning_tokens": 300}}, (1_200, 0, 345)),
    Shape(
        "reasoning in the total alone",
        raw(100, 20, total_tokens=620, completion_tokens_details={"reasoning_tokens": 500}),
        (100, 0, 520),
    ),
    Shape("without a total", raw(100, 20), (100, 0, 20)),
    Shape("other names", {"raw_usage": {"input_tokens": 100, "output_tokens": 20}}, (100, 0, 20)),
    Shape("as text", raw("100", "20"), (100, 0, 20)),
    Shape("as fractions", raw(100.0, 20.0, total_tokens=120.0), (100, 0, 20)),
    Shape("an empty object", {"raw_usage": {}}, None),
    Shape("negative input", raw(-5, 20), None, "number of input tokens"),
    Shape("negative output", raw(5, -20, total_tokens=-15), None, "number of output tokens"),
    Shape("huge", raw(10**12, 20), None, "1e+12 input tokens"),
    Shape("beyond 64 bits", raw(100, 2**70), None, "output tokens"),
    Shape("words", raw("many", 20), None, "number of input tokens"),
    Shape("a fraction", raw(100, 20.5), None, "number of output tokens"),
    Shape("true", raw(True, 20), None, "number of input tokens"),
    Shape("no object", {"raw_usage": "11 tokens"}, None, "number of input tokens"),
    Shape("a list", {"raw_usage": [11]}, None, "number of input tokens"),
    Shape("more cached than given", raw(10, 5, prompt_tokens_details={"cached_tokens": 20}), None, "20 cached tokens"),
    Shape("details of nonsense", raw(10, 5, prompt_tokens_details="none"), (10, 0, 5)),
]
CASES = [(shape, stream) for shape in SHAPES for stream in shape.streams]


def call(server: OpenAIServer, *, stream: bool) -> ModelCall:
    credentials = ModelCredentials("openai", SecretStr("test"), server.base_url)
    settings = Settings(_env_file=None)
    choice = resolve_model(MODEL, purpose="text", settings=settings, credentials=credentials)
    options: dict[str, Any] = {"credentials": credentials, "timing": Clock().timing, "params": {"streaming": stream}}
    return make_model_call(choice, settings, settings.error_policy, purpose="text", **options)


def bill(given: int, cached: int, answered: int) -> Decimal:
    return ((given - cached) * INPUT + cached * CACHED + answered * OUTPUT) / 1_000_000


@pytest.mark.parametrize(("shape", "stream"), CASES, ids=[f"{s}-{'stream' if on else 'whole'}" for s, on in CASES])
async def test_what_is_counted_is_what_the_server_bills(
    openai_server: OpenAIServer, shape: Shape, stream: bool
) -> None:
    openai_server.script(content="Far away, to the north.", **shape.script)
    counted = Counted()
    answer = await call(openai_server, stream=stream).ainvoke("Where is it?", {"callbacks": [counted]})
    assert answer.text == "Far away, to the north."
    assert [request.stream for request in openai_server.requests] == [stream]
    [used] = counted.usages
    if shape.billed is None:
        assert (used.known, used.input_tokens, used.output_tokens, used.cost) == (False, 0, 0, None)
    else:
        given, cached, answered = shape.billed
        assert (used.known, used.input_tokens, used.cache_read, used.output_tokens) == (True, given, cached, answered)
        assert used.cost == bill(given, cached, answered)
    if shape.notice is None:
        assert used.notice is None
    else:
        assert shape.notice in (used.notice or "")
        assert (used.notice or "").startswith(MODEL)


@pytest.mark.parametrize("script", [{"content": {"ships": 2}}, {"content": {"ships": 2}, "usage_in": "each"}])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_structured_answer_is_billed_alike(
    openai_server: OpenAIServer, script: dict[str, Any], stream: bool
) -> None:
    openai_server.script(usage=PLAIN, **script)
    counted = Counted()
    schema = {"title": "Ships", "type": "object", "properties": {"ships": {"type": "integer"}}}
    asked = call(openai_server, stream=stream).shaped(StructuredAnswer(schema))
    answer = await asked.ainvoke("How many?", {"callbacks": [counted]})
    assert json.loads(answer.text) == {"ships": 2}
    assert [(used.input_tokens, used.output_tokens) for used in counted.usages] == [(1_200, 345)]


@pytest.mark.parametrize("usage_in", ["end", "each", "growing", "last", "middle"])
async def test_a_model_of_a_users_own_graph_is_billed_alike(openai_server: OpenAIServer, usage_in: str) -> None:
    count_usage_once()
    openai_server.script(content="Far away.", usage=PLAIN, usage_in=usage_in, times=2)
    model = ChatOpenAI(base_url=openai_server.base_url, api_key=SecretStr("test"), model="gpt-4.1-mini")
    counted = Counted()
    chunks = [chunk async for chunk in model.astream("Where?", {"callbacks": [counted]}, stream_usage=True)]
    assert "".join(chunk.text for chunk in chunks) == "Far away."
    assert [chunk.text for chunk in model.stream("Where?", {"callbacks": [counted]}, stream_usage=True)]
    assert [(used.input_tokens, used.output_tokens) for used in counted.usages] == [(1_200, 345)] * 2
