"""Resolves a model's name to the model that answers, and builds it.

`resolve_model` decides which model answers: the requested one, its successor if it is retired, or an offline model if
no provider's key is set. `build_model` turns that choice into a LangChain chat model. Importing this module is cheap:
LangChain is only loaded when a model is built.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretStr

from backend.core.errors.input_error import InputError
from backend.core.models.modes import UNDECIDED, ModelModes, read_output_method, read_streaming

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from backend.core.settings import Settings

logger = logging.getLogger(__name__)

Purpose = Literal["vision", "text"]

PLACEHOLDER_KEY = "no-key"
"""Sent to OpenAI-compatible servers that need no key, because the client library insists on one."""


class ModelConfigurationError(InputError):
    """The requested model can't be used with this configuration. A retry doesn't help."""

    field = "model"


@dataclass(frozen=True, slots=True)
class ModelCredentials:
    """A key and an address from an Airflow connection, which take precedence over the environment's.

    `model` is used where neither the agent nor the run names one. `modes` says how models of this provider are asked.
    """

    provider: str = "openai"
    api_key: SecretStr | None = None
    base_url: str | None = None
    model: str | None = None
    modes: ModelModes = UNDECIDED

    @classmethod
    def of_connection(
        cls, *, conn_type: str | None, password: str | None, address: str | None, extra: Mapping[str, Any]
    ) -> ModelCredentials:
        """Read an Airflow connection of the common-ai provider's type `langchain`.

        It has the key in its password, the address in its host, and `{"model": "provider:name"}` in its extra, which
        may also have `streaming` and `output_method`. Raises `InputError` if one of these two is wrong.
        """
        model = extra.get("model")
        model = model if isinstance(model, str) and model.strip() else None
        named = str(extra.get("provider") or (conn_type if conn_type in PROVIDERS else "") or "openai")
        if model is not None and ":" not in model:
            model = f"{named}:{model}"
        provider = named if model is None else _split(model)[0]
        try:
            modes = ModelModes(
                streaming=read_streaming(extra.get("streaming")),
                output_method=read_output_method(extra.get("output_method")),
            )
        except ValueError as error:
            raise InputError(f"names a connection whose extra is wrong: {error}", field="llm_conn_id") from None
        return cls(provider, SecretStr(password) if password else None, address or None, model, modes)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model that answers.

    `name` is "provider:model"; `local` says whether it works offline; `notice` is what the user should know about the
    choice, or None. Pictures are sent with at most `max_image_side` pixels on their longer side.
    """

    name: str
    local: bool
    notice: str | None
    max_image_side: int

    @property
    def provider(self) -> str:
        """The part before the colon."""
        return self.name.partition(":")[0]

    @property
    def model(self) -> str:
        """The part after the colon."""
        return self.name.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Provider:
    """The import package of a provider's integration, and the variables that may hold its key, if it needs one."""

    module: str
    key_variables: tuple[str, ...] = ()

    @property
    def package(self) -> str:
        """The integration's name on PyPI."""
        return self.module.replace("_", "-")


PROVIDERS = {
    "openai": Provider("langchain_openai", ("OPENAI_API_KEY",)),
    "anthropic": Provider("langchain_anthropic", ("ANTHROPIC_API_KEY",)),
    "azure_openai": Provider("langchain_openai", ("AZURE_OPENAI_API_KEY",)),
    "bedrock": Provider("langchain_aws"),
    "bedrock_converse": Provider("langchain_aws"),
    "cohere": Provider("langchain_cohere", ("COHERE_API_KEY",)),
    "deepseek": Provider("langchain_deepseek", ("DEEPSEEK_API_KEY",)),
    "fireworks": Provider("langchain_fireworks", ("FIREWORKS_API_KEY",)),
    "google_genai": Provider("langchain_google_genai", ("GOOGLE_API_KEY", "GEMINI_API_KEY")),
    "google_vertexai": Provider("langchain_google_vertexai"),
    "groq": Provider("langchain_groq", ("GROQ_API_KEY",)),
    "mistralai": Provider("langchain_mistralai", ("MISTRAL_API_KEY",)),
    "nvidia": Provider("langchain_nvidia_ai_endpoints", ("NVIDIA_API_KEY",)),
    "ollama": Provider("langchain_ollama"),
    "openrouter": Provider("langchain_openrouter", ("OPENROUTER_API_KEY",)),
    "perplexity": Provider("langchain_perplexity", ("PPLX_API_KEY",)),
    "together": Provider("langchain_together", ("TOGETHER_API_KEY",)),
    "xai": Provider("langchain_xai", ("XAI_API_KEY",)),
}
"""The providers by LangChain's names. Those without variables find their credentials (AWS, Google) or need none."""

LOCAL_MODELS: dict[Purpose, str] = {"vision": "local:vision", "text": "local:text"}

RETIRED = {
    "gpt-4-vision-preview": "gpt-4.1",
    "gpt-4-1106-vision-preview": "gpt-4.1",
    "gpt-4-turbo-preview": "gpt-4.1",
    "gpt-4-1106-preview": "gpt-4.1",
    "gpt-4-0125-preview": "gpt-4.1",
    "gpt-4-32k": "gpt-4.1",
    "gpt-4.5-preview": "gpt-4.1",
    "gpt-3.5-turbo": "gpt-4.1-mini",
    "gpt-3.5-turbo-16k": "gpt-4.1-mini",
    "gpt-3.5-turbo-0613": "gpt-4.1-mini",
    "gpt-3.5-turbo-1106": "gpt-4.1-mini",
    "gpt-3.5-turbo-0125": "gpt-4.1-mini",
    "text-davinci-003": "gpt-4.1-mini",
    "o1-preview": "o3",
    "o1-mini": "o4-mini",
}
"""OpenAI's retired names that tutorials and old DAGs still hold, and what answers to them now."""


def resolve_model(
    requested: str | None,
    *,
    purpose: Purpose,
    settings: Settings,
    credentials: ModelCredentials | None = None,
) -> ModelChoice:
    """Choose the model for a request such as "openai:gpt-4.1", "gpt-4.1", "local:vision" or None (the
    default).

    Without any provider's key and without OPENAI_BASE_URL the offline model of that purpose is chosen, unless
    a provider that needs no key was asked for by name. Raises `ModelConfigurationError`: a retry doesn't
    help.
    """
    asked = (requested or "").strip() or settings.default_model
    provider, model = check_name(asked)
    if provider == "local":
        return _local(asked, purpose, settings)
    needs_key = bool(PROVIDERS[provider].key_variables)
    if needs_key and not _any_key(settings, credentials):
        return _offline_instead(f"{provider}:{model}", purpose, settings)
    if needs_key and not _has_key(provider, settings, credentials):
        variables = " or ".join(PROVIDERS[provider].key_variables)
        raise ModelConfigurationError(
            f"“{provider}:{model}” needs a key: set {variables}, or name a model of a provider that has one"
        )
    _check_installed(provider)
    notice = None
    # A compatible server may still serve a model under a name that OpenAI has retired.
    if provider == "openai" and not _base_url(provider, settings, credentials) and model in RETIRED:
        notice = f"{model} is retired: {RETIRED[model]} was used instead"
        logger.warning(notice)
        model = RETIRED[model]
    return ModelChoice(f"{provider}:{model}", False, notice, settings.model_image_side)


def check_name(asked: str) -> tuple[str, str]:
    """Return the provider and the model in a name, whatever keys are set.

    Raises `ModelConfigurationError` if the name doesn't refer to a model.
    """
    provider, model = _split(asked)
    if provider == "local":
        _check_local(asked)
    elif provider not in PROVIDERS:
        raise ModelConfigurationError(
            f"“{asked}” names the unknown provider “{provider}”; known are local, {', '.join(PROVIDERS)}"
        )
    return provider, model


def build_model(
    choice: ModelChoice,
    settings: Settings,
    *,
    credentials: ModelCredentials | None = None,
    on_whole_answer: Callable[[], None] | None = None,
    **params: Any,
) -> BaseChatModel:
    """Build the chosen model; `params` are LangChain's standard ones (temperature, max_tokens, …).

    `on_whole_answer` is called when a server that was asked for a stream answers with a whole.

    The model does not retry by itself, because the model call does so under the error policy. Its timeout, in seconds,
    is `settings.model_timeout` by default. Raises `ModelConfigurationError` if the integration refuses the parameters.
    """
    if choice.local:
        return _build_local(choice, settings, params)
    _check_installed(choice.provider)
    arguments: dict[str, Any] = {"timeout": settings.model_timeout, "max_retries": 0}
    base_url = _base_url(choice.provider, settings, credentials)
    key = _given_key(choice.provider, settings, credentials)
    if choice.provider == "openai":
        # Otherwise a streamed answer has no usage, and so no cost.
        arguments["stream_usage"] = True
        key = key or SecretStr(PLACEHOLDER_KEY)
    if base_url:
        arguments["azure_endpoint" if choice.provider == "azure_openai" else "base_url"] = base_url
    if key is not None:
        arguments["api_key"] = key.get_secret_value()
    arguments |= params
    if choice.provider == "azure_openai":
        _check_azure(arguments)
    if choice.provider == "ollama":  # its integration takes no timeout, but its client does
        arguments = {"client_kwargs": {"timeout": arguments.pop("timeout")}, **arguments}
    try:
        built = _integrated(choice, arguments)
    except (ValueError, TypeError) as error:
        # The error's text may contain the parameters, and with them the key.
        raise ModelConfigurationError(
            f"{choice.name} could not be set up: its integration refused the parameters "
            f"{', '.join(sorted(params)) or '(none were given)'} ({type(error).__name__})"
        ) from None
    if choice.provider in ("openai", "azure_openai"):
        from backend.models.whole_answers import accept_whole_answers

        accept_whole_answers(built, on_whole_answer)
    return built


def _check_azure(arguments: Mapping[str, Any]) -> None:
    """Azure has an address for each account, and versions of its API."""
    needed = {"azure_endpoint": "AZURE_OPENAI_ENDPOINT", "api_version": "OPENAI_API_VERSION"}
    missing = [name for argument, name in needed.items() if argument not in arguments and not os.environ.get(name)]
    if missing:
        raise ModelConfigurationError(f"models of azure_openai need {' and '.join(missing)} in the environment")


def _integrated(choice: ModelChoice, arguments: Mapping[str, Any]) -> BaseChatModel:
    """The model of a provider's integration, which is imported only here."""
    if choice.provider in ("openai", "azure_openai"):
        from backend.models.openai_chat import azure_openai_chat, openai_chat

        build = openai_chat if choice.provider == "openai" else azure_openai_chat
        return build(choice.model, **arguments)
    from langchain.chat_models import init_chat_model

    built: BaseChatModel = init_chat_model(choice.model, model_provider=choice.provider, **arguments)
    return built


def credential_scope(provider: str, settings: Settings, credentials: ModelCredentials | None = None) -> str:
    """A short identifier of the account that a provider is called with: a hash of its key and address.

    The key can't be recovered from it.
    """
    key = _given_key(provider, settings, credentials)
    found = (
        key.get_secret_value() if key is not None else next(filter(None, map(os.environ.get, _variables(provider))), "")
    )
    address = _base_url(provider, settings, credentials) or ""
    return sha256(f"{provider}\0{address}\0{found}".encode()).hexdigest()[:12]


def address_of(provider: str, settings: Settings, credentials: ModelCredentials | None = None) -> str | None:
    """The address that a provider's models are called at; None for the provider's own, or its integration's setting."""
    return _base_url(provider, settings, credentials)


def _split(asked: str) -> tuple[str, str]:
    """Split "provider:model". A bare name is OpenAI's, and so is that of a fine-tuned model ("ft:…")."""
    prefix, colon, rest = asked.partition(":")
    if not colon or prefix.lower() == "ft":
        return "openai", asked
    if not rest.strip():
        raise ModelConfigurationError(f"“{asked}” names no model; write provider:model")
    return prefix.strip().lower().replace("-", "_"), rest.strip()


def _check_local(asked: str) -> None:
    if asked.lower() not in LOCAL_MODELS.values():
        raise ModelConfigurationError(
            f"there is no “{asked}”; the offline models are {' and '.join(LOCAL_MODELS.values())}"
        )


def _local(asked: str, purpose: Purpose, settings: Settings) -> ModelChoice:
    fitting = LOCAL_MODELS[purpose]
    notice = None
    if asked.lower() != fitting:
        notice = f"{asked} can't do this: {fitting} was used instead"
        logger.warning(notice)
    return ModelChoice(fitting, True, notice, settings.model_image_side)


def _offline_instead(asked: str, purpose: Purpose, settings: Settings) -> ModelChoice:
    fitting = LOCAL_MODELS[purpose]
    notice = f"no model key is set (OPENAI_API_KEY): offline {fitting} was used instead of {asked}"
    logger.warning(notice)
    return ModelChoice(fitting, True, notice, settings.model_image_side)


def _any_key(settings: Settings, credentials: ModelCredentials | None) -> bool:
    return any(_has_key(provider, settings, credentials) for provider in _keyed_providers())


def _keyed_providers() -> Iterator[str]:
    return (name for name, provider in PROVIDERS.items() if provider.key_variables)


def _has_key(provider: str, settings: Settings, credentials: ModelCredentials | None) -> bool:
    if _given_key(provider, settings, credentials) is not None:
        return True
    if provider == "openai":
        # A compatible server, such as one on the same machine, may need no key.
        return bool(_base_url(provider, settings, credentials))
    return any(os.environ.get(variable) for variable in PROVIDERS[provider].key_variables)


def _given_key(provider: str, settings: Settings, credentials: ModelCredentials | None) -> SecretStr | None:
    """The key to pass on. Other providers' integrations read their own variables."""
    given = credentials if credentials is not None and credentials.provider == provider else None
    # The environment's key is never sent to an address that a connection sets.
    if given is not None and (given.api_key or given.base_url):
        return given.api_key
    return settings.openai_api_key if provider == "openai" else None


def _base_url(provider: str, settings: Settings, credentials: ModelCredentials | None) -> str | None:
    if credentials is not None and credentials.provider == provider and credentials.base_url:
        return credentials.base_url
    return settings.openai_base_url if provider == "openai" else None


def _variables(provider: str) -> tuple[str, ...]:
    return PROVIDERS[provider].key_variables if provider in PROVIDERS else ()


def _check_installed(provider: str) -> None:
    known = PROVIDERS[provider]
    if find_spec(known.module) is None:
        raise ModelConfigurationError(
            f"the provider “{provider}” needs the package {known.package}: pip install {known.package}"
        )


def _build_local(choice: ModelChoice, settings: Settings, params: dict[str, Any]) -> BaseChatModel:
    from backend.models.offline.text import LocalText
    from backend.models.offline.vision import LocalVision

    if choice.name == LOCAL_MODELS["vision"]:
        limits = {"max_image_bytes": settings.max_image_bytes, "max_image_pixels": settings.max_image_pixels}
        return LocalVision(**{**limits, **params})
    return LocalText(**params)
