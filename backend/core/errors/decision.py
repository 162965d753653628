"""The decision after an error: once more, another model, later, mended, or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from backend.core.errors.category import FINAL, Category
from backend.core.errors.classify import error_chain
from backend.core.errors.fallbacks import Fallback, pick_fallback
from backend.core.errors.policy import ErrorPolicy

Action = Literal["retry", "fallback", "reschedule", "repair", "fail", "task_retry"]
"""What records and events call a decision."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Ask again after so many seconds. `timeout` is the next try's, in seconds; None: it has none of its own."""

    after: float
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class FallBack:
    """Ask another model. `trim_to` is how many tokens its prompt may have; None: the prompt fits as it is."""

    model: str
    trim_to: int | None = None


@dataclass(frozen=True, slots=True)
class Reschedule:
    """Leave the worker and go on from the checkpoint after so many seconds."""

    after: float


@dataclass(frozen=True, slots=True)
class Repair:
    """Send the answer back with what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Give up. Unless it is `final`, the task's own `retries` decide what follows."""

    final: bool


Decision: TypeAlias = Retry | FallBack | Reschedule | Repair | Fail


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt that failed.

    `subject` is what was tried: the model of a call, the node of a graph. `retry_after` is what the other side asks to
    wait, in seconds; `hopeless` says that it asks not to be tried again. `timeout` is the one that the attempt had, in
    seconds. `provider_down` says that it wasn't even asked. `needed` and `least` are the tokens of the prompt as it is
    and after all cutting. `repairable` tells that there is an answer to send back.
    """

    category: Category
    subject: str
    retry_after: float | None = None
    hopeless: bool = False
    timeout: float | None = None
    provider_down: bool = False
    needed: int = 0
    least: int = 0
    repairable: bool = False
    stands_in: bool = False


UNUSABLE: frozenset[Category] = frozenset({"auth", "quota", "bad_request", "input"})
"""What says of a model that took over that it can't be used at all."""


def decide(
    policy: ErrorPolicy,
    failure: Failure,
    history: Sequence[Failure] = (),
    *,
    options: Sequence[Fallback] = (),
    draw: float = 1.0,
) -> Decision:
    """What to do after `failure`, which followed the failures in `history`.

    `options` are the models that may still take over, in order. `draw` is a random number from 0 to 1, by which the
    backoff is jittered: waits are spread over all of its range ("full jitter"), so that callers that failed together
    don't come back together.
    """
    rule = policy.rule(failure.category)
    before = sum(past.category == failure.category and past.subject == failure.subject for past in history)
    if failure.category == "invalid_output":
        return Repair() if failure.repairable and before < rule.repairs else _fail(failure)
    fall_back = _fall_back(policy, failure, options)
    if failure.stands_in and failure.category in UNUSABLE:
        # A model that can't be used is no worse than none: what it stood in for decides.
        return fall_back or _fail(history[0] if history else failure)
    if failure.provider_down and fall_back is not None and _provider(fall_back.model) != _provider(failure.subject):
        return fall_back
    if not rule.retries or failure.hopeless:
        return fall_back or _fail(failure)
    asked = failure.retry_after
    if asked is not None and asked > policy.wait_limit:
        return fall_back or (Reschedule(asked) if asked <= policy.reschedule_limit else _fail(failure))
    if before >= rule.retries:
        return fall_back or _fail(failure)
    backoff = draw * min(rule.max_backoff, rule.backoff * 2**before, policy.wait_limit)
    timeout = None if failure.timeout is None else failure.timeout * rule.timeout_factor
    return Retry(backoff if asked is None else asked, timeout)


def action_of(decision: Decision) -> Action:
    """What records and events call it."""
    match decision:
        case Retry():
            return "retry"
        case FallBack():
            return "fallback"
        case Reschedule():
            return "reschedule"
        case Repair():
            return "repair"
        case Fail(final):
            return "fail" if final else "task_retry"


def wait_of(decision: Decision) -> float | None:
    """Seconds until the next attempt, where the decision says so."""
    return decision.after if isinstance(decision, Retry | Reschedule) else None


def reschedule_after(error: BaseException) -> float | None:
    """After how many seconds the task is to be tried again, when the error has to be waited out elsewhere."""
    for cause in error_chain(error):
        decision = decision_on(cause)
        if decision is not None:
            return decision.after if isinstance(decision, Reschedule) else None
    return None


def decision_on(error: BaseException) -> Decision | None:
    """What was decided about this very error, if somebody has."""
    decision = getattr(error, "visual_ai_decision", None)
    return decision if isinstance(decision, Retry | FallBack | Reschedule | Repair | Fail) else None


def mark(error: BaseException, decision: Decision) -> None:
    """Say at the error what was decided, so that nobody decides again."""
    error.visual_ai_decision = decision  # type: ignore[attr-defined]  # read by `decision_on`


def _fall_back(policy: ErrorPolicy, failure: Failure, options: Sequence[Fallback]) -> FallBack | None:
    rule = policy.rule(failure.category)
    if not rule.fallback and not (failure.stands_in and failure.category in UNUSABLE):
        return None
    if failure.provider_down:  # another provider's first
        options = sorted(options, key=lambda option: _provider(option.model) == _provider(failure.subject))
    picked = pick_fallback(options, needed=failure.needed, least=failure.least, trim=rule.trim)
    return None if picked is None else FallBack(picked[0].model, picked[1])


def _fail(failure: Failure) -> Fail:
    return Fail(final=failure.category in FINAL)


def _provider(model: str) -> str:
    return model.partition(":")[0]
