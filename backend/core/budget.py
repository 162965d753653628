"""Budgets: how many tokens, US dollars and steps agents may use. DAG files import this module, so it has to be
light."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from backend.core.errors.input_error import InputError


class BudgetExceededError(RuntimeError):
    """The next model call or step would exceed the budget and was not made. A retry doesn't help."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper limits; None means no limit.

    `max_tokens` counts input and output, `max_cost_usd` is in US dollars, and `max_steps` counts node executions.
    """

    max_tokens: int | None = None
    max_cost_usd: Decimal | None = None
    max_steps: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The form from which `parse_budget` restores this budget."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        return {key: float(value) if isinstance(value, Decimal) else value for key, value in values.items()}


def parse_budget(given: Any, *, field: str = "budget") -> Budget | None:
    """Parse `{"max_tokens", "max_cost_usd", "max_steps"}`, any of which may be missing; None if all are.

    Numbers may be strings, as templates render them. Raises `InputError`, naming the key, if a key is unknown or its
    value isn't a number of at least 0.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise InputError(f"has to be a dict, not {type(given).__name__}", field=field)
    known = ("max_tokens", "max_cost_usd", "max_steps")
    for key in given:
        if key not in known:
            raise InputError(f"is not known; a budget has {', '.join(known)}", field=f"{field}.{key}")
    budget = Budget(
        max_tokens=_count(given.get("max_tokens"), f"{field}.max_tokens"),
        max_cost_usd=_amount(given.get("max_cost_usd"), f"{field}.max_cost_usd"),
        max_steps=_count(given.get("max_steps"), f"{field}.max_steps"),
    )
    return budget if budget != Budget() else None


def _count(value: Any, field: str) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise InputError("has to be a whole number from 0 up", field=field)
    return value


def _amount(value: Any, field: str) -> Decimal | None:
    if value is None:
        return None
    amount: Decimal | None = None
    if not isinstance(value, bool) and isinstance(value, int | float | str | Decimal):
        try:
            amount = Decimal(str(value).strip())
        except InvalidOperation:
            amount = None
    if amount is None or not amount.is_finite() or amount < 0:
        raise InputError("has to be a number of US dollars from 0 up", field=field)
    return amount
