"""An answer that isn't complete is no success: it is asked for again, then of another model, then the call fails."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from pydantic import SecretStr

from backend.agents.output_schema import load_output_schema
from backend.agents.structured import ask
from backend.core.errors.agent_errors import IncompleteAnswerError, InvalidOutputError
from backend.core.settings import Settings
from backend.core.workflow_error_handler import AgentFailure, parse_error_policy
from backend.models.call import ModelCall, make_model_call
from backend.models.http_clients import HttpClients
from backend.models.reply import notice_of
from backend.models.resolve import ModelConfigurationError, ModelCredentials, resolve_model
from tests.kit.clock import Clock
from tests.kit.failures.answers import ANSWERS, HALF, Answer, call
from tests.kit.failures.case import Speaks
from tests.kit.failures.raised import raises_failure
from tests.kit.openai.log import RequestRecord
from tests.kit.openai.server import OpenAIServer
from tests.unit.models.test_model_call import Listener

MODELS: dict[Speaks, str] = {
    "openai": "openai:gpt-4.1-mini",
    "azure_openai": "azure_openai:gpt-4.1-mini",
    "anthropic": "anthropic:claude-sonnet-5",
    "ollama": "ollama:llama3",
}
OTHERS: dict[Speaks, str] = {
    "openai": "openai:gpt-4.1-nano",
    "azure_openai": "azure_openai:gpt-4.1-nano",
    "anthropic": "anthropic:claude-haiku-5",
    "ollama": "ollama:qwen3",
}
SHIPS = {"title": "Ships", "type": "object", "properties": {"ships": {"type": "integer"}}, "required": ["ships"]}
OF_AZURE = [replace(answer, speaks="azure_openai") for answer in ANSWERS if answer.speaks == "openai"]
CASES = [(answer, stream) for answer in ANSWERS for stream in answer.streamed]
INCOMPLETE = [(answer, stream) for answer, stream in CASES if answer.category == "invalid_output"]


def ids(cases: list[tuple[Answer, bool]]) -> list[str]:
    return [f"{answer}-{'stream' if stream else 'whole'}" for answer, stream in cases]


class Noticing(Listener):
    """Records notices too."""

    def noticed(self, notice: str) -> None:
        self.notices.append(notice)


class Caller:
    """Makes calls like those of the built-in agents."""

    def __init__(self, server: OpenAIServer, clients: HttpClients) -> None:
        self.server, self.clients = server, clients
        self.told = Noticing()

    def model(self, speaks: Speaks = "openai", *, stream: bool = False, **more: Any) -> ModelCall:
        address = self.server.base_url if speaks == "openai" else self.server.root_url
        credentials = ModelCredentials(speaks, SecretStr("test"), address)
        settings = Settings(_env_file=None, model_timeout=5)
        choice = resolve_model(MODELS[speaks], purpose="text", settings=settings, credentials=credentials)
        policy = parse_error_policy({"fallbacks": [OTHERS[speaks]], **more.pop("policy", {})})
        params = {"streaming": stream} if speaks != "ollama" else {}
        options: dict[str, Any] = {"credentials": credentials, "timing": Clock().timing, "purpose": "text", **more}
        options["params"] = {**params, **more.get("params", {})}
        return make_model_call(choice, settings, policy, openai_clients=self.clients.arguments, **options)

    async def ask(self, answer: Answer, *, stream: bool, **more: Any) -> Any:
        """The answer's text, or its data."""
        model = self.model(answer.speaks, stream=stream, **more)
        config: Any = {"callbacks": [self.told]}
        if not answer.structured:
            return (await model.ainvoke("Where did the ship go?", config)).text

        async def node(_: Any) -> Any:
            return await ask(model, [HumanMessage("How many?")], load_output_schema(SHIPS))

        return await RunnableLambda(node).ainvoke({}, config)


@pytest.fixture
async def caller(openai_server: OpenAIServer) -> AsyncIterator[Caller]:
    clients = HttpClients()
    yield Caller(openai_server, clients)
    await clients.close()


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version of Azure's API, which has no default."""
    monkeypatch.setenv("OPENAI_API_VERSION", "2025-03-01-preview")


def limit_of(request: RequestRecord) -> Any:
    """The limit of tokens in a request, by whatever name."""
    params = {**request.params, **request.params.get("options", {})}
    names = ("max_completion_tokens", "max_tokens", "num_predict")
    return next((params[name] for name in names if params.get(name)), None)


def good(structured: bool) -> dict[str, Any]:
    return {"content": {"ships": 2} if structured else "It went north."}


def test_there_are_at_least_sixty_answers() -> None:
    assert len(ANSWERS) >= 60
    assert len({answer.name for answer in ANSWERS}) == len(ANSWERS)


@pytest.mark.parametrize(("answer", "stream"), CASES, ids=ids(CASES))
async def test_what_follows_an_answer(
    openai_server: OpenAIServer, caller: Caller, answer: Answer, stream: bool
) -> None:
    openai_server.script(**answer.script(stream=stream))
    openai_server.script(times=None, **good(answer.structured))
    expected = {"ships": 2} if answer.structured else "It went north."
    if answer.category is None:
        result = await caller.ask(answer, stream=stream)
        assert result == ({"ships": 2} if answer.structured else result)
        assert caller.told.failed == []
        assert len(openai_server.requests) == 1
        return
    if answer.follows == "fail":
        with pytest.raises(AgentFailure, match=answer.words) as raised:
            await caller.ask(answer, stream=stream)
        assert raised.value.classified.category == answer.category
        assert len(openai_server.requests) == 1
        return
    assert await caller.ask(answer, stream=stream) == expected
    [failed] = caller.told.failed
    assert failed.classified.category == answer.category
    assert answer.words in failed.classified.message
    actions = {"fallback": ["fallback"], "retry": ["retry"]}
    assert caller.told.actions == actions.get(answer.follows, ["repair"])
    assert caller.told.recovered == [failed]
    first, second = openai_server.requests
    assert (first.model == second.model) == (answer.follows != "fallback")
    assert ("there are no tools here" in second.prompt) == (answer.follows == "no_tools")
    assert (limit_of(second) != limit_of(first)) == (answer.follows == "more_tokens")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_answers_of_azure_are_the_same(
    openai_server: OpenAIServer, caller: Caller, azure: None, stream: bool
) -> None:
    for answer in OF_AZURE:
        if stream not in answer.streamed or answer.category != "invalid_output" or answer.follows == "fallback":
            continue
        openai_server.script(**answer.script(stream=stream))
        openai_server.script(**good(answer.structured))
        caller.told = Noticing()
        await caller.ask(answer, stream=stream)
        [failed] = caller.told.failed
        assert failed.classified.category == answer.category, answer.name
        assert answer.words in failed.classified.message, answer.name
        assert failed.context.get("output_tokens") == (6 if answer.usage else None), answer.name
    assert "/openai/deployments/gpt-4.1-mini/" in openai_server.requests[-1].path


def test_azure_without_its_variables(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
    with pytest.raises(ModelConfigurationError, match="need OPENAI_API_VERSION in the environment"):
        caller.model("azure_openai")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_refusal_of_the_responses_api(openai_server: OpenAIServer, caller: Caller, stream: bool) -> None:
    openai_server.script(refusal="I can't help with that.")
    model = caller.model(stream=stream, params={"use_responses_api": True})
    assert await model.ainvoke("How?", {"callbacks": [caller.told]})
    [failed] = caller.told.failed
    assert failed.classified.message == "the model refused to answer: I can't help with that."


@pytest.mark.parametrize(("answer", "stream"), INCOMPLETE, ids=ids(INCOMPLETE))
async def test_an_answer_that_stays_incomplete_fails_after_the_other_model(
    openai_server: OpenAIServer, caller: Caller, answer: Answer, stream: bool
) -> None:
    openai_server.script(times=None, **answer.script(stream=stream))
    with raises_failure(IncompleteAnswerError, match=answer.words.replace("(", r"\(").replace(")", r"\)")) as raised:
        await caller.ask(answer, stream=stream)
    failure = raised.value
    assert failure.classified.category == "invalid_output"
    assert failure.classified.final
    assert caller.told.actions == (["fallback"] if answer.follows == "fallback" else ["repair", "fallback"])
    assert failure.attempt is not None
    known = failure.attempt.context
    if answer.reason and answer.speaks == "openai":
        assert known["finish_reason"] == answer.reason.lower()
    if answer.message.get("content") == HALF:
        assert (known["answer"], known["answer_chars"]) == (HALF, len(HALF))
        assert known.get("output_tokens") == (6 if answer.usage else None)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_incomplete_answer_can_be_accepted(openai_server: OpenAIServer, caller: Caller, stream: bool) -> None:
    accepted = [answer for answer in ANSWERS if answer.category == "invalid_output" and answer.speaks == "openai"]
    accepted = [answer for answer in accepted if not answer.structured and stream in answer.streamed]
    model = caller.model(stream=stream, on_incomplete="accept")
    for answer in accepted:
        openai_server.script(**answer.script(stream=stream))
        told = Noticing()
        reply = await model.ainvoke("Where?", {"callbacks": [told]})
        assert reply.text == (answer.message.get("content") or "")
        assert told.failed == []
        [notice] = told.notices
        assert answer.words in notice
        assert notice_of(reply) == notice
    assert len(openai_server.requests) == len(accepted) >= 25


async def test_half_a_tool_call_is_never_accepted(openai_server: OpenAIServer, caller: Caller) -> None:
    half = Answer("", {"content": None, "tool_calls": [call('{"ships": 2, "na')]}, "tool_calls", structured=True)
    openai_server.script(times=None, **half.script(stream=True))
    with raises_failure(InvalidOutputError, match="are cut off"):
        await caller.ask(half, stream=True, on_incomplete="accept")


async def test_a_whole_structure_that_reached_the_limit_can_be_accepted(
    openai_server: OpenAIServer, caller: Caller
) -> None:
    whole = Answer("", {"content": '{"ships": 2}'}, "length", structured=True)
    openai_server.script(times=None, **whole.script(stream=True))
    assert await caller.ask(whole, stream=True, on_incomplete="accept") == {"ships": 2}
    assert len(caller.told.notices) == 1
    assert len(openai_server.requests) == 1


@pytest.mark.parametrize(
    ("params", "limits"),
    [
        ({}, [None, 1_000, 1_000]),
        ({"max_tokens": 100}, [100, 1_000, 1_000]),
        ({"max_tokens": 2_000}, [2_000, 8_000, 8_000]),
        ({"max_tokens": 20_000}, [20_000, 32_768, 32_768]),  # the most that the model has
    ],
)
async def test_the_limit_is_raised_once(
    openai_server: OpenAIServer, caller: Caller, params: dict[str, Any], limits: list[int | None]
) -> None:
    openai_server.script("length", times=None)
    with pytest.raises(AgentFailure):
        await caller.model(params=params).ainvoke("hello")
    asked = [request.params.get("max_completion_tokens") for request in openai_server.requests]
    assert asked == limits


async def test_a_limit_that_cant_be_raised_leaves_the_other_model(openai_server: OpenAIServer, caller: Caller) -> None:
    openai_server.script("length", times=None)
    with pytest.raises(AgentFailure):
        await caller.model(params={"max_tokens": 32_768}).ainvoke("hello", {"callbacks": [caller.told]})
    assert caller.told.actions == ["fallback"]


async def test_a_server_that_refuses_the_raised_limit_does_not_hide_what_happened(
    openai_server: OpenAIServer, caller: Caller
) -> None:
    openai_server.script("length")
    refused = "max_tokens is too large: 1000. This model supports at most 256 completion tokens."
    openai_server.script(status=400, error={"message": refused, "type": "invalid_request_error", "code": None})
    answer = await caller.model().ainvoke("hello", {"callbacks": [caller.told]})
    assert answer.text == "You said: hello"
    assert caller.told.actions == ["repair", "fallback"]
    openai_server.script("length")
    openai_server.script(status=400, error={"message": refused, "type": "invalid_request_error", "code": None})
    with raises_failure(IncompleteAnswerError, match="cut off") as raised:
        await caller.model(policy={"fallbacks": []}).ainvoke("hello")
    assert raised.value.recorded
    assert len(openai_server.requests) == 5


async def test_the_policy_decides_about_incomplete_answers(openai_server: OpenAIServer, caller: Caller) -> None:
    openai_server.script("length", times=None)
    with pytest.raises(AgentFailure):
        await caller.model(policy={"invalid_output": {"repairs": 0, "fallback": False}}).ainvoke("hello")
    assert len(openai_server.requests) == 1
    with pytest.raises(AgentFailure):
        await caller.model(policy={"invalid_output": {"repairs": 2}}).ainvoke("hello")
    assert len(openai_server.requests) == 1 + 4


async def test_a_tool_that_was_offered_may_be_called(openai_server: OpenAIServer, caller: Caller) -> None:
    openai_server.script(tool_calls=[{"name": "look", "arguments": {"at": "it"}}])
    tools = [{"name": "look", "description": "", "parameters": {}}]
    answer: AIMessage = await caller.model().bind_tools(tools).ainvoke("Look.")
    assert [each["args"] for each in answer.tool_calls] == [{"at": "it"}]
