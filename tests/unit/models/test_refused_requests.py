"""What follows when a server refuses a request, or answers with what can't be read: decided by the call of an agent."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from backend.core.settings import Settings
from backend.core.workflow_error_handler import AgentFailure, Reschedule, action_of, parse_error_policy
from backend.models.call import ModelCall, make_model_call
from backend.models.http_clients import HttpClients
from backend.models.prices import context_window
from backend.models.resolve import ModelCredentials, resolve_model
from tests.kit.clock import Clock
from tests.kit.failures.refusals import REFUSALS, WINDOW, Refusal
from tests.kit.openai.server import OpenAIServer
from tests.unit.models.test_model_call import Listener

MODEL = "openai:gpt-4.1-mini"


@pytest.fixture
async def clients() -> AsyncIterator[HttpClients]:
    clients = HttpClients()
    yield clients
    await clients.close()


def call(server: OpenAIServer, clients: HttpClients, clock: Clock) -> ModelCall:
    credentials = ModelCredentials("openai", SecretStr("test"), server.base_url)
    settings = Settings(_env_file=None, model_timeout=5)
    choice = resolve_model(MODEL, purpose="text", settings=settings, credentials=credentials)
    policy = parse_error_policy({"fallbacks": [{"model": "gpt-large", "context_window": 4 * WINDOW}]})
    options: dict[str, Any] = {"credentials": credentials, "timing": clock.timing, "params": {"streaming": True}}
    return make_model_call(choice, settings, policy, purpose="text", openai_clients=clients.arguments, **options)


def test_there_are_at_least_fifty_refusals() -> None:
    assert len(REFUSALS) >= 50
    assert len({case.name for case in REFUSALS}) == len(REFUSALS)
    assert context_window(MODEL) == WINDOW


@pytest.mark.parametrize("case", REFUSALS, ids=str)
async def test_what_follows_a_refusal(openai_server: OpenAIServer, clients: HttpClients, case: Refusal) -> None:
    openai_server.script(status=case.status, body=case.body, headers=dict(case.headers), encoding=case.encoding)
    clock, told = Clock(), Listener()
    model = call(openai_server, clients, clock)
    if case.follows in ("retry", "fallback"):
        answer = await model.ainvoke("hello", {"callbacks": [told]})
        assert answer.text == "You said: hello"
        [failed] = told.failed
        usual = 1.0 if case.follows == "retry" else 0.0
        assert clock.waits == [usual if case.wait is None else case.wait]
        assert len(openai_server.requests) == 2
    else:
        with pytest.raises(AgentFailure) as raised:
            await model.ainvoke("hello", {"callbacks": [told]})
        assert raised.value.attempt is not None
        failed = raised.value.attempt
        assert len(openai_server.requests) == 1
        if case.follows == "reschedule":
            assert failed.decision == Reschedule(case.wait or 0)
    assert failed.classified.category == case.category
    assert action_of(failed.decision) == case.follows
