"""The models that may answer an agent's calls: the chosen one, and the fallback models that may take over from it.

Models are built when they are first needed. A fallback model counts only if it can be used here: its provider's package
is installed, and it has a key.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from langchain_core.language_models import BaseChatModel

from backend.core.errors.fallbacks import FallbackModel
from backend.core.models.modes import UNDECIDED, ModelModes
from backend.core.models.names import entry_of
from backend.core.settings import Settings
from backend.models.adaptation import ServedModel, memory_of
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

    def served(self, name: str) -> ServedModel:
        """How the model is asked, and what is known about its server."""
        ...


class OneModel:
    """A single model that was built elsewhere and has no fallback models."""

    timeout = 0.0
    answer_tokens = 0
    max_tokens = None

    def __init__(self, model: BaseChatModel) -> None:
        self._model = model
        self.first = type(model).__name__
        self._served = ServedModel(self.first)

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

    def served(self, name: str) -> ServedModel:  # noqa: ARG002  # there is but one
        """As it is, until its server refuses something."""
        return self._served


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
        modes: ModelModes = UNDECIDED,
        openai_clients: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """Build the chosen model. Raises `ModelConfigurationError` if its integration refuses the parameters.

        `modes` takes precedence over those of the connection and the settings. `openai_clients` returns the HTTP
        clients that OpenAI's models share, as parameters of `build_model`.
        """
        self._settings = settings
        self._fallbacks = () if choice.local else tuple(fallbacks)
        self._purpose = purpose
        self._credentials = credentials
        self._params = dict(params or {})
        self._modes = modes
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
        limit = int(self._params.get("max_tokens") or self._params.get("num_predict") or 0)
        return limit if limit > 0 else None

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

        Raises `InputError` if its integration refuses the parameters, or doesn't take an option of the chosen model's.
        """
        key = (name, timeout, max_tokens)
        if key not in self._models:
            choice = self._choices[name]
            given = {"timeout": timeout, "max_tokens": max_tokens}
            params = self._params_for(choice, {name: value for name, value in given.items() if value is not None})
            if choice.provider == "openai" and self._openai_clients is not None:
                params |= self._openai_clients()
            built = build_model(
                choice,
                self._settings,
                credentials=self._credentials,
                on_whole_answer=partial(self._ignores_streaming, name),
                **params,
            )
            if not choice.local and (ignored := untaken(built, params)):
                raise ModelConfigurationError(f"{choice.name} can't take {ignored[0]}; its integration ignores it")
            self._models[key] = built
        return self._models[key]

    def _params_for(self, choice: ModelChoice, given: Mapping[str, Any]) -> dict[str, Any]:
        params = {**self._params, **given}
        if choice.local:
            return params
        if choice.name == self.first:
            check_options(choice.provider, params)
        refused = refused_options(choice.provider, params)
        if refused:
            log.info("%s is asked without %s, which its integration doesn't take", choice.name, ", ".join(refused))
        taken = {name: value for name, value in params.items() if name not in refused}
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

    def served(self, name: str) -> ServedModel:
        """How the model is asked, and what this process knows about its server."""
        settings, credentials = self._settings, self._credentials
        modes = self._modes
        if credentials is not None and credentials.provider == name.partition(":")[0]:
            modes = modes.over(credentials.modes)
        modes = modes.over(entry_of(settings.model_modes, name)).over(ModelModes(streaming=settings.streaming))
        return ServedModel(name, modes, settings.stream_usage, memory_of(self.gate_key(name)))

    def _ignores_streaming(self, name: str) -> None:
        """The server has answered as a whole although it was asked for a stream."""
        self.served(name).memory.learn("streaming", f"{name} doesn't stream its answers here, so they arrive whole")

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
