"""What a provider says about an error reaches the user, whatever the shape of the body: with the real clients."""

import json

import pytest
from pydantic import SecretStr

from backend.core.settings import Settings
from backend.core.workflow_error_handler import classify
from backend.models.attempts import error_context
from backend.models.resolve import ModelCredentials, build_model, resolve_model
from tests.kit.failures.bodies import BODIES, Body
from tests.kit.openai.server import OpenAIServer

MODELS = {"openai": "openai:gpt-4.1-mini", "anthropic": "anthropic:claude-sonnet-5", "ollama": "ollama:llama3"}


async def error_of(server: OpenAIServer, case: Body) -> Exception:
    """The error that a built-in model raises about a response to its streamed request."""
    server.script(status=case.status, body=case.body, headers=case.headers)
    address = server.base_url if case.speaks == "openai" else server.root_url
    credentials = ModelCredentials(case.speaks, SecretStr("test"), address)
    settings = Settings(_env_file=None, model_timeout=5)
    choice = resolve_model(MODELS[case.speaks], purpose="text", settings=settings, credentials=credentials)
    model = build_model(choice, settings, credentials=credentials)
    with pytest.raises(Exception) as raised:  # noqa: PT011  # each client has its own errors
        async for _ in model.astream("hello"):
            pass
    return raised.value


def test_there_are_at_least_fifty_bodies() -> None:
    assert len(BODIES) >= 50
    assert len({case.name for case in BODIES}) == len(BODIES)


@pytest.mark.parametrize("case", BODIES, ids=str)
async def test_the_providers_words_are_kept(openai_server: OpenAIServer, case: Body) -> None:
    error = await error_of(openai_server, case)
    found, context = classify(error), error_context(error)
    assert found.category == case.category
    assert case.words in found.message
    assert len(found.message) < 600
    assert "</" not in found.message
    if case.body:
        assert context["provider_message"]
        assert context["body"]
    if case.code:
        assert case.code in context["codes"]
    if case.request_id:
        assert context["request_id"] == case.request_id


async def test_secrets_in_a_body_are_not_kept(openai_server: OpenAIServer) -> None:
    body = {"error": {"message": "No.", "api_key": "abcdef123456"}, "note": "sent with Bearer abcdefghijkl"}
    error = await error_of(openai_server, Body("", 400, body, "bad_request", ""))
    kept = json.dumps(error_context(error))
    assert "abcdef123456" not in kept
    assert "abcdefghijkl" not in kept


async def test_a_long_body_is_shortened(openai_server: OpenAIServer) -> None:
    error = await error_of(openai_server, Body("", 500, "word " * 50_000, "server", ""))
    assert len(classify(error).message) < 2_100
    assert len(error_context(error)["body"]) <= 4_000
