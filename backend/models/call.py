"""The model call: how built-in agents ask their models, with retries, fallback models and repaired answers.

A `ModelCall` stands in for a chat model and asks it under the error policy. One call consists of one or more attempts:

1. The rate limiter is asked for admission, and then the model. Each attempt is a LangChain call of its own, so
   callbacks, usage and budget count every one of them. The provider's SDK never retries by itself.
2. When an attempt fails, `decide` chooses what follows: the same model after a wait, the next fallback model (if
   necessary with a trimmed prompt), the faulty answer and what is wrong with it, sent back to the model, or nothing.
3. Listeners among the callbacks (`models/attempts.py`) learn of each failed attempt, and of the success in the end.
4. When nothing follows, an `AgentFailure` is raised, with the last error and the decision about it.

A stream that breaks off is a failed attempt: the tokens that it has delivered are superseded by those of the next
attempt.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.config import merge_configs
from tenacity import AsyncRetrying, RetryCallState
from tenacity.retry import retry_if_exception

from backend.core.errors.agent_errors import (
    AnswerBrokenOffError,
    AnswerFilteredError,
    AnswerRefusedError,
    InvalidOutputError,
)
from backend.core.errors.facts import facts_of, tokens_refused
from backend.core.model_modes import UNDECIDED, ModelModes
from backend.core.ratelimit.interface import CircuitOpenError, HeldBackError, ModelGate
from backend.core.settings import Settings
from backend.core.workflow_error_handler import (
    DEFAULT_POLICY,
    AgentFailure,
    Classified,
    Decision,
    ErrorPolicy,
    FailedAttempt,
    FailureSignals,
    FallbackModel,
    Repair,
    Retry,
    SwitchModel,
    classify,
    decide,
    wait_of,
)
from backend.models.adaptation import Shape, ask_adapting, messages_of
from backend.models.attempts import (
    ATTEMPT_KEY,
    CALL_KEY,
    REAL_TIME,
    RetryTiming,
    error_context,
    listeners_of,
    notice_listeners_of,
    prompt_context,
    watchers_of,
)
from backend.models.fallback_chain import ModelChain, Models, OneModel
from backend.models.prompts.trim import least_tokens, trim_prompt
from backend.models.resolve import ModelChoice, ModelCredentials, Purpose
from backend.models.token_estimate import estimate_messages

log = logging.getLogger(__name__)

Check = Callable[[Any], Any]
"""Turns an answer into the call's result. Raises `InvalidOutputError` for an answer in the wrong form."""
RepairPrompt = Callable[[Any, InvalidOutputError], str]
"""Returns what to tell the model about an answer in the wrong form."""

# The metadata in which these providers say why an answer ended. Without any, a proxy has closed the stream too early.
_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "openai": ("finish_reason", "status"),
    "azure_openai": ("finish_reason", "status"),
    "anthropic": ("stop_reason",),
    "ollama": ("done_reason", "done"),
}
_FILTERED = frozenset({"content_filter", "safety", "prohibited_content", "blocklist", "refusal"})


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
    ) -> None:
        """`gate` is the rate limiter, which is asked before each attempt. `shape` is applied to each model."""
        self._models = models
        self._policy = policy
        self._gate = gate
        self._timing = timing
        self._shape = shape

    @classmethod
    def of(cls, model: Any) -> "ModelCall":
        """The model itself if it is a `ModelCall`, and otherwise one around a plain chat model."""
        return model if isinstance(model, ModelCall) else cls(OneModel(model))

    def shaped(self, shape: Shape) -> Self:
        """The same call with this shape, which is applied to each of its models, instead of its own."""
        return type(self)(self._models, self._policy, gate=self._gate, timing=self._timing, shape=shape)

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
        call = _CallInProgress(self._models, self._policy, self._gate, self._timing, input, ensure_config(config))
        retrying = AsyncRetrying(
            sleep=self._timing.sleep, retry=retry_if_exception(call.goes_on), wait=call.wait, reraise=True
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
    return ModelCall(chain, policy, gate=None if choice.local else gate, timing=timing)


class _CallInProgress:
    """The state of one call, until it succeeds or is given up."""

    def __init__(
        self,
        models: Models,
        policy: ErrorPolicy,
        gate: ModelGate | None,
        timing: RetryTiming,
        prompt: LanguageModelInput,
        config: RunnableConfig,
    ) -> None:
        self._models = models
        self._policy = policy
        self._gate = gate
        self._timing = timing
        self._prompt = prompt
        self._config = config
        self._listeners, self._watchers = listeners_of(config), watchers_of(config)
        self._id = uuid.uuid4().hex
        self._number = 0
        self._model = models.first
        self._timeout: float | None = None
        self._decision: Decision | None = None
        self._history: list[FailureSignals] = []
        self._failed: list[FailedAttempt] = []
        self._tried = [models.first]
        self._left_out = 0

    def goes_on(self, error: BaseException) -> bool:
        """Whether another attempt follows the error."""
        return isinstance(error, Exception) and isinstance(self._decision, Retry | SwitchModel | Repair)

    def wait(self, _: RetryCallState) -> float:
        """Seconds until the next attempt."""
        return (wait_of(self._decision) or 0.0) if self._decision is not None else 0.0

    async def attempt(
        self, shape: Shape | None, check: Check | None, repair: RepairPrompt | None, kwargs: Mapping[str, Any]
    ) -> Any:
        """Ask the model once.

        Raises the error if another attempt follows (`goes_on`), and an `AgentFailure` with it if none does.
        """
        self._number += 1
        self._decision = None
        mine: RunnableConfig = {"metadata": {CALL_KEY: self._id, ATTEMPT_KEY: self._number}}
        answer: Any = None
        try:
            model = self._models.model(self._model, self._timeout)
            served = self._models.served(self._model)
            await self._admitted()
            config = merge_configs(self._config, mine)
            told = notice_listeners_of(self._config)
            answer = await ask_adapting(model, served, shape, self._prompt, config, told, **kwargs)
            self._check_end(_message(answer))
            result = answer if check is None else check(answer)
        except Exception as error:
            failed = await self._fail(error, answer, repair)
            if not self.goes_on(error):
                failure = self._give_up(failed)
                raise failure from failure.error
            self._prepare(failed.decision, error, answer, repair)
            raise
        await self._report("ok", tokens=_tokens(answer))
        self._report_end(None)
        self._succeed()
        return result

    async def _admitted(self) -> None:
        if self._gate is None:
            return
        key, tokens = self._models.gate_key(self._model), estimate_messages(self._messages())
        try:
            await self._gate.admit(key, tokens=tokens, max_wait=self._policy.wait_limit)
        except (HeldBackError, CircuitOpenError):
            raise
        except Exception as error:  # calls go on without a limiter that is out of order
            log.warning("the rate limiter is unavailable: %s", type(error).__name__)

    async def _report(self, outcome: Any, *, retry_after: float | None = None, tokens: int | None = None) -> None:
        if self._gate is None:
            return
        try:
            key = self._models.gate_key(self._model)
            await self._gate.report(key, outcome, retry_after=retry_after, tokens=tokens)
        except Exception as error:
            log.warning("the rate limiter did not take a report: %s", type(error).__name__)

    async def _fail(self, error: Exception, answer: Any, repair: RepairPrompt | None) -> FailedAttempt:
        """Decide what follows the error, and report the failed attempt."""
        classified = classify(error)
        options = await self._options(classified)
        repairable = (
            repair is not None and isinstance(error, InvalidOutputError) and not isinstance(error, AnswerRefusedError)
        )
        signals = self._signals(error, classified, options, repairable=repairable)
        decision = decide(self._policy, signals, self._history, options=options, draw=self._timing.draw())
        if not isinstance(error, HeldBackError | CircuitOpenError):
            await self._report(_verdict(signals, answer), retry_after=signals.retry_after, tokens=_tokens(answer))
        context = error_context(error, timeout=signals.timeout, **prompt_context(self._messages()))
        failed = FailedAttempt(error, classified, decision, self._number, self._model, context)
        self._history.append(signals)
        self._failed.append(failed)
        self._decision = decision
        self._report_end(failed)
        if self.goes_on(error) or signals.fallback_unusable:
            for listener in self._listeners:
                listener.attempt_failed(failed, self._metadata())
        return failed

    async def _options(self, classified: Classified) -> Sequence[FallbackModel]:
        """The models that may take over after such an error."""
        wanted = self._policy.rule(classified.category).fallback or self._model != self._models.first
        # The table of context windows takes a moment to load.
        return await asyncio.to_thread(self._models.options, self._tried) if wanted else ()

    def _signals(
        self, error: Exception, classified: Classified, options: Sequence[FallbackModel], *, repairable: bool
    ) -> FailureSignals:
        overflow = f"{classified.message} {facts_of(error).message}" if classified.category == "context_length" else ""
        prompt, least = self._sizes(overflow) if options else (0, 0)
        return FailureSignals.of(
            error,
            classified,
            self._model,
            timeout=self._timeout or self._models.timeout or None,
            circuit_open=isinstance(error, CircuitOpenError),
            prompt_tokens=prompt,
            min_prompt_tokens=least,
            repairable=repairable,
            is_fallback=self._model != self._models.first,
        )

    def _sizes(self, message: str) -> tuple[int, int]:
        """The tokens that prompt and answer need: with the prompt as it is, and trimmed as far as possible."""
        messages = self._messages()
        estimate, answer = estimate_messages(messages), self._models.answer_tokens
        needed = max(estimate, tokens_refused(message) or 0)
        return needed + answer, round(least_tokens(messages) * needed / max(estimate, 1)) + answer

    def _prepare(self, decision: Decision, error: Exception, answer: Any, repair: RepairPrompt | None) -> None:
        """Set up the attempt that was decided on."""
        log.info(
            "attempt %s at %s failed (%s); next: %s", self._number, self._model, self._history[-1].category, decision
        )
        match decision:
            case Retry(_, timeout):
                self._timeout = timeout if timeout != self._models.timeout else None
            case SwitchModel(model, trim_to):
                if trim_to is not None:
                    self._trim(trim_to, self._history[-1])
                self._model, self._timeout = model, None
                self._tried.append(model)
            case Repair():
                if repair is not None and isinstance(error, InvalidOutputError):
                    self._prompt = [*self._messages(), HumanMessage(repair(answer, error))]

    def _trim(self, tokens: int, signals: FailureSignals) -> None:
        """Trim the prompt to what the next model holds, scaled by how the last one counted its tokens."""
        messages, answer = self._messages(), self._models.answer_tokens
        ratio = max(1.0, (signals.prompt_tokens - answer) / max(estimate_messages(messages), 1))
        trimmed = trim_prompt(messages, int((tokens - answer) / ratio))
        self._prompt = trimmed.messages
        self._left_out += trimmed.left_out

    def _give_up(self, failed: FailedAttempt) -> AgentFailure:
        """The failure to raise after the last attempt."""
        if not self._history[-1].fallback_unusable:
            return AgentFailure(failed.error, failed.classified, failed.decision, attempt=failed)
        # That a fallback model can't be used does not say why it was asked: the chosen model's error does. Both were
        # recorded when another attempt followed them.
        first = self._failed[0]
        return AgentFailure(first.error, first.classified, failed.decision, recorded=True)

    def _report_end(self, failed: FailedAttempt | None) -> None:
        for watcher in self._watchers:
            watcher.attempt_over(self._number, self._model, failed, self._metadata())

    def _succeed(self) -> None:
        if not self._failed:
            return
        for listener in self._listeners:
            listener.call_recovered(self._failed, self._metadata())
            if self._model != self._models.first:
                listener.took_over(self._model, self._notice())

    def _notice(self) -> str:
        why = next(failed.classified.category for failed in self._failed if isinstance(failed.decision, SwitchModel))
        cut = f", which got the prompt without {self._left_out} of its characters" if self._left_out else ""
        return f"{self._models.first} could not answer ({why}): {self._model} did{cut}"

    def _messages(self) -> list[BaseMessage]:
        return messages_of(self._prompt)

    def _metadata(self) -> dict[str, Any]:
        return {**(self._config.get("metadata") or {}), CALL_KEY: self._id}

    def _check_end(self, message: AIMessage | None) -> None:
        """Raise for an answer that a content filter ended, or that broke off."""
        if message is None:
            return
        said = message.response_metadata
        if str(said.get("finish_reason") or said.get("stop_reason")).lower() in _FILTERED:
            raise AnswerFilteredError("the provider's content filter ended the answer")
        endings = _ENDINGS.get(self._model.partition(":")[0])
        if endings is None or any(said.get(name) for name in endings):
            return
        # Usage is the last thing that these providers send, so an answer with usage is complete.
        if "finish_reason" not in endings or message.usage_metadata is None:
            raise AnswerBrokenOffError("the answer broke off: it ended without a finish reason")


def _message(answer: Any) -> AIMessage | None:
    raw = answer.get("raw") if isinstance(answer, Mapping) else answer
    return raw if isinstance(raw, AIMessage) else None


def _tokens(answer: Any) -> int | None:
    message = _message(answer)
    used = message.usage_metadata if message is not None else None
    return used["total_tokens"] if used else None


def _verdict(signals: FailureSignals, answer: Any) -> str:
    """What the rate limiter learns from a failed attempt."""
    if signals.category == "invalid_output" and answer is not None:
        return "ok"
    by_category = {"rate_limit": "rate_limited", "server": "down", "timeout": "down"}
    return by_category.get(signals.category, "other")
