"""Model calls under the policy: what the server is asked, in which order, and what is told of it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import openai
import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.ai import AIMessage

from backend.agents.output_schema import load_output_schema
from backend.agents.structured import ask
from backend.core.errors.agent_errors import InvalidOutputError
from backend.core.ratelimit.interface import CircuitOpenError, HeldBackError
from backend.core.settings import Settings
from backend.core.workflow_error_handler import (
    AgentFailure,
    FailedAttempt,
    Reschedule,
    action_of,
    classify,
    parse_error_policy,
)
from backend.models.attempts import RetryTiming
from backend.models.call import ModelCall, make_model_call
from backend.models.prompts.document import fence
from backend.models.resolve import ModelCredentials, credential_scope, resolve_model
from tests.kit.clock import Clock
from tests.kit.failures.raised import raises_failure
from tests.kit.openai.server import OpenAIServer

LONG = "".join(f"Sentence number {number} of the text. " for number in range(2_000))
SHIPS = {"type": "object", "properties": {"ships": {"type": "integer"}}, "required": ["ships"]}
OVERFLOW = {
    "message": "This model's maximum context length is 8192 tokens. However, your messages resulted in 30000 tokens.",
    "type": "invalid_request_error",
    "code": "context_length_exceeded",
}


class Listener(AsyncCallbackHandler):
    """Records what a call reports."""

    def __init__(self) -> None:
        self.failed: list[FailedAttempt] = []
        self.recovered: list[FailedAttempt] = []
        self.models: list[str] = []
        self.notices: list[str] = []

    def attempt_failed(self, failed: FailedAttempt, metadata: Mapping[str, Any]) -> None:
        self.failed.append(failed)

    def call_recovered(self, failed: Sequence[FailedAttempt], metadata: Mapping[str, Any]) -> None:
        self.recovered += failed

    def took_over(self, model: str, notice: str) -> None:
        self.models.append(model)
        self.notices.append(notice)

    @property
    def actions(self) -> list[str]:
        return [action_of(failed.decision) for failed in self.failed]


class Gate:
    """Admits calls, or raises."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.admitted: list[tuple[str, int, float]] = []
        self.reported: list[tuple[str, str, float | None, int | None]] = []

    async def admit(self, model: str, *, tokens: int, max_wait: float) -> None:
        self.admitted.append((model, tokens, max_wait))
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error

    async def report(
        self, model: str, outcome: str, *, retry_after: float | None = None, tokens: int | None = None
    ) -> None:
        self.reported.append((model, outcome, retry_after, tokens))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def call(server: OpenAIServer, clock: Clock, *, model: str = "gpt-4.1-mini", **more: Any) -> ModelCall:
    settings = Settings(
        _env_file=None,
        openai_base_url=server.base_url,
        openai_api_key="test-key",
        model_timeout=more.pop("timeout", 10.0),
    )
    policy = parse_error_policy(more.pop("policy", None))
    choice = resolve_model(model, purpose="text", settings=settings)
    given = {"timing": clock.timing, **more}
    return make_model_call(choice, settings, policy, purpose="text", **given)


def models(server: OpenAIServer) -> list[str]:
    return [request.model for request in server.requests]


async def test_an_overflow_asks_each_model_once(openai_server: OpenAIServer, clock: Clock) -> None:
    openai_server.script("context_length", times=2)
    told = Listener()
    answer = await call(openai_server, clock, model="gpt-4.1").ainvoke("hello", {"callbacks": [told]})
    assert answer.text == "You said: hello"
    assert models(openai_server) == ["gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"]
    assert told.actions == ["fallback", "fallback"]
    assert told.recovered == told.failed
    assert told.models == ["openai:gpt-4.1-nano"]
    assert told.notices == ["openai:gpt-4.1 could not answer (context_length): openai:gpt-4.1-nano did"]
    assert set(clock.waits) == {0.0}


async def test_an_overflow_that_no_model_holds_is_final(openai_server: OpenAIServer, clock: Clock) -> None:
    openai_server.script("context_length", times=None)
    with pytest.raises(Exception, match="maximum context length") as raised:
        await call(openai_server, clock, model="gpt-4.1").ainvoke("hello")
    assert models(openai_server) == ["gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"]
    assert classify(raised.value).final


async def test_a_model_that_is_too_small_is_skipped(openai_server: OpenAIServer, clock: Clock) -> None:
    openai_server.script(status=400, error=OVERFLOW)
    chain = [{"model": "gpt-small", "context_window": 16_000}, {"model": "gpt-large", "context_window": 64_000}]
    await call(openai_server, clock, policy={"fallbacks": chain}).ainvoke("hello")
    assert models(openai_server) == ["gpt-4.1-mini", "gpt-large"]


async def test_a_prompt_that_no_model_holds_is_trimmed_and_marked(openai_server: OpenAIServer, clock: Clock) -> None:
    openai_server.script(status=400, error=OVERFLOW)
    chain = [{"model": "gpt-small", "context_window": 4_000}, {"model": "gpt-larger", "context_window": 8_000}]
    told = Listener()
    prompt = [SystemMessage("Be brief."), HumanMessage(f"What is it about?\n{fence(LONG)}")]
    await call(openai_server, clock, policy={"fallbacks": chain}).ainvoke(prompt, {"callbacks": [told]})
    first, second = openai_server.requests
    assert (first.model, second.model) == ("gpt-4.1-mini", "gpt-larger")
    # 30,000 tokens by the refusal; 8,000 hold less than a fourth, with room for the answer.
    assert second.prompt_length < first.prompt_length * 7_000 / 30_000
    assert second.prompt.startswith("Be brief.\nWhat is it about?\n<text>\nSentence number 0 ")
    assert "gpt-larger did, which got the prompt without " in told.notices[0]
    uncut = {"fallbacks": chain, "context_length": {"trim": False}}
    openai_server.script(status=400, error=OVERFLOW)
    with pytest.raises(Exception, match="maximum context length"):
        await call(openai_server, clock, policy=uncut).ainvoke(prompt)
    assert models(openai_server)[2:] == ["gpt-4.1-mini"]


async def test_old_tool_results_are_trimmed_first(openai_server: OpenAIServer, clock: Clock) -> None:
    openai_server.script(status=400, error={**OVERFLOW, "message": "maximum context length"})
    tool_call = {"name": "look", "args": {}, "id": "1"}
    prompt = [
        HumanMessage("Look."),
        AIMessage("", tool_calls=[tool_call]),
        ToolMessage(LONG, tool_call_id="1"),
        HumanMessage("And now?"),
    ]
    policy = {"fallbacks": [{"model": "gpt-small", "context_window": 2_000}]}
    tools = [{"name": "look", "description": "", "parameters": {}}]
    await call(openai_server, clock, policy=policy).bind_tools(tools).ainvoke(prompt)
    second = openai_server.requests[1]
    assert "characters were left out here" in second.prompt
    assert second.prompt.endswith("And now?")
    assert second.tools == ["look"]


async def test_an_unusable_fallback_model_does_not_hide_the_first_error(
    openai_server: OpenAIServer, clock: Clock
) -> None:
    openai_server.script("server_error", times=None, model="gpt-4.1-mini")
    openai_server.script("not_found", times=None)
    told = Listener()
    policy = {"fallbacks": ["gpt-nowhere", "gpt-nothing"]}
    with pytest.raises(AgentFailure, match="500") as raised:
        await call(openai_server, clock, policy=policy).ainvoke("hello", {"callbacks": [told]})
    assert models(openai_server) == ["gpt-4.1-mini"] * 4 + ["gpt-nowhere", "gpt-nothing"]
    assert told.actions == ["retry"] * 3 + ["fallback", "fallback", "task_retry"]
    assert classify(raised.value).category == "server"
    assert not classify(raised.value).final
    assert raised.value.recorded  # as an attempt that the fallback followed


async def test_models_without_a_key_are_no_fallback(
    openai_server: OpenAIServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    openai_server.script("context_length", times=None)
    policy = {"fallbacks": ["anthropic:claude-x", "local:text", "gpt-4.1-mini"]}
    with pytest.raises(Exception, match="context length"):
        await call(openai_server, clock, policy=policy).ainvoke("hello")
    assert models(openai_server) == ["gpt-4.1-mini"]


async def test_each_attempt_after_a_timeout_is_shorter(openai_server: OpenAIServer, clock: Clock) -> None:
    openai_server.script("timeout", times=None)
    with pytest.raises(Exception, match="timed out"):
        await call(openai_server, clock, timeout=0.8).ainvoke("hello")
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.disconnected == 4)
    seconds = [request.duration or 0 for request in openai_server.requests]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] >= 0.8
    assert seconds[3] < 0.4


async def test_a_fallback_model_has_the_full_timeout(openai_server: OpenAIServer, clock: Clock) -> None:
    openai_server.script("timeout", times=3)
    policy = {"timeout": {"retries": 1, "fallback": True}, "fallbacks": ["gpt-4o-mini"]}
    await call(openai_server, clock, timeout=1.2, policy=policy).ainvoke("hello")
    assert models(openai_server) == ["gpt-4.1-mini"] * 2 + ["gpt-4o-mini"] * 2
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.disconnected == 3)
    _, second, third, _ = [request.duration or 0 for request in openai_server.requests]
    assert second < 0.9 < third  # by the server's clock, which begins when a request arrives


async def test_a_structured_answer_is_retried_and_repaired_in_one_call(
    openai_server: OpenAIServer, clock: Clock
) -> None:
    openai_server.script("server_error")
    openai_server.script(content={"ships": "two"})
    openai_server.script("rate_limit", retry_after=3)
    openai_server.script(content={"ships": 2})
    told = Listener()
    model = call(openai_server, clock)
    data = await _ask(model, told)
    assert data == {"ships": 2}
    assert told.actions == ["retry", "repair", "retry"]
    assert [failed.classified.category for failed in told.failed] == ["server", "invalid_output", "rate_limit"]
    assert clock.waits == [1.0, 0.0, 3.0]
    assert all(request.params["response_format"] for request in openai_server.requests)
    assert "It does not fit the form" in openai_server.requests[3].prompt


async def _ask(model: ModelCall, told: Listener) -> dict[str, Any]:
    from langchain_core.runnables import RunnableLambda

    async def node(_: Any) -> Any:
        return await ask(model, [HumanMessage("How many?")], load_output_schema(SHIPS))

    data: dict[str, Any] = await RunnableLambda(node).ainvoke({}, {"callbacks": [told]})
    return data


async def test_the_policy_limits_repairs(openai_server: OpenAIServer, clock: Clock) -> None:
    openai_server.script(content={"ships": "two"}, times=None)
    model = call(openai_server, clock, policy={"invalid_output": {"repairs": 2}})
    with raises_failure(InvalidOutputError, match="also when asked again"):
        await _ask(model, Listener())
    assert len(openai_server.requests) == 3
    with raises_failure(InvalidOutputError, match=r"^the answer does not fit the schema: \$\.ships"):
        await _ask(call(openai_server, clock, policy={"invalid_output": {"repairs": 0}}), Listener())
    assert len(openai_server.requests) == 4


async def test_the_failure_has_its_attempt(openai_server: OpenAIServer, clock: Clock) -> None:
    headers = {"retry-after": "600", "x-ratelimit-remaining-tokens": "0", "set-cookie": "session=1"}
    openai_server.script("rate_limit", retry_after=None, headers=headers)
    with pytest.raises(AgentFailure, match="429") as raised:
        await call(openai_server, clock).ainvoke([HumanMessage("What is it? " * 100)])
    assert isinstance(raised.value.error, openai.RateLimitError)
    assert raised.value.decision == Reschedule(600)
    assert not raised.value.recorded
    attempt = raised.value.attempt
    assert attempt is not None
    assert (attempt.number, attempt.model) == (1, "openai:gpt-4.1-mini")
    context = dict(attempt.context)
    assert context["status"] == 429
    assert context["codes"] == ["rate_limit_exceeded", "tokens"]
    assert context["request_id"] == f"req_{openai_server.requests[0].number}"
    assert context["headers"]["retry-after"] == "600"
    assert context["headers"]["x-ratelimit-remaining-tokens"] == "0"
    assert "set-cookie" not in context["headers"]
    assert (context["prompt_chars"], len(context["prompt"]), context["timeout"]) == (1_200, 500, 10.0)


async def test_waiting_can_be_cancelled(openai_server: OpenAIServer) -> None:
    openai_server.script("rate_limit", retry_after=50)
    waiting = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    asked = asyncio.create_task(call(openai_server, Clock(), timing=RetryTiming(sleep)).ainvoke("hello"))
    await waiting.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert len(openai_server.requests) == 1


async def test_a_call_under_way_can_be_cancelled(openai_server: OpenAIServer, clock: Clock) -> None:
    openai_server.script(hold=True)
    asked = asyncio.create_task(call(openai_server, clock).ainvoke("hello"))
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.in_flight == 1)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.disconnected == 1)
    assert clock.waits == []


def test_a_synchronous_call_is_refused(openai_server: OpenAIServer, clock: Clock) -> None:
    with pytest.raises(NotImplementedError, match="ainvoke"):
        call(openai_server, clock).invoke("hello")


# The gate


async def test_the_rate_limiter_admits_calls_and_learns_their_outcome(
    openai_server: OpenAIServer, clock: Clock
) -> None:
    openai_server.script("rate_limit", retry_after=2)
    openai_server.script("server_error")
    openai_server.script("timeout")
    openai_server.script(content="yes", usage={"input_tokens": 30, "output_tokens": 12})
    gate = Gate()
    await call(openai_server, clock, gate=gate, timeout=1.0).ainvoke("hello")
    [(key, tokens, max_wait), *_] = gate.admitted
    assert key.startswith("openai:gpt-4.1-mini@")
    assert (tokens, max_wait, len(gate.admitted)) == (6, 60, 4)
    outcomes = [("rate_limited", 2.0, None), ("down", None, None), ("down", None, None), ("ok", None, 42)]
    assert gate.reported == [(key, *outcome) for outcome in outcomes]


async def test_a_call_that_is_held_back_waits_or_reschedules_the_task(
    openai_server: OpenAIServer, clock: Clock
) -> None:
    await call(openai_server, clock, gate=Gate(HeldBackError(25.0))).ainvoke("hello")
    assert clock.waits == [25.0]
    assert len(openai_server.requests) == 1
    gate = Gate(HeldBackError(90.0))
    with raises_failure(HeldBackError) as raised:
        await call(openai_server, clock, gate=gate).ainvoke("hello")
    assert raised.value.decision == Reschedule(90)
    assert classify(raised.value).category == "rate_limit"
    assert gate.reported == []
    assert len(openai_server.requests) == 1


async def test_a_provider_that_is_down_is_not_asked(openai_server: OpenAIServer, clock: Clock) -> None:
    told = Listener()
    gate = Gate(CircuitOpenError(15.0))
    await call(openai_server, clock, gate=gate).ainvoke("hello", {"callbacks": [told]})
    assert clock.waits == [15.0]
    assert [failed.classified.category for failed in told.failed] == ["server"]


async def test_a_broken_rate_limiter_lets_calls_through(openai_server: OpenAIServer, clock: Clock) -> None:
    class Broken(Gate):
        async def report(self, model: str, outcome: str, **more: Any) -> None:
            raise OSError("gone")

    answer = await call(openai_server, clock, gate=Broken(OSError("gone"))).ainvoke("hello")
    assert answer.text == "You said: hello"


def test_credential_scopes_distinguish_accounts(openai_server: OpenAIServer) -> None:
    from pydantic import SecretStr

    def scope(key: str, address: str | None = None) -> str:
        settings = Settings(_env_file=None, openai_api_key=key, openai_base_url=address)
        return credential_scope("openai", settings)

    assert scope("a") == scope("a")
    assert len({scope("a"), scope("b"), scope("a", "http://x")}) == 3
    own = ModelCredentials("openai", SecretStr("b"))
    assert credential_scope("openai", Settings(_env_file=None, openai_api_key="a"), own) == scope("b")
    assert "a" * 30 not in scope("a" * 30)
