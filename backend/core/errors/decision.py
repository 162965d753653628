"""Decides what follows a failed attempt: another attempt, another model, a later one, a repaired answer, or none.

`decide` is a pure function of the policy, the signals read off the failed attempt, and those of the attempts before it
at the same call. It neither waits nor writes: the model call (`models/call.py`) and the graph's retry
(`runtime/graphs/retry.py`) carry the decision out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from backend.core.errors.category import FINAL, Category, Classified
from backend.core.errors.facts import facts_of
from backend.core.errors.fallbacks import FallbackModel, pick_fallback
from backend.core.errors.policy import ErrorPolicy
from backend.core.errors.retry_after import wait_until_reset

Action = Literal["retry", "fallback", "reschedule", "repair", "fail", "task_retry"]
"""The names of decisions in records and events."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Make another attempt after `after` seconds. `timeout` is that attempt's, in seconds; None keeps the usual one."""

    after: float
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class SwitchModel:
    """Ask another model. `trim_to` is how many tokens its prompt may have; None means that the prompt fits as it is."""

    model: str
    trim_to: int | None = None


@dataclass(frozen=True, slots=True)
class Reschedule:
    """Leave the worker, and go on from the checkpoint after `after` seconds."""

    after: float


@dataclass(frozen=True, slots=True)
class Repair:
    """Ask the model again, together with what is wrong with its answer, or with a higher limit for a cut one."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Give up. Unless the failure is `final`, the task's own `retries` decide whether another try follows."""

    final: bool


Decision: TypeAlias = Retry | SwitchModel | Reschedule | Repair | Fail


@dataclass(frozen=True, slots=True)
class FailureSignals:
    """What `decide` looks at: the signals of one failed attempt.

    :param category: what kind of error ended it.
    :param target: what was attempted: the model of a call, or the node of a graph.
    :param retry_after: how long the provider asks to wait, in seconds.
    :param retry_forbidden: whether the provider asks not to be asked again.
    :param timeout: the attempt's timeout, in seconds.
    :param circuit_open: whether the model was not even asked because its provider is known to be down.
    :param prompt_tokens: the tokens of the prompt, with room for the answer.
    :param min_prompt_tokens: the same after the prompt is trimmed as far as possible.
    :param repairable: whether the next attempt may end better: there is an answer to send back, or a limit to raise.
    :param incomplete: whether the answer is incomplete, rather than in the wrong form.
    :param is_fallback: whether the model stood in for the chosen one.
    """

    category: Category
    target: str
    retry_after: float | None = None
    retry_forbidden: bool = False
    timeout: float | None = None
    circuit_open: bool = False
    prompt_tokens: int = 0
    min_prompt_tokens: int = 0
    repairable: bool = False
    incomplete: bool = False
    is_fallback: bool = False

    @classmethod
    def of(cls, error: Exception, classified: Classified, target: str, **more: Any) -> "FailureSignals":
        """The signals of an error, with those that only the caller knows in `more`."""
        facts = facts_of(error)
        return cls(
            category=classified.category,
            target=target,
            retry_after=getattr(error, "retry_after", None)
            or facts.wait(classified.message)
            or (wait_until_reset(facts.headers) if classified.category == "rate_limit" else None),
            retry_forbidden=facts.headers.get("x-should-retry") == "false",
            **more,
        )

    @property
    def fallback_unusable(self) -> bool:
        """Whether a model that stood in can't be used at all: it lacks a valid key, say, or doesn't exist."""
        return self.is_fallback and self.category in _UNUSABLE


_UNUSABLE: frozenset[Category] = frozenset({"auth", "quota", "bad_request", "input"})


def decide(
    policy: ErrorPolicy,
    signals: FailureSignals,
    history: Sequence[FailureSignals] = (),
    *,
    options: Sequence[FallbackModel] = (),
    draw: float = 1.0,
) -> Decision:
    """Decide what follows an attempt that failed with `signals`, after the failed attempts in `history`.

    `options` are the models that may still take over, in order of preference. `draw` is a random number from 0 to 1
    that jitters the backoff over its whole range ("full jitter"), so that callers that failed together don't come back
    together.
    """
    rule = policy.rule(signals.category)
    before = sum(past.category == signals.category and past.target == signals.target for past in history)
    switch = _switch(policy, signals, options)
    if signals.category == "invalid_output":
        if signals.incomplete:
            # Once for the whole call: a model that takes over and stops early as well makes room for the next one.
            before = sum(past.incomplete for past in history)
        if signals.repairable and before < rule.repairs:
            return Repair()
        return (switch if signals.incomplete else None) or _fail(signals)
    if signals.fallback_unusable:
        # A fallback that can't be used is no worse than none: the error that it stood in for decides.
        return switch or _fail(history[0] if history else signals)
    if signals.circuit_open and switch is not None and _provider(switch.model) != _provider(signals.target):
        return switch
    if not rule.retries or signals.retry_forbidden:
        return switch or _fail(signals)
    asked = signals.retry_after
    if asked is not None and asked > policy.wait_limit:
        return switch or (Reschedule(asked) if asked <= policy.reschedule_limit else _fail(signals))
    if before >= rule.retries:
        return switch or _fail(signals)
    backoff = draw * min(rule.max_backoff, rule.backoff * 2**before, policy.wait_limit)
    timeout = None if signals.timeout is None else signals.timeout * rule.timeout_factor
    return Retry(backoff if asked is None else asked, timeout)


def action_of(decision: Decision) -> Action:
    """The decision's name in records and events."""
    match decision:
        case Retry():
            return "retry"
        case SwitchModel():
            return "fallback"
        case Reschedule():
            return "reschedule"
        case Repair():
            return "repair"
        case Fail(final):
            return "fail" if final else "task_retry"


def wait_of(decision: Decision) -> float | None:
    """Seconds until the next attempt, where the decision sets them."""
    return decision.after if isinstance(decision, Retry | Reschedule) else None


def _switch(policy: ErrorPolicy, signals: FailureSignals, options: Sequence[FallbackModel]) -> SwitchModel | None:
    rule = policy.rule(signals.category)
    if not rule.fallback and not signals.fallback_unusable:
        return None
    if signals.circuit_open:  # prefer another provider
        options = sorted(options, key=lambda option: _provider(option.model) == _provider(signals.target))
    picked = pick_fallback(
        options, prompt_tokens=signals.prompt_tokens, min_prompt_tokens=signals.min_prompt_tokens, trim=rule.trim
    )
    return None if picked is None else SwitchModel(picked[0].model, picked[1])


def _fail(signals: FailureSignals) -> Fail:
    return Fail(final=signals.category in FINAL)


def _provider(model: str) -> str:
    return model.partition(":")[0]
