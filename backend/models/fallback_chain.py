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
from backend.models.options import check_options, integration_arguments, refused_options, untaken
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

    def model(self, name: str, timeout: float | None = None) -> BaseChatModel:
        """The model of that name."""
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

    def __init__(self, model: BaseChatModel) -> None:
        self._model = model
        self.first = type(model).__name__

    def model(self, name: str, timeout: float | None = None) -> BaseChatModel:  # noqa: ARG002  # there is but one
        """The model."""
        return self._model

    def options(self, tried: Collection[str]) -> Sequence[FallbackModel]:  # noqa: ARG002  # as above
        """There are none."""
        return ()

    def gate_key(self, name: str) -> str:
        """Its name."""
        return name


class ModelChain:
    """The chosen model and its fallback models.

    `params` are LangChain's standard ones and the agent's model options. They apply to each of the models, except for
    options that the integration of a fallback model doesn't take.
    """

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
        self._models: dict[tuple[str, float | None], BaseChatModel] = {}
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

    def model(self, name: str, timeout: float | None = None) -> BaseChatModel:
        """The model of that name, with the default timeout or the given one, in seconds.

        Raises `InputError` if its integration refuses the parameters, or doesn't take an option of the chosen model's.
        """
        key = (name, timeout)
        if key not in self._models:
            choice = self._choices[name]
            params = self._params_for(choice)
            if timeout is not None:
                params["timeout"] = timeout
            if choice.provider == "openai" and self._openai_clients is not None:
                params |= self._openai_clients()
            built = build_model(choice, self._settings, credentials=self._credentials, **params)
            if not choice.local and (ignored := untaken(built, params)):
                raise ModelConfigurationError(f"{choice.name} can't take {ignored[0]}; its integration ignores it")
            self._models[key] = built
        return self._models[key]

    def _params_for(self, choice: ModelChoice) -> dict[str, Any]:
        if choice.local:
            return dict(self._params)
        if choice.name == self.first:
            check_options(choice.provider, self._params)
        refused = refused_options(choice.provider, self._params)
        if refused:
            log.info("%s is asked without %s, which its integration doesn't take", choice.name, ", ".join(refused))
        taken = {name: value for name, value in self._params.items() if name not in refused}
        return integration_arguments(choice.provider, taken)

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
