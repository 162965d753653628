"""The error policy: a rule for each category of error, and how settings and operator arguments change the rules.

A policy is layered. The defaults below are overlaid by the settings (`VISUAL_AI_ERROR_POLICY`), those by an operator's
`error_policy`, and that by an agent's own. Each layer names only what it changes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, cast

from backend.core.errors.category import CATEGORIES, Category
from backend.core.errors.fallbacks import ANY_MODEL, DEFAULT_FALLBACKS, FallbackModel, full_name, parse_fallbacks
from backend.core.errors.input_error import InputError

FIELD = "error_policy"

MAX_RETRIES = 20
MAX_SECONDS = 7 * 86_400.0
MAX_REPAIRS = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do about one category of error.

    :param retries: how many further attempts follow the first one, at the same model or node.
    :param backoff: the longest wait before the first retry, in seconds. It doubles with each retry, up to
        `max_backoff`; the actual wait is a random part of it.
    :param timeout_factor: what the timeout is multiplied by for each retry.
    :param fallback: whether another model takes over once the retries are used up. For answers in the wrong form none
        does, only for incomplete ones.
    :param trim: whether the prompt may be trimmed to fit that model.
    :param repairs: how often an answer in the wrong form is sent back to the model, or an incomplete one asked for
        again.
    """

    retries: int = 0
    backoff: float = 1.0
    max_backoff: float = 30.0
    timeout_factor: float = 1.0
    fallback: bool = False
    trim: bool = False
    repairs: int = 0


_RULES: dict[Category, Rule] = {
    "rate_limit": Rule(retries=5),
    "timeout": Rule(retries=3, backoff=0.5, timeout_factor=0.5),
    "server": Rule(retries=3, fallback=True),
    "context_length": Rule(fallback=True, trim=True),
    "invalid_output": Rule(repairs=1, fallback=True),
}

# What can be set for each category. The remaining categories fail at once or follow the task's own `retries`.
_RETRYING = frozenset({"retries", "backoff", "max_backoff", "fallback"})
_SETTABLE: dict[Category, frozenset[str]] = {
    "rate_limit": _RETRYING,
    "timeout": _RETRYING | {"timeout_factor"},
    "server": _RETRYING,
    "context_length": frozenset({"fallback", "trim"}),
    "invalid_output": frozenset({"repairs", "fallback"}),
    **dict.fromkeys(
        cast(tuple[Category, ...], ("auth", "quota", "bad_request", "content_filter")), frozenset({"fallback"})
    ),
}
_LIMITS = ("wait_limit", "reschedule_limit")


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """The rules by category, the fallback models by model, and the limits of waiting, in seconds.

    A wait longer than `wait_limit` gives the worker back. One longer than `reschedule_limit` is not waited for at all.
    """

    rules: Mapping[Category, Rule] = field(default_factory=lambda: MappingProxyType(_RULES))
    fallbacks: Mapping[str, tuple[FallbackModel, ...]] = field(default_factory=lambda: MappingProxyType({}))
    wait_limit: float = 60.0
    reschedule_limit: float = 86_400.0

    def rule(self, category: Category) -> Rule:
        """The rule for errors of a category."""
        return self.rules.get(category, _NO_RULE)

    def chain(self, model: str) -> tuple[FallbackModel, ...]:
        """The models that may take over from "provider:name", in order of preference and without the model itself."""
        name = full_name(model)
        for key in (name, ANY_MODEL):
            if key in self.fallbacks:
                found = self.fallbacks[key]
                break
        else:
            found = tuple(FallbackModel(other) for other in DEFAULT_FALLBACKS.get(name, ()))
        return tuple(fallback for fallback in found if fallback.model != name)


_NO_RULE = Rule()
DEFAULT_POLICY = ErrorPolicy()


def parse_error_policy(given: Any, *, base: ErrorPolicy = DEFAULT_POLICY, field_name: str = FIELD) -> ErrorPolicy:
    """Overlay `base` with the changes in a dict: `{"rate_limit": {"retries": 8}, "wait_limit": 120, "fallbacks": […]}`.

    Numbers may be given as text, because templates render to text. Raises `InputError` that names the key which is
    unknown or has a wrong value.
    """
    if given is None:
        return base
    if not isinstance(given, Mapping):
        raise InputError(f"has to be a dict, not {type(given).__name__}", field=field_name)
    rules, changes = dict(base.rules), dict[str, Any]()
    for key, value in given.items():
        place = f"{field_name}.{key}"
        if key == "fallbacks":
            changes["fallbacks"] = MappingProxyType(_merged(base.fallbacks, parse_fallbacks(value, place)))
        elif key in _LIMITS:
            changes[key] = _number(value, place, 0, MAX_SECONDS)
        elif key in _SETTABLE:
            category = cast(Category, key)
            rules[category] = _parse_rule(category, value, base.rule(category), place)
        elif key in CATEGORIES:
            raise InputError(f"can't be set: errors of this kind {_fixed(cast(Category, key))}", field=place)
        else:
            known = ", ".join([*_SETTABLE, "fallbacks", *_LIMITS])
            raise InputError(f"is not known; an error policy has {known}", field=place)
    return replace(base, rules=MappingProxyType(rules), **changes)


def _merged(
    base: Mapping[str, tuple[FallbackModel, ...]], given: Mapping[str, tuple[FallbackModel, ...]]
) -> dict[str, tuple[FallbackModel, ...]]:
    """A chain for any model replaces all chains of the layer below."""
    return dict(given) if ANY_MODEL in given else {**base, **given}


def _fixed(category: Category) -> str:
    return "follow the task's retries" if category in ("internal", "tool") else "fail the task at once"


def _parse_rule(category: Category, given: Any, base: Rule, field_name: str) -> Rule:
    if not isinstance(given, Mapping):
        raise InputError(f"has to be a dict, not {type(given).__name__}", field=field_name)
    settable = _SETTABLE[category]
    changes: dict[str, Any] = {}
    for key, value in given.items():
        place = f"{field_name}.{key}"
        if key not in settable:
            known = ", ".join(each.name for each in fields(Rule) if each.name in settable)
            raise InputError(f"is not known; {category} has {known}", field=place)
        changes[key] = _PARSERS[key](value, place)
    return replace(base, **changes)


def _number(value: Any, field_name: str, low: float, high: float) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not low <= number <= high:
        raise InputError(f"has to be a number from {low:g} to {high:g}", field=field_name)
    return number


def _count(value: Any, field_name: str, high: int) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
        raise InputError(f"has to be a whole number from 0 to {high}", field=field_name)
    return value


def _flag(value: Any, field_name: str) -> bool:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        value = value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise InputError("has to be True or False", field=field_name)
    return value


_PARSERS: Mapping[str, Any] = {
    "retries": lambda value, place: _count(value, place, MAX_RETRIES),
    "repairs": lambda value, place: _count(value, place, MAX_REPAIRS),
    "backoff": lambda value, place: _number(value, place, 0, 3600),
    "max_backoff": lambda value, place: _number(value, place, 0, 3600),
    "timeout_factor": lambda value, place: _number(value, place, 0.05, 0.95),
    "fallback": _flag,
    "trim": _flag,
}
