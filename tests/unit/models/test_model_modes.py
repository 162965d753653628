"""A model is asked in the ways that its server supports: what is requested, how often, and what is told of it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from pydantic import SecretStr, ValidationError

from backend.agents.config import AgentConfig
from backend.agents.output_schema import load_output_schema
from backend.agents.structured import ask
from backend.core.errors.input_error import InputError
from backend.core.models.modes import ModelModes
from backend.core.settings import Settings
from backend.core.workflow_error_handler import AgentFailure, FailedAttempt, classify
from backend.models.call import ModelCall, make_model_call
from backend.models.resolve import ModelCredentials, resolve_model
from tests.kit.fixtures.tasks import NO_RETRIES
from tests.kit.openai.log import RequestRecord
from tests.kit.openai.refusals import FUNCTION_CALLING, JSON_MODE, JSON_SCHEMA, OTHER_ERRORS, STREAM_USAGE, STREAMING
from tests.kit.openai.server import OpenAIServer

pytestmark = pytest.mark.filterwarnings("ignore:.*structured output feature")  # LangChain's advice on refused schemas

MODEL = "openai:my-model"
SHIPS = {"type": "object", "properties": {"ships": {"type": "integer"}}, "required": ["ships"]}
STREAM, USAGE, SCHEMA, TOOLS, JSON = '"stream":true', '"stream_options"', '"json_schema"', '"tools"', '"json_object"'
WHOLE = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "my-model",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": '{"ships": 2}'}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}  # fmt: skip


class Watcher(AsyncCallbackHandler, _StreamingCallbackHandler[Any]):
    """Has models stream, as LangGraph does for a run that is watched, and records what a call reports."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.failed: list[FailedAttempt] = []
        self.tokens: list[str] = []

    def tap_output_aiter(self, run_id: Any, output: Any) -> Any:
        return output

    def tap_output_iter(self, run_id: Any, output: Any) -> Any:
        return output

    def noticed(self, notice: str) -> None:
        self.notices.append(notice)

    def attempt_failed(self, failed: FailedAttempt, metadata: Mapping[str, Any]) -> None:
        self.failed.append(failed)

    def call_recovered(self, failed: Sequence[FailedAttempt], metadata: Mapping[str, Any]) -> None:
        pass

    def took_over(self, model: str, notice: str) -> None:
        pass

    async def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.tokens.append(token)


def call(server: OpenAIServer, *, modes: ModelModes | None = None, **more: Any) -> ModelCall:
    credentials = more.pop("credentials", None)
    settings = Settings(_env_file=None, openai_base_url=server.base_url, openai_api_key=SecretStr("test-key"), **more)
    choice = resolve_model(MODEL, purpose="text", settings=settings)
    given: dict[str, Any] = {} if modes is None else {"modes": modes}
    return make_model_call(
        choice, settings, settings.error_policy, purpose="text", credentials=credentials, **given
    )  # fmt: skip


def refuse(server: OpenAIServer, sends: str, given: tuple[int, Any]) -> None:
    status, body = given
    server.script(sends=sends, status=status, body=body, times=None)


def sent(server: OpenAIServer) -> list[tuple[bool, int | None]]:
    """Whether each request asked for a stream, and the status of its response."""
    return [(request.stream, request.status) for request in server.requests]


def method(request: RequestRecord) -> str:
    if request.params.get("tools"):
        return "function_calling"
    wanted = request.params.get("response_format", {}).get("type")
    return {"json_schema": "json_schema", "json_object": "json_mode", None: "prompt"}[wanted]


@pytest.mark.parametrize("given", STREAMING.values(), ids=STREAMING)
async def test_a_refused_stream_is_asked_for_once(openai_server: OpenAIServer, given: tuple[int, Any]) -> None:
    refuse(openai_server, STREAM, given)
    told, later = Watcher(), Watcher()
    asked = call(openai_server)
    answer = await asked.ainvoke("hello", {"callbacks": [told]})
    assert answer.text == "You said: hello"
    assert answer.usage_metadata is not None
    await call(openai_server).ainvoke("hello", {"callbacks": [later]})
    assert [stream for stream, _ in sent(openai_server)] == [True, False, False]
    assert told.failed == later.failed == []
    assert len(told.notices) == 1
    assert told.notices[0].startswith(f"{MODEL} doesn't stream its answers here, so they arrive whole (")
    assert later.notices == []


async def test_a_stream_may_be_refused_inside_of_the_stream(openai_server: OpenAIServer) -> None:
    refused = {"message": "Streaming is not supported by this model", "type": "invalid_request_error"}
    openai_server.script(sends=STREAM, error_after=0, error=refused, times=None)
    told = Watcher()
    answer = await call(openai_server).ainvoke("hello", {"callbacks": [told]})
    assert answer.text == "You said: hello"
    assert [stream for stream, _ in sent(openai_server)] == [True, False]
    assert (len(told.notices), told.failed) == (1, [])


async def test_refusals_that_arrive_at_the_same_time_are_told_once(openai_server: OpenAIServer) -> None:
    status, body = STREAMING["openai unverified"]
    openai_server.script(sends=STREAM, status=status, body=body, delay=0.2, times=None)
    told, asked = Watcher(), call(openai_server)
    answers = await asyncio.gather(*(asked.ainvoke("hello", {"callbacks": [told]}) for _ in range(5)))
    assert [answer.text for answer in answers] == ["You said: hello"] * 5
    assert (len(told.notices), told.failed) == (1, [])


async def test_the_notice_has_the_providers_words(openai_server: OpenAIServer) -> None:
    refuse(openai_server, STREAM, STREAMING["openai unverified"])
    told = Watcher()
    await call(openai_server).ainvoke("hello", {"callbacks": [told]})
    assert "(Your organization must be verified to stream this model." in told.notices[0]


@pytest.mark.parametrize("given", STREAM_USAGE.values(), ids=STREAM_USAGE)
async def test_a_server_that_counts_no_tokens_of_streams_still_streams(
    openai_server: OpenAIServer, given: tuple[int, Any]
) -> None:
    refuse(openai_server, USAGE, given)
    told = Watcher()
    asked = call(openai_server)
    for _ in range(2):
        await asked.ainvoke("hello", {"callbacks": [told]})
    assert [stream for stream, _ in sent(openai_server)] == [True, True, True]
    assert ["stream_options" in request.params for request in openai_server.requests] == [True, False, False]
    assert len(told.tokens) > 2
    assert told.notices == [f"{MODEL} doesn't count the tokens of a stream here ({_words(given)})"]


def _words(given: tuple[int, Any]) -> str:
    body = given[1]
    return (
        body.get("message")
        or (body.get("error") or {}).get("message")
        or "body.stream_options: Extra inputs are not permitted"
    )


@pytest.mark.parametrize("given", OTHER_ERRORS.values(), ids=OTHER_ERRORS)
async def test_other_errors_switch_nothing_off(openai_server: OpenAIServer, given: tuple[int, Any]) -> None:
    openai_server.script(status=given[0], body=given[1], times=None)
    told = Watcher()
    with pytest.raises(AgentFailure):
        await call(openai_server, error_rules={"context_length": {"fallback": False}}).ainvoke(
            "hello", {"callbacks": [told]}
        )
    openai_server.reset()
    assert told.notices == []


async def test_what_is_refused_either_way_is_an_error_and_is_not_remembered(openai_server: OpenAIServer) -> None:
    openai_server.script(status=400, body={"error": "stream is not supported"}, times=2)
    asked = call(openai_server)
    told = Watcher()
    with pytest.raises(AgentFailure) as caught:
        await asked.ainvoke("hello", {"callbacks": [told]})
    assert classify(caught.value).category == "bad_request"
    await asked.ainvoke("hello", {"callbacks": [told]})
    assert [stream for stream, _ in sent(openai_server)] == [True, False, True]
    assert told.notices == []


@pytest.mark.parametrize("body", [WHOLE, f"\ufeff \n{json.dumps(WHOLE, indent=1)}"], ids=["plain", "with a mark"])
@pytest.mark.parametrize("structured", [False, True])
async def test_a_whole_answer_to_a_request_for_a_stream_is_used(
    openai_server: OpenAIServer, body: Any, structured: bool
) -> None:
    openai_server.script(body=body, times=None)
    told = Watcher()
    asked = call(openai_server)
    if structured:
        assert await data(asked, told) == {"ships": 2}
    else:
        answer = await asked.ainvoke("hello", {"callbacks": [told]})
        assert (answer.text, answer.usage_metadata["total_tokens"]) == ('{"ships": 2}', 10)  # type: ignore[index]
    assert sent(openai_server) == [(True, 200)]
    assert told.failed == []
    assert told.notices == [f"{MODEL} doesn't stream its answers here, so they arrive whole"]
    await asked.ainvoke("hello", {"callbacks": [told]})
    assert sent(openai_server)[1:] == [(False, 200)]


async def test_a_whole_error_to_a_request_for_a_stream_is_an_error(openai_server: OpenAIServer) -> None:
    openai_server.script(body={"error": {"message": "Out of memory", "code": "server_error"}}, times=None)
    told = Watcher()
    with pytest.raises(AgentFailure, match="Out of memory"):
        await call(openai_server, error_rules=NO_RETRIES).ainvoke("hello", {"callbacks": [told]})
    assert told.notices == []


async def data(asked: ModelCall, told: Watcher) -> dict[str, Any]:
    """An answer in the form of `SHIPS`, as a node of a graph asks for it: the callbacks are those of the run."""

    async def node(_: Any) -> dict[str, Any]:
        return await ask(asked, [HumanMessage("How many?")], load_output_schema(SHIPS))

    return cast(dict[str, Any], await RunnableLambda(node).ainvoke({}, {"callbacks": [told]}))


Way = tuple[str, tuple[int, Any]]


@pytest.mark.parametrize(
    ("refused", "methods"),
    [
        *(([(SCHEMA, given)], ["json_schema", "function_calling"]) for given in JSON_SCHEMA.values()),
        *(
            ([(SCHEMA, JSON_SCHEMA["groq"]), (TOOLS, given)], ["json_schema", "function_calling", "json_mode"])
            for given in FUNCTION_CALLING.values()
        ),
        *(
            (
                [(SCHEMA, JSON_SCHEMA["groq"]), (TOOLS, FUNCTION_CALLING["ollama"]), (JSON, given)],
                ["json_schema", "function_calling", "json_mode", "prompt"],
            )
            for given in JSON_MODE.values()
        ),
    ],
)
async def test_a_refused_way_to_a_structured_answer_is_tried_once(
    openai_server: OpenAIServer, refused: list[Way], methods: list[str]
) -> None:
    for sends, given in refused:
        refuse(openai_server, sends, given)
    openai_server.script(contains="fits this JSON Schema", content={"ships": 1}, times=None)
    told = Watcher()
    asked = call(openai_server)
    first = await data(asked, told)
    assert isinstance(first["ships"], int)
    assert [method(request) for request in openai_server.requests] == methods
    assert await data(call(openai_server), told) == first
    assert [method(request) for request in openai_server.requests] == [*methods, methods[-1]]
    assert told.failed == []
    assert len(told.notices) == len(refused)
    assert told.notices[0].startswith(f"{MODEL} doesn't take a schema for its answers here (")


async def test_a_schema_that_is_refused_says_nothing_about_others(openai_server: OpenAIServer) -> None:
    status, body = JSON_SCHEMA["a schema"]
    openai_server.script(sends=SCHEMA, status=status, body=body)
    told = Watcher()
    asked = call(openai_server)
    await data(asked, told)
    await data(asked, told)
    other = load_output_schema({"type": "object", "properties": {"sea": {"type": "string"}}, "required": ["sea"]})
    await ask(asked, [HumanMessage("Which?")], other)
    assert [method(request) for request in openai_server.requests] == [
        "json_schema", "function_calling", "function_calling", "json_schema",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("agent", "connection", "settings", "streaming", "expected"),
    [
        ({}, {}, {}, True, "json_schema"),
        ({}, {}, {"streaming": False}, False, "json_schema"),
        ({"streaming": True}, {}, {"streaming": False}, True, "json_schema"),
        ({"streaming": False}, {}, {}, False, "json_schema"),
        ({"output_method": "json_mode"}, {}, {}, True, "json_mode"),
        ({"output_method": "prompt"}, {"output_method": "json_mode"}, {}, True, "prompt"),
        ({}, {"streaming": "false", "output_method": "function_calling"}, {}, False, "function_calling"),
        ({}, {"streaming": True}, {"model_modes": {"my-model": {"streaming": False}}}, True, "json_schema"),
        ({}, {}, {"model_modes": {MODEL: {"streaming": False, "output_method": "prompt"}}}, False, "prompt"),
        ({}, {}, {"model_modes": {"openai:*": {"output_method": "json_mode"}}}, True, "json_mode"),
        ({}, {}, {"model_modes": {"openai:other": {"output_method": "json_mode"}}}, True, "json_schema"),
        ({}, {}, {"model_modes": {"openai:*": {"streaming": True}}, "streaming": False}, True, "json_schema"),
    ],
)
async def test_where_the_modes_are_set(
    openai_server: OpenAIServer,
    agent: dict[str, Any],
    connection: dict[str, Any],
    settings: dict[str, Any],
    streaming: bool,
    expected: str,
) -> None:
    credentials = ModelCredentials.of_connection(
        conn_type="langchain", password="key", address=openai_server.base_url, extra=connection
    )
    modes = AgentConfig.parse(agent).modes
    asked = call(openai_server, modes=modes, credentials=credentials, **settings)
    openai_server.script(contains="fits this JSON Schema", content={"ships": 1}, times=None)
    told = Watcher()
    await data(asked, told)
    (request,) = openai_server.requests
    assert (request.stream, method(request)) == (streaming, expected)
    assert told.notices == []


async def test_without_usage_in_streams_the_setting_is_enough(openai_server: OpenAIServer) -> None:
    await call(openai_server, stream_usage=False).ainvoke("hello", {"callbacks": [Watcher()]})
    (request,) = openai_server.requests
    assert (request.stream, "stream_options" in request.params) == (True, False)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"streaming": "perhaps"}, "streaming has to be true or false"),
        ({"output_method": "xml"}, "output_method has to be one of json_schema, function_calling, json_mode, prompt"),
    ],
)
def test_wrong_modes_are_refused_wherever_they_are_set(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as at_parse:
        AgentConfig.parse(extra)
    assert at_parse.value.field == "agent_config"
    with pytest.raises(InputError, match=message) as of_connection:
        ModelCredentials.of_connection(conn_type="langchain", password=None, address=None, extra=extra)
    assert of_connection.value.field == "llm_conn_id"
    with pytest.raises(ValidationError, match=r"model_modes\.openai:my-model"):
        Settings(_env_file=None, model_modes={MODEL: extra})


async def test_a_prompt_in_words_stays_in_the_last_message(openai_server: OpenAIServer) -> None:
    openai_server.script(content={"ships": 1}, times=None)
    asked = call(openai_server, modes=ModelModes(output_method="prompt"))
    picture: Any = [{"type": "text", "text": "How many?"}]
    for content in ("How many?", picture):
        await ask(asked, [HumanMessage(content)], load_output_schema(SHIPS))
    assert [request.prompt.count("How many?") for request in openai_server.requests] == [1, 1]
    assert all("fits this JSON Schema" in request.prompt for request in openai_server.requests)
    assert all('"ships"' in request.prompt for request in openai_server.requests)
