"""The model call: how built-in agents ask their models, with retries, fallback models and repaired answers.

A `ModelCall` stands in for a chat model and asks it under the error policy. One call consists of one or more attempts:

1. The rate limiter is asked for admission, and then the model. Each attempt is a LangChain call of its own, so
   callbacks, usage and budget count every one of them. The provider's SDK never retries by itself.
2. When an attempt fails, `decide` chooses what follows: the same model after a wait, the next fallback model (if
   necessary with a trimmed prompt), the faulty answer and what is wrong with it, sent back to the model, or nothing.
3. An answer that is incomplete (`models/completeness.py`) is a failed attempt as well, unless incomplete answers are
   accepted. One that the token limit has cut off is asked for again with a higher limit.
4. Listeners among the callbacks (`models/attempts.py`) learn of each failed attempt, and of the success in the end.
5. When nothing follows, an `AgentFailure` is raised, with the last error and the decision about it.

A stream that breaks off is a failed attempt: the tokens that it has delivered are superseded by those of the next
attempt.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from tenacity import AsyncRetrying
from tenacity.retry import retry_if_exception

from backend.core.models.modes import UNDECIDED, ModelModes
from backend.core.ratelimit.interface import ModelGate
from backend.core.settings import Settings
from backend.core.workflow_error_handler import DEFAULT_POLICY, ErrorPolicy
from backend.models.adaptation import Shape
from backend.models.attempts import REAL_TIME, RetryTiming
from backend.models.call_in_progress import CallInProgress, CallSetup, Check, OnIncomplete, RepairPrompt
from backend.models.fallback_chain import ModelChain, Models, OneModel
from backend.models.resolve import ModelChoice, ModelCredentials, Purpose


class ModelCall(Runnable[LanguageModelInput, AIMessage]):
    """Stands in for a chat model and asks it under the error policy. Asynchronous only.

    Raises `AgentFailure` when no further attempt follows. A retry of the task helps unless its decision is final.
    """

    def __init__(
        self,
        models: Models,
        policy: ErrorPolicy = DEFAULT_POLICY,
        *,
        gate: ModelGate | None = None,
        timing: RetryTiming = REAL_TIME,
        shape: Shape | None = None,
        on_incomplete: OnIncomplete = "fail",
    ) -> None:
        """`gate` is the rate limiter, which is asked before each attempt. `shape` is applied to each model."""
        self._setup = CallSetup(models, policy, gate, timing, on_incomplete)
        self._shape = shape

    @classmethod
    def of(cls, model: Any) -> "ModelCall":
        """The model itself if it is a `ModelCall`, and otherwise one around a plain chat model."""
        return model if isinstance(model, ModelCall) else cls(OneModel(model))

    def shaped(self, shape: Shape) -> Self:
        """The same call with this shape, which is applied to each of its models, instead of its own."""
        setup = self._setup
        return type(self)(
            setup.models,
            setup.policy,
            gate=setup.gate,
            timing=setup.timing,
            shape=shape,
            on_incomplete=setup.on_incomplete,
        )

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Self:
        """The same call with tools."""
        return self.shaped(lambda model: model.bind_tools(tools, **kwargs))

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """Not supported: waiting would block the event loop that all agents share."""
        raise NotImplementedError("use ainvoke")

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """The model's answer."""
        return cast(AIMessage, await self.ask(input, config, **kwargs))

    async def ask(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        check: Check | None = None,
        repair: RepairPrompt | None = None,
        **kwargs: Any,
    ) -> Any:
        """Ask the model; returns its answer, or what `check` turns that into.

        An answer that `check` refuses is sent back with what `repair` says about it, as often as the policy allows.
        Raises `AgentFailure`.
        """
        call = CallInProgress(self._setup, input, ensure_config(config))
        retrying = AsyncRetrying(
            sleep=self._setup.timing.sleep, retry=retry_if_exception(call.goes_on), wait=call.wait, reraise=True
        )
        async for attempt in retrying:
            with attempt:
                return await call.attempt(self._shape, check, repair, kwargs)
        raise AssertionError("the loop returns or raises")


def make_model_call(
    choice: ModelChoice,
    settings: Settings,
    policy: ErrorPolicy,
    *,
    purpose: Purpose,
    credentials: ModelCredentials | None = None,
    params: Mapping[str, Any] | None = None,
    modes: ModelModes = UNDECIDED,
    openai_clients: Callable[[], Mapping[str, Any]] | None = None,
    gate: ModelGate | None = None,
    timing: RetryTiming = REAL_TIME,
    on_incomplete: OnIncomplete = "fail",
) -> ModelCall:
    """Make the call of the chosen model, with its fallback models under a policy.

    `params`, `modes` and `openai_clients` are those of `ModelChain`. Offline models need no rate limiter and ignore
    `gate`. Raises `ModelConfigurationError` when the integration refuses the parameters.
    """
    chain = ModelChain(
        choice,
        settings,
        policy.chain(choice.name),
        purpose=purpose,
        credentials=credentials,
        params=params,
        modes=modes,
        openai_clients=openai_clients,
    )
    limiter = None if choice.local else gate
    return ModelCall(chain, policy, gate=limiter, timing=timing, on_incomplete=on_incomplete)
