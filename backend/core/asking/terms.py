"""The operators' argument `questions`: who may answer what a task's agents ask, and until when. Cheap to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from backend.core.errors.input_error import InputError

OnTimeout = Literal["fail", "default", "escalate"]
_KEYS = ("timeout", "on_timeout", "default", "assignees", "escalate_to", "four_eyes", "notifiers")
_ON_TIMEOUT = ("fail", "default", "escalate")


@dataclass(frozen=True, slots=True)
class QuestionTerms:
    """`timeout` is in seconds; None: questions wait without end.

    `on_timeout` says what follows when nobody has answered by then: the task fails, `default` is the answer, or the
    question goes to `escalate_to` for as long again, after which the task fails. With `assignees` only they may answer,
    and with `four_eyes` never whoever the run is of.
    """

    timeout: float | None = None
    on_timeout: OnTimeout = "fail"
    default: Any = None
    assignees: tuple[str, ...] = ()
    escalate_to: tuple[str, ...] = ()
    four_eyes: bool = False


def parse_terms(value: Any) -> QuestionTerms:
    """Check an operator's `questions`. Raises `InputError` naming the key that is wrong.

    Its `notifiers` are Airflow's, and the operator's own business.
    """
    if value is None:
        return QuestionTerms()
    if not isinstance(value, Mapping):
        raise InputError("has to be a dict", field="questions")
    for key in value:
        if key not in _KEYS:
            raise InputError(f"is not known; allowed are {', '.join(_KEYS)}", field=f"questions.{key}")
    timeout = _seconds(value.get("timeout"))
    on_timeout = value.get("on_timeout", "fail")
    if on_timeout not in _ON_TIMEOUT:
        raise InputError(f"has to be one of {', '.join(_ON_TIMEOUT)}, not {on_timeout!r}", field="questions.on_timeout")
    if on_timeout != "fail" and timeout is None:
        raise InputError("is missing: without it on_timeout never happens", field="questions.timeout")
    if (on_timeout == "default") != ("default" in value):
        raise InputError("belongs to on_timeout='default', and to nothing else", field="questions.default")
    four_eyes = value.get("four_eyes", False)
    if not isinstance(four_eyes, bool):
        raise InputError(f"has to be True or False, not {four_eyes!r}", field="questions.four_eyes")
    escalate_to = _names(value.get("escalate_to", ()), "escalate_to")
    if (on_timeout == "escalate") != bool(escalate_to):
        raise InputError("belongs to on_timeout='escalate', and to nothing else", field="questions.escalate_to")
    assignees = _names(value.get("assignees", ()), "assignees")
    return QuestionTerms(timeout, on_timeout, value.get("default"), assignees, escalate_to, four_eyes)


def _seconds(value: Any) -> float | None:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 366 * 86_400:
        raise InputError("has to be a number of seconds from 1 to a year, or a timedelta", field="questions.timeout")
    return float(value)


def _names(value: Any, key: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple) or len(value) > 100:
        raise InputError("has to be a list of up to 100 users' names", field=f"questions.{key}")
    if not all(isinstance(name, str) and name.strip() for name in value):
        raise InputError("has to be a list of users' names", field=f"questions.{key}")
    return tuple(name.strip() for name in value)
