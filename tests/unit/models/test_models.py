"""Which model answers: names, keys, retired names, and what is said when there is no key."""

import logging
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from langchain.chat_models import base as langchain_models
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from backend.core.settings import Settings
from backend.models.offline.text import LocalText
from backend.models.offline.vision import LocalVision
from backend.models.prices import cost_usd
from backend.models.resolve import (
    PLACEHOLDER_KEY,
    PROVIDERS,
    RETIRED,
    ModelConfigurationError,
    ModelCredentials,
    build_model,
    resolve_model,
)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in PROVIDERS.values():
        for variable in provider.key_variables:
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("VISUAL_AI_DEFAULT_MODEL", raising=False)


def _settings(**values: object) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[arg-type]  # whatever the test sets


KEYED = _settings(openai_api_key=SecretStr("sk-test"))
KEYLESS = _settings()


@pytest.mark.parametrize(
    ("requested", "name"),
    [
        (None, "openai:gpt-4.1-mini"),
        ("  ", "openai:gpt-4.1-mini"),
        ("gpt-4.1", "openai:gpt-4.1"),
        ("openai:gpt-5-mini", "openai:gpt-5-mini"),
        ("OpenAI:gpt-5-mini", "openai:gpt-5-mini"),
        ("ft:gpt-4o-mini:acme::abc", "openai:ft:gpt-4o-mini:acme::abc"),
        ("azure-openai:deployment", None),
        ("local:vision", "local:vision"),
    ],
)
def test_names(requested: str | None, name: str | None) -> None:
    if name is None:
        with pytest.raises(ModelConfigurationError, match="AZURE_OPENAI_API_KEY"):
            resolve_model(requested, purpose="vision", settings=KEYED)
        return
    choice = resolve_model(requested, purpose="vision", settings=KEYED)
    assert (choice.name, choice.notice, choice.max_image_side) == (name, None, 2048)
    assert choice.local is name.startswith("local:")
    assert f"{choice.provider}:{choice.model}" == name


@pytest.mark.parametrize("requested", [None, "gpt-4.1", "anthropic:claude-sonnet-4-5", "groq:llama"])
def test_without_any_key_the_offline_model_answers(requested: str | None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        choice = resolve_model(requested, purpose="text", settings=KEYLESS)
    assert (choice.name, choice.local) == ("local:text", True)
    wanted = "openai:gpt-4.1-mini" if requested is None else requested if ":" in requested else f"openai:{requested}"
    expected = f"no model key is set (OPENAI_API_KEY): offline local:text was used instead of {wanted}"
    assert choice.notice == expected
    assert [record.message for record in caplog.records] == [expected]


def test_a_key_for_another_provider_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ModelConfigurationError, match=r"^model: “anthropic:claude-x” needs a key: set ANTHROPIC_API_KEY"
    ):
        resolve_model("anthropic:claude-x", purpose="text", settings=KEYED)
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    with pytest.raises(ModelConfigurationError, match="OPENAI_API_KEY"):
        resolve_model("gpt-4.1", purpose="text", settings=KEYLESS)
    with pytest.raises(ModelConfigurationError, match="pip install langchain-google-genai"):
        resolve_model("google_genai:gemini-x", purpose="text", settings=KEYLESS)


def test_a_provider_that_needs_no_key_is_not_replaced() -> None:
    with pytest.raises(ModelConfigurationError, match="“bedrock” needs the package langchain-aws"):
        resolve_model("bedrock:some.model-v1:0", purpose="vision", settings=KEYLESS)


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ("acme:model", "unknown provider “acme”; known are local, openai"),
        ("openai:", "names no model"),
        ("local:audio", "the offline models are local:vision and local:text"),
    ],
)
def test_invalid_names(requested: str, message: str) -> None:
    with pytest.raises(ModelConfigurationError, match=message):
        resolve_model(requested, purpose="text", settings=KEYED)


def test_an_offline_model_of_the_wrong_kind_is_replaced() -> None:
    choice = resolve_model("local:text", purpose="vision", settings=KEYED)
    assert choice.name == "local:vision"
    assert choice.notice == "local:text can't do this: local:vision was used instead"


def test_retired_names() -> None:
    choice = resolve_model("gpt-4-vision-preview", purpose="vision", settings=KEYED)
    assert choice.name == "openai:gpt-4.1"
    assert choice.notice == "gpt-4-vision-preview is retired: gpt-4.1 was used instead"
    for retired, current in RETIRED.items():
        assert current not in RETIRED
        for name in (retired, current):  # both are real names
            calc_price(Usage(input_tokens=1), name, provider_id="openai")


def test_a_compatible_server_keeps_its_own_names() -> None:
    own = _settings(openai_base_url="http://127.0.0.1:9/v1")
    choice = resolve_model("gpt-3.5-turbo", purpose="text", settings=own)
    assert (choice.name, choice.notice, choice.local) == ("openai:gpt-3.5-turbo", None, False)
    model = build_model(choice, own)
    assert isinstance(model, ChatOpenAI)
    assert model.openai_api_key == SecretStr(PLACEHOLDER_KEY)
    assert model.openai_api_base == "http://127.0.0.1:9/v1"


def test_parameters_of_a_built_model() -> None:
    choice = resolve_model("gpt-4.1", purpose="text", settings=KEYED)
    model = build_model(choice, KEYED, temperature=0.3, max_tokens=50)
    assert isinstance(model, ChatOpenAI)
    assert (model.model_name, model.temperature, model.max_tokens) == ("gpt-4.1", 0.3, 50)
    assert (model.max_retries, model.stream_usage, model.request_timeout) == (0, True, 120.0)
    with pytest.raises(ModelConfigurationError, match=r"refused the parameters temperature") as caught:
        build_model(choice, KEYED, temperature="hot")
    assert "sk-test" not in str(caught.value)


def test_local_models_take_the_settings_limits() -> None:
    small = _settings(max_image_pixels=5000)
    vision = build_model(resolve_model(None, purpose="vision", settings=small), small, temperature=0.1)
    assert isinstance(vision, LocalVision)
    assert vision.max_image_pixels == 5000
    assert isinstance(build_model(resolve_model(None, purpose="text", settings=small), small), LocalText)


def test_credentials_of_a_connection() -> None:
    given = ModelCredentials("openai", SecretStr("sk-conn"), None)
    choice = resolve_model("gpt-4.1", purpose="text", settings=KEYLESS, credentials=given)
    model = build_model(choice, KEYLESS, credentials=given)
    assert isinstance(model, ChatOpenAI)
    assert model.openai_api_key == SecretStr("sk-conn")


def test_the_environments_key_is_not_sent_to_a_connections_server() -> None:
    given = ModelCredentials("openai", None, "http://127.0.0.1:9/v1")
    model = build_model(
        resolve_model("some-model", purpose="text", settings=KEYED, credentials=given), KEYED, credentials=given
    )
    assert isinstance(model, ChatOpenAI)
    assert model.openai_api_key == SecretStr(PLACEHOLDER_KEY)
    assert model.openai_api_base == "http://127.0.0.1:9/v1"


def test_the_table_of_providers_is_langchains() -> None:
    for name, provider in PROVIDERS.items():
        assert langchain_models._BUILTIN_PROVIDERS[name][0] == provider.module


def test_prices() -> None:
    assert cost_usd("openai:gpt-4.1-mini", 1000, 500) == Decimal("0.0012")
    assert cost_usd("gpt-4.1-mini", 1000, 500) == Decimal("0.0012")
    assert cost_usd("openai:gpt-4.1-mini", 1000, 500, cache_read_tokens=500) == Decimal("0.00105")
    assert cost_usd("google_genai:gemini-2.5-flash", 1000, 0) is not None
    assert cost_usd("local:vision", 10**6, 10**6) == 0
    assert cost_usd("openai:no-such-model", 1, 1) is None
    assert cost_usd("ollama:llama3", 1, 1) is None
    assert cost_usd("acme:model", 1, 1) is None
