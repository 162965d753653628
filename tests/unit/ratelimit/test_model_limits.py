"""Configured rate limits of models."""

import pytest
from pydantic import ValidationError

from backend.core.models.names import entry_of
from backend.core.ratelimit.configured import ModelLimit
from backend.core.settings import Settings

VARIABLE = "VISUAL_AI_MODEL_LIMITS"


def settings(monkeypatch: pytest.MonkeyPatch, value: str) -> Settings:
    monkeypatch.setenv(VARIABLE, value)
    return Settings(_env_file=None)


def test_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(
        monkeypatch,
        '{"gpt-4.1": {"requests_per_minute": 500, "tokens_per_minute": 30000},'
        ' "anthropic:*": {"requests_per_minute": 50}}',
    ).model_limits
    assert found["gpt-4.1"].requests_per_second == pytest.approx(500 / 60)
    assert found["gpt-4.1"].tokens_per_second == pytest.approx(500)
    assert found["anthropic:*"].tokens_per_second is None


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ('{"gpt-4.1": {"requests_per_minute": 0}}', "VISUAL_AI_MODEL_LIMITS.gpt-4.1.requests_per_minute"),
        ('{"gpt-4.1": {"tokens_per_minute": "many"}}', "VISUAL_AI_MODEL_LIMITS.gpt-4.1.tokens_per_minute"),
        ('{"gpt-4.1": {"rpm": 5}}', "VISUAL_AI_MODEL_LIMITS.gpt-4.1.rpm"),
        ('{"gpt-4.1": {}}', "VISUAL_AI_MODEL_LIMITS.gpt-4.1"),
        ('{"openai:": {"requests_per_minute": 5}}', "openai:"),
        ('["gpt-4.1"]', "VISUAL_AI_MODEL_LIMITS"),
        ("{requests: 5}", "VISUAL_AI_MODEL_LIMITS"),
    ],
)
def test_an_invalid_limit_is_named(monkeypatch: pytest.MonkeyPatch, value: str, named: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        settings(monkeypatch, value)
    places = [".".join(map(str, error["loc"])) for error in wrong.value.errors()]
    assert named in places or any(named in error["msg"] for error in wrong.value.errors()), wrong.value


@pytest.mark.parametrize("address", ["localhost:6379", "http://localhost"])
def test_an_address_that_is_not_redis_is_rejected(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("REDIS_URL", address)
    with pytest.raises(ValidationError, match="REDIS_URL"):
        Settings(_env_file=None)


LIMITS = {
    "openai:gpt-4.1": ModelLimit(requests_per_minute=1),
    "gpt-4.1-mini": ModelLimit(requests_per_minute=2),
    "openai:*": ModelLimit(requests_per_minute=3),
}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("openai:gpt-4.1@0a1b", 1),
        ("openai:gpt-4.1-mini@0a1b", 2),
        ("openai:gpt-5@0a1b", 3),
        ("openai:gpt-5", 3),
        ("anthropic:gpt-4.1-mini@0a1b", None),
        ("openai:gpt-4.1@odd@0a1b", 3),
    ],
)
def test_the_most_specific_limit_applies(model: str, expected: int | None) -> None:
    found = entry_of(LIMITS, model)
    assert (found.requests_per_minute if found else None) == expected
