"""The models that may answer an agent's calls: the chosen one, and the fallback models that may take over from it.

Models are built when they are first needed. A fallback model counts only if it can be used here: its provider's package
is installed, and it has a key.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from langchain_core.language_models import BaseChatModel

from backend.core.errors.fallbacks import FallbackModel
from backend.core.settings import Settings
from backend.models.prices import context_window
from backend.models.resolve import (
    ModelChoice,
    ModelConfigurationError,
    ModelCredentials,
    Purpose,
    build_model,
    credential_scope,
    resolve_model,
)

log = logging.getLogger(__name__)

ANSWER_TOKENS = 1_000
"""The room that is reserved for an answer, in tokens, where `max_tokens` does not limit its length."""


class Models(Protocol):
    """What a model call needs to know of its models; see `ModelChain`."""

    first: str

    @property
    def timeout(self) -> float:
        """The timeout of a call, in seconds."""
        ...

    @property
    def answer_tokens(self) -> int:
        """The most tokens that an answer may have."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """The limit of an answer's tokens that is configured."""
        ...

    def most_tokens(self, name: str) -> int | None:
        """The highest limit of an answer's tokens that the model knows; None if that is unknown."""
        ...

    def window(self, name: str) -> int | None:
        """The model's context window in tokens; None if it is unknown. The first call takes half a second."""
        ...

    def model(self, name: str, timeout: float | None = None, max_tokens: int | None = None) -> BaseChatModel:
        """The model of that name, with another timeout or limit of an answer's tokens if they are given."""
        ...

    def options(self, tried: Collection[str]) -> Sequence[FallbackModel]:
        """The models that may still take over."""
        ...

    def gate_key(self, name: str) -> str:
        """The model's key in the rate limiter."""
        ...


class OneModel:
    """A single model that was built elsewhere and has no fallback models."""

    timeout = 0.0
    answer_tokens = 0
    max_tokens = None

    def __init__(self, model: BaseChatModel) -> None:
        self._model = model
        self.first = type(model).__name__

    def model(
        self,
        name: str,  # noqa: ARG002  # there is but one
        timeout: float | None = None,  # noqa: ARG002
        max_tokens: int | None = None,  # noqa: ARG002
    ) -> BaseChatModel:
        """The model."""
        return self._model

    def most_tokens(self, name: str) -> int | None:  # noqa: ARG002  # as above
        """Its limit can't be raised."""
        return 0

    def window(self, name: str) -> int | None:  # noqa: ARG002  # as above
        """It is unknown."""
        return None

    def options(self, tried: Collection[str]) -> Sequence[FallbackModel]:  # noqa: ARG002  # as above
        """There are none."""
        return ()

    def gate_key(self, name: str) -> str:
        """Its name."""
        return name


class ModelChain:
    """The chosen model and its fallback models. `params` are LangChain's standard ones, and apply to each of them."""

    def __init__(
        self,
        choice: ModelChoice,
        settings: Settings,
        fallbacks: Collection[FallbackModel] = (),
        *,
        purpose: Purpose = "text",
        credentials: ModelCredentials | None = None,
        params: Mapping[str, Any] | None = None,
        openai_clients: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """Build the chosen model. Raises `ModelConfigurationError` if its integration refuses the parameters.

        `openai_clients` returns the HTTP clients that OpenAI's models share, as parameters of `build_model`.
        """
        self._settings = settings
        self._fallbacks = () if choice.local else tuple(fallbacks)
        self._purpose = purpose
        self._credentials = credentials
        self._params = dict(params or {})
        self._openai_clients = openai_clients
        self._choices = {choice.name: choice}
        self._models: dict[tuple[str, float | None, int | None], BaseChatModel] = {}
        self._usable: list[FallbackModel] | None = None
        self.first = choice.name
        self.model(choice.name)

    @property
    def timeout(self) -> float:
        """The timeout of a call, in seconds."""
        return float(self._params.get("timeout", self._settings.model_timeout))

    @property
    def answer_tokens(self) -> int:
        """The most tokens that an answer may have."""
        return int(self._params.get("max_tokens") or ANSWER_TOKENS)

    @property
    def max_tokens(self) -> int | None:
        """The limit of an answer's tokens that is configured."""
        limit = self._params.get("max_tokens")
        return int(limit) if limit else None

    def most_tokens(self, name: str) -> int | None:
        """The highest limit of an answer's tokens, according to the model's profile; None if that is unknown."""
        profile = getattr(self.model(name), "profile", None)
        most = profile.get("max_output_tokens") if isinstance(profile, Mapping) else None
        return most if isinstance(most, int) else None

    def window(self, name: str) -> int | None:
        """The model's context window in tokens, by the chain or the price table; None if neither knows it."""
        own = next((each.context_window for each in self._usable or () if each.model == name), None)
        return own or context_window(name)

    def model(self, name: str, timeout: float | None = None, max_tokens: int | None = None) -> BaseChatModel:
        """The model of that name, with the default timeout (in seconds) and limit of tokens or the given ones.

        Raises `ModelConfigurationError` if its integration refuses the parameters.
        """
        key = (name, timeout, max_tokens)
        if key not in self._models:
            choice = self._choices[name]
            given = {"timeout": timeout, "max_tokens": max_tokens}
            params = {**self._params, **{name: value for name, value in given.items() if value is not None}}
            if choice.provider == "openai" and self._openai_clients is not None:
                params |= self._openai_clients()
            self._models[key] = build_model(choice, self._settings, credentials=self._credentials, **params)
        return self._models[key]

    def options(self, tried: Collection[str]) -> list[FallbackModel]:
        """The models that can take over and have not been tried yet, with their context windows where known.

        Models without a key or a package are left out, and so are offline ones. The first call takes half a second.
        """
        if self._usable is None:
            self._usable = [found for fallback in self._fallbacks if (found := self._resolved(fallback)) is not None]
        return [fallback for fallback in self._usable if fallback.model not in tried]

    def gate_key(self, name: str) -> str:
        """The model's key in the rate limiter: "provider:name@scope", where the scope identifies the account."""
        provider = name.partition(":")[0]
        return f"{name}@{credential_scope(provider, self._settings, self._credentials)}"

    def _resolved(self, fallback: FallbackModel) -> FallbackModel | None:
        try:
            choice = resolve_model(
                fallback.model, purpose=self._purpose, settings=self._settings, credentials=self._credentials
            )
            if choice.local or choice.name == self.first:
                return None
        except ModelConfigurationError as error:
            log.info("%s can't take over from %s: %s", fallback.model, self.first, error.message)
            return None
        self._choices[choice.name] = choice
        return FallbackModel(choice.name, fallback.context_window or context_window(choice.name))
