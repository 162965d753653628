"""The one way built-in agents call their models: retries, another model, a repaired answer, as the policy decides.

Each attempt is a call of its own, with its own callbacks, usage and budget; SDKs' own retries are off. A stream that
breaks off is an attempt that failed: what it said is superseded by the next one, whose events carry the next number.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
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
from backend.core.errors.facts import facts_of
from backend.core.errors.fallbacks import Fallback
from backend.core.errors.overflow import tokens_refused
from backend.core.ratelimit.interface import CircuitOpenError, HeldBackError, ModelGate
from backend.core.settings import Settings
from backend.core.workflow_error_handler import (
    DEFAULT_POLICY,
    UNUSABLE,
    Decision,
    ErrorPolicy,
    Failure,
    FallBack,
    Repair,
    Retry,
    classify,
    decide,
    mark,
    wait_asked_for,
    wait_of,
)
from backend.models.attempts import (
    ATTEMPT_KEY,
    CALL_KEY,
    REAL_TIME,
    FailedAttempt,
    Pace,
    end_with,
    error_context,
    listeners_of,
    prompt_context,
    watchers_of,
)
from backend.models.fallback_chain import ModelChain, Models, OneModel
from backend.models.prompts.trim import least_tokens, trim_prompt
from backend.models.resolve import ModelChoice, ModelCredentials, Purpose
from backend.models.token_estimate import estimate_messages

log = logging.getLogger(__name__)

Shape = Callable[[BaseChatModel], Runnable[Any, Any]]
"""Makes of a model what is called: with tools bound, say, or with a structured answer."""
Check = Callable[[Any], Any]
"""Makes the result of an answer. Raises `InvalidOutputError` for one in the wrong form."""
RepairPrompt = Callable[[Any, InvalidOutputError], str]
"""What to say to a model about its answer."""

# Where these providers say why an answer ended; where none does, a proxy closed the stream too early.
_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "openai": ("finish_reason", "status"),
    "azure_openai": ("finish_reason", "status"),
    "anthropic": ("stop_reason",),
    "ollama": ("done_reason", "done"),
}
_FILTERED = frozenset({"content_filter", "safety", "prohibited_content", "blocklist", "refusal"})


class ModelCall(Runnable[LanguageModelInput, AIMessage]):
    """Stands for a chat model, and calls it under the policy. Asynchronous only.

    Raises the last attempt's error, which says what was decided: a retry of the task helps unless it is final.
    """

    def __init__(
        self,
        models: Models,
        policy: ErrorPolicy = DEFAULT_POLICY,
        *,
        gate: ModelGate | None = None,
        pace: Pace = REAL_TIME,
        shape: Shape | None = None,
    ) -> None:
        """`gate` is asked before each attempt."""
        self._models = models
        self._policy = policy
        self._gate = gate
        self._pace = pace
        self._shape = shape

    @classmethod
    def of(cls, model: Any) -> "ModelCall":
        """The model itself when it is one of these, or one around a plain chat model."""
        return model if isinstance(model, ModelCall) else cls(OneModel(model))

    def shaped(self, shape: Shape) -> Self:
        """The same with each of its models changed."""
        before = self._shape
        both: Shape = shape if before is None else lambda model: shape(cast(BaseChatModel, before(model)))
        return type(self)(self._models, self._policy, gate=self._gate, pace=self._pace, shape=both)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Self:
        """The same with tools."""
        return self.shaped(lambda model: model.bind_tools(tools, **kwargs))

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Self:
        """The same with an answer in a form; see `BaseChatModel.with_structured_output`."""
        return self.shaped(lambda model: model.with_structured_output(schema, **kwargs))

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> AIMessage:
        """Not there: waiting would block the event loop that all agents share."""
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
        """What `check` makes of the answer, or the answer. One that it refuses is sent back with what `repair` says."""
        call = _Call(self._models, self._policy, self._gate, self._pace, input, ensure_config(config))
        retrying = AsyncRetrying(
            sleep=self._pace.sleep, retry=retry_if_exception(call.goes_on), wait=call.wait, reraise=True
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
    openai_clients: Callable[[], Mapping[str, Any]] | None = None,
    gate: ModelGate | None = None,
    pace: Pace = REAL_TIME,
) -> ModelCall:
    """The chosen model and those that may take over from it, under a policy.

    `params` and `openai_clients` are as for `ModelChain`. Raises `ModelConfigurationError` when the provider refuses
    the parameters.
    """
    chain = ModelChain(
        choice,
        settings,
        policy.chain(choice.name),
        purpose=purpose,
        credentials=credentials,
        params=params,
        openai_clients=openai_clients,
    )
    return ModelCall(chain, policy, gate=None if choice.local else gate, pace=pace)


class _Call:
    """One call, until it succeeds or is given up."""

    def __init__(
        self,
        models: Models,
        policy: ErrorPolicy,
        gate: ModelGate | None,
        pace: Pace,
        prompt: LanguageModelInput,
        config: RunnableConfig,
    ) -> None:
        self._models = models
        self._policy = policy
        self._gate = gate
        self._pace = pace
        self._prompt = prompt
        self._config = config
        self._listeners, self._watchers = listeners_of(config), watchers_of(config)
        self._id = uuid.uuid4().hex
        self._number = 0
        self._model = models.first
        self._timeout: float | None = None
        self._decision: Decision | None = None
        self._history: list[Failure] = []
        self._failed: list[FailedAttempt] = []
        self._tried = [models.first]
        self._left_out = 0

    def goes_on(self, error: BaseException) -> bool:
        """Whether another attempt follows."""
        return isinstance(error, Exception) and isinstance(self._decision, Retry | FallBack | Repair)

    def wait(self, _: RetryCallState) -> float:
        """Seconds until it does."""
        return (wait_of(self._decision) or 0.0) if self._decision is not None else 0.0

    async def attempt(
        self, shape: Shape | None, check: Check | None, repair: RepairPrompt | None, kwargs: Mapping[str, Any]
    ) -> Any:
        """Ask once. Raises the error after the decision about it."""
        self._number += 1
        self._decision = None
        mine: RunnableConfig = {"metadata": {CALL_KEY: self._id, ATTEMPT_KEY: self._number}}
        answer: Any = None
        try:
            model = self._models.model(self._model, self._timeout)
            asked: Runnable[Any, Any] = model if shape is None else shape(model)
            await self._admitted()
            answer = await asked.ainvoke(self._prompt, merge_configs(self._config, mine), **kwargs)
            self._check_end(_message(answer))
            result = answer if check is None else check(answer)
        except Exception as error:
            ended = await self._fail(error, answer, repair)
            if ended is error:
                raise
            raise ended from ended.__cause__
        await self._report("ok", tokens=_tokens(answer))
        self._tell_end(None)
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
        except Exception as error:  # a gate out of order lets everybody through
            log.warning("the rate limiter could not be asked: %s", type(error).__name__)

    async def _report(self, outcome: Any, *, retry_after: float | None = None, tokens: int | None = None) -> None:
        if self._gate is None:
            return
        try:
            key = self._models.gate_key(self._model)
            await self._gate.report(key, outcome, retry_after=retry_after, tokens=tokens)
        except Exception as error:
            log.warning("the rate limiter could not be told: %s", type(error).__name__)

    async def _fail(self, error: Exception, answer: Any, repair: RepairPrompt | None) -> Exception:
        """Decide what follows; gives the error to raise, whether or not another attempt follows."""
        may_repair = repair is not None and isinstance(error, InvalidOutputError)
        options = await self._options(error)
        failure = self._failure(error, options, repairable=may_repair and not isinstance(error, AnswerRefusedError))
        decision = decide(self._policy, failure, self._history, options=options, draw=self._pace.draw())
        if not isinstance(error, HeldBackError | CircuitOpenError):
            await self._report(_outcome(failure, answer), retry_after=failure.retry_after, tokens=_tokens(answer))
        context = error_context(error, timeout=failure.timeout, **prompt_context(self._messages()))
        failed = FailedAttempt(error, decision, self._number, self._model, context)
        self._history.append(failure)
        self._failed.append(failed)
        self._decision = decision
        self._tell_end(failed)
        if not self.goes_on(error):
            return self._give_up(failed)
        log.info("attempt %s at %s: %s, then %s", self._number, self._model, failure.category, decision)
        self._prepare(decision, error, answer, repair)
        for listener in self._listeners:
            listener.attempt_failed(failed, self._metadata())
        return error

    async def _options(self, error: Exception) -> Sequence[Fallback]:
        """The models that may take over after such an error."""
        wanted = self._policy.rule(classify(error).category).fallback or self._model != self._models.first
        # The table of context windows takes a moment to load.
        return await asyncio.to_thread(self._models.options, self._tried) if wanted else ()

    def _failure(self, error: Exception, options: Sequence[Fallback], *, repairable: bool) -> Failure:
        found, facts = classify(error), facts_of(error)
        words = f"{found.message} {facts.message}"
        advised = wait_asked_for(facts.headers, words) or facts.advised_wait
        overflowed = found.category == "context_length"
        needed, least = self._sizes(words if overflowed else "") if options else (0, 0)
        return Failure(
            category=found.category,
            subject=self._model,
            retry_after=getattr(error, "retry_after", None) or advised,
            hopeless=facts.headers.get("x-should-retry") == "false",
            timeout=self._timeout or self._models.timeout or None,
            provider_down=isinstance(error, CircuitOpenError),
            needed=needed,
            least=least,
            repairable=repairable,
            stands_in=self._model != self._models.first,
        )

    def _sizes(self, message: str) -> tuple[int, int]:
        """The tokens that the prompt needs with its answer, as it is and when it is cut as far as that goes."""
        messages = self._messages()
        estimate, answer = estimate_messages(messages), self._models.answer_tokens
        needed = max(estimate, tokens_refused(message) or 0)
        return needed + answer, round(least_tokens(messages) * needed / max(estimate, 1)) + answer

    def _prepare(self, decision: Decision, error: Exception, answer: Any, repair: RepairPrompt | None) -> None:
        """Make everything ready for the attempt that was decided on."""
        match decision:
            case Retry(_, timeout):
                self._timeout = timeout if timeout != self._models.timeout else None
            case FallBack(model, trim_to):
                if trim_to is not None:
                    self._trim(trim_to, self._history[-1])
                self._model, self._timeout = model, None
                self._tried.append(model)
            case Repair():
                if repair is not None and isinstance(error, InvalidOutputError):
                    self._prompt = [*self._messages(), HumanMessage(repair(answer, error))]

    def _trim(self, tokens: int, failure: Failure) -> None:
        """Cut the prompt to what the next model holds, by what the last one counted."""
        messages, answer = self._messages(), self._models.answer_tokens
        ratio = max(1.0, (failure.needed - answer) / max(estimate_messages(messages), 1))
        trimmed = trim_prompt(messages, int((tokens - answer) / ratio))
        self._prompt = trimmed.messages
        self._left_out += trimmed.left_out

    def _give_up(self, failed: FailedAttempt) -> Exception:
        """No attempt follows; gives the error that says so."""
        error = failed.error
        if self._history[-1].stands_in and self._history[-1].category in UNUSABLE:
            # A model that can't be used says nothing about why it was asked: the chosen one's error does.
            for listener in self._listeners:
                listener.attempt_failed(failed, self._metadata())
            error = self._failed[0].error
            error.visual_ai_recorded = True  # type: ignore[attr-defined]  # read by the runner
        else:
            end_with(failed)
        mark(error, failed.decision)
        return error

    def _tell_end(self, failed: FailedAttempt | None) -> None:
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
        why = next(failed.found.category for failed in self._failed if isinstance(failed.decision, FallBack))
        cut = f", which got the prompt without {self._left_out} of its characters" if self._left_out else ""
        return f"{self._models.first} could not answer ({why}): {self._model} did{cut}"

    def _messages(self) -> list[BaseMessage]:
        if isinstance(self._prompt, str):
            return [HumanMessage(self._prompt)]
        if isinstance(self._prompt, PromptValue):
            return self._prompt.to_messages()
        return convert_to_messages(self._prompt)

    def _metadata(self) -> dict[str, Any]:
        return {**(self._config.get("metadata") or {}), CALL_KEY: self._id}

    def _check_end(self, message: AIMessage | None) -> None:
        """Refuse an answer that was ended by a filter, or before its end."""
        if message is None:
            return
        said = message.response_metadata
        if str(said.get("finish_reason") or said.get("stop_reason")).lower() in _FILTERED:
            raise AnswerFilteredError("the provider's content filter ended the answer")
        endings = _ENDINGS.get(self._model.partition(":")[0])
        if endings is None or any(said.get(name) for name in endings):
            return
        # Where usage is told last of all, having it is an end as well.
        if "finish_reason" not in endings or message.usage_metadata is None:
            raise AnswerBrokenOffError("the answer ended without saying why: it was broken off")


def _message(answer: Any) -> AIMessage | None:
    raw = answer.get("raw") if isinstance(answer, Mapping) else answer
    return raw if isinstance(raw, AIMessage) else None


def _tokens(answer: Any) -> int | None:
    message = _message(answer)
    used = message.usage_metadata if message is not None else None
    return used["total_tokens"] if used else None


def _outcome(failure: Failure, answer: Any) -> str:
    """What the gate is told of a failed attempt."""
    if failure.category == "invalid_output" and answer is not None:
        return "ok"
    by_category = {"rate_limit": "rate_limited", "server": "down", "timeout": "down"}
    return by_category.get(failure.category, "other")
