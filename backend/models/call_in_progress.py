"""One model call in progress: its attempts, and what is set up between them; see `models/call.py`."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs
from tenacity import RetryCallState

from backend.core.errors.agent_errors import IncompleteAnswerError, InvalidOutputError
from backend.core.errors.facts import facts_of, tokens_beyond, tokens_refused
from backend.core.ratelimit.interface import CircuitOpenError, HeldBackError, ModelGate
from backend.core.workflow_error_handler import (
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
    RetryTiming,
    error_context,
    listeners_of,
    notice_listeners_of,
    prompt_context,
    watchers_of,
)
from backend.models.completeness import INCOMPLETE_KEY, check_end, find_incompleteness
from backend.models.fallback_chain import Models
from backend.models.prompts.trim import least_tokens, trim_prompt
from backend.models.token_estimate import estimate_messages, estimate_text
from backend.models.usage import tokens_of

log = logging.getLogger(__name__)

Check = Callable[[Any], Any]
"""Turns an answer into the call's result. Raises `InvalidOutputError` for an answer in the wrong form."""
RepairPrompt = Callable[[Any, InvalidOutputError], str]
"""Returns what to tell the model about an answer in the wrong form."""
OnIncomplete = Literal["fail", "accept"]
"""What to do about an incomplete answer: follow the error policy, or accept it with a notice."""

MORE_TOKENS = 4
"""By what the limit of tokens is multiplied for another attempt at an answer that was cut off."""
LEAST_TOKENS = 1_000
"""At least this limit is set then."""

NO_TOOLS = "You called a tool, but there are no tools here. Answer in text, without calling any."


@dataclass(frozen=True, slots=True)
class CallSetup:
    """What all attempts at a call share: the models, the policy, the rate limiter, and how incomplete answers count."""

    models: Models
    policy: ErrorPolicy
    gate: ModelGate | None
    timing: RetryTiming
    on_incomplete: OnIncomplete = "fail"


class CallInProgress:
    """The state of one call, until it succeeds or is given up."""

    def __init__(self, setup: CallSetup, prompt: LanguageModelInput, config: RunnableConfig) -> None:
        models = setup.models
        self._setup = setup
        self._models = models
        self._policy = setup.policy
        self._gate = setup.gate
        self._timing = setup.timing
        self._prompt = prompt
        self._config = config
        self._listeners, self._watchers = listeners_of(config), watchers_of(config)
        self._id = uuid.uuid4().hex
        self._number = 0
        self._model = models.first
        self._timeout: float | None = None
        self._max_tokens: int | None = None  # where it was raised above what was configured
        self._higher: int | None = None  # what it would be raised to next
        self._excused: FailedAttempt | None = None
        self._accepted: str | None = None
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
            model = self._models.model(self._model, self._timeout, self._max_tokens)
            served = self._models.served(self._model)
            await self._admitted()
            config = merge_configs(self._config, mine)
            told = notice_listeners_of(self._config)
            answer = await ask_adapting(model, served, shape, self._prompt, config, told, **kwargs)
            self._check_answer(_message(answer), tools=shape is not None)
            result = answer if check is None else check(answer)
        except Exception as error:
            found = _incomplete(error)
            failed = await self._fail(found, answer, repair)
            if not self.goes_on(found):
                failure = self._give_up(failed)
                raise failure from failure.error
            self._prepare(failed.decision, found, answer, repair)
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
        classified = await self._classify(error)
        incomplete = isinstance(error, IncompleteAnswerError)
        options = await self._options(classified, incomplete=incomplete)
        repairable = await self._repairable(error, answer, repair)
        signals = self._signals(error, classified, options, repairable=repairable, incomplete=incomplete)
        decided_on = self._decided_on(signals)
        decision = decide(self._policy, decided_on, self._history, options=options, draw=self._timing.draw())
        if not isinstance(error, HeldBackError | CircuitOpenError):
            await self._report(_verdict(signals, answer), retry_after=signals.retry_after, tokens=_tokens(answer))
        known = error.known if isinstance(error, IncompleteAnswerError) else {}
        limit = {"max_tokens": self._max_tokens} if self._max_tokens is not None else {}
        about = {**prompt_context(self._messages()), **known, **limit}
        context = error_context(error, timeout=signals.timeout, **about)
        failed = FailedAttempt(error, classified, decision, self._number, self._model, context)
        self._history.append(signals)
        self._failed.append(failed)
        self._decision = decision
        self._report_end(failed)
        if self.goes_on(error) or self._excused is not None:
            for listener in self._listeners:
                listener.attempt_failed(failed, self._metadata())
        return failed

    async def _classify(self, error: Exception) -> Classified:
        """What an error is. A refusal whose numbers exceed the model's context window is an overflow."""
        classified = classify(error)
        if classified.category != "bad_request" or self._max_tokens is not None:
            return classified
        message = f"{classified.message} {facts_of(error).message}"
        window = await asyncio.to_thread(self._models.window, self._model)
        if window is None or tokens_beyond(message, window) is None:
            return classified
        return replace(classified, category="context_length")

    async def _repairable(self, error: Exception, answer: Any, repair: RepairPrompt | None) -> bool:
        """Whether the same model may do better at the next attempt."""
        if not isinstance(error, IncompleteAnswerError):
            return repair is not None and isinstance(error, InvalidOutputError)
        if error.remedy != "more_tokens":
            return error.remedy != "none"
        window = await asyncio.to_thread(self._models.window, self._model)
        self._higher = self._higher_limit(_message(answer), window)
        return self._higher is not None

    def _higher_limit(self, answer: AIMessage | None, window: int | None) -> int | None:
        """A higher limit of tokens for an answer that was cut off; None if the model can't have a higher one."""
        tokens = tokens_of(answer) if answer is not None else None
        used = tokens[1] if tokens is not None else estimate_text(answer.text) if answer is not None else 0
        limit = max(used, self._max_tokens or self._models.max_tokens or 0)
        higher = max(limit * MORE_TOKENS, LEAST_TOKENS)
        if (most := self._models.most_tokens(self._model)) is not None:
            higher = min(higher, most)
        if window is not None:
            higher = min(higher, window - estimate_messages(self._messages()))
        return higher if higher > limit else None

    def _decided_on(self, signals: FailureSignals) -> FailureSignals:
        """The signals that decide: those of the attempt itself, or of an earlier one that this one can't excuse.

        That a fallback model can't be used, or that a server refuses a raised limit of tokens, does not say why it was
        tried: an earlier error does.
        """
        self._excused = None
        if signals.fallback_unusable:
            self._excused = self._failed[0] if self._failed else None
        elif self._max_tokens is not None and signals.category in ("bad_request", "context_length"):
            last = max(index for index, past in enumerate(self._history) if past.incomplete)
            self._excused, self._max_tokens = self._failed[last], None
            return replace(self._history[last], repairable=False)
        return signals

    async def _options(self, classified: Classified, *, incomplete: bool) -> Sequence[FallbackModel]:
        """The models that may take over after such an error."""
        rule = self._policy.rule(classified.category)
        wanted = rule.fallback and (incomplete or classified.category != "invalid_output")
        wanted = wanted or self._model != self._models.first or self._max_tokens is not None
        # The table of context windows takes a moment to load.
        return await asyncio.to_thread(self._models.options, self._tried) if wanted else ()

    def _signals(
        self, error: Exception, classified: Classified, options: Sequence[FallbackModel], **more: bool
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
            is_fallback=self._model != self._models.first,
            **more,
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
                if self._max_tokens is not None and (most := self._models.most_tokens(model)) is not None:
                    self._max_tokens = min(self._max_tokens, most)
            case Repair():
                if isinstance(error, IncompleteAnswerError):
                    self._make_room(error)
                elif repair is not None and isinstance(error, InvalidOutputError):
                    self._prompt = [*self._messages(), HumanMessage(repair(answer, error))]

    def _make_room(self, error: IncompleteAnswerError) -> None:
        """Set up another attempt at an answer that was incomplete."""
        if error.remedy == "more_tokens":
            self._max_tokens = self._higher
        elif error.remedy == "no_tools":
            self._prompt = [*self._messages(), HumanMessage(NO_TOOLS)]

    def _trim(self, tokens: int, signals: FailureSignals) -> None:
        """Trim the prompt to what the next model holds, scaled by how the last one counted its tokens."""
        messages, answer = self._messages(), self._models.answer_tokens
        ratio = max(1.0, (signals.prompt_tokens - answer) / max(estimate_messages(messages), 1))
        trimmed = trim_prompt(messages, int((tokens - answer) / ratio))
        self._prompt = trimmed.messages
        self._left_out += trimmed.left_out

    def _give_up(self, failed: FailedAttempt) -> AgentFailure:
        """The failure to raise after the last attempt."""
        if (first := self._excused) is None:
            return AgentFailure(failed.error, failed.classified, failed.decision, attempt=failed)
        # Both errors were recorded when another attempt followed them.
        return AgentFailure(first.error, first.classified, failed.decision, recorded=True)

    def _report_end(self, failed: FailedAttempt | None) -> None:
        for watcher in self._watchers:
            watcher.attempt_over(self._number, self._model, failed, self._metadata())

    def _succeed(self) -> None:
        if self._accepted is not None:
            for each in notice_listeners_of(self._config):
                each.noticed(self._accepted)
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

    def _check_answer(self, message: AIMessage | None, *, tools: bool) -> None:
        """Raise for an answer that a content filter ended, that broke off, or that is incomplete."""
        self._accepted = None
        if message is None:
            return
        check_end(message, self._model.partition(":")[0])
        fault = find_incompleteness(message, tools=tools)
        if fault is None:
            return
        if self._setup.on_incomplete != "accept" or not fault.acceptable:
            raise fault
        self._accepted = f"{self._model} gave an incomplete answer, which was accepted: {fault}"
        message.additional_kwargs[INCOMPLETE_KEY] = self._accepted


def _incomplete(error: Exception) -> Exception:
    """An error as which a provider's client reports an answer that was cut off, in our form; otherwise the error."""
    if type(error).__name__ != "LengthFinishReasonError":
        return error
    return IncompleteAnswerError(
        "the answer was cut off by the token limit (length)",
        known={"finish_reason": "length"},
        remedy="more_tokens",
    )


def _message(answer: Any) -> AIMessage | None:
    raw = answer.get("raw") if isinstance(answer, Mapping) else answer
    return raw if isinstance(raw, AIMessage) else None


def _tokens(answer: Any) -> int | None:
    message = _message(answer)
    counted = tokens_of(message) if message is not None else None
    return sum(counted) if counted is not None else None


def _verdict(signals: FailureSignals, answer: Any) -> str:
    """What the rate limiter learns from a failed attempt."""
    if signals.category == "invalid_output" and answer is not None:
        return "ok"
    by_category = {"rate_limit": "rate_limited", "server": "down", "timeout": "down"}
    return by_category.get(signals.category, "other")
