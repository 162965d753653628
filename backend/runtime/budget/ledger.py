"""What one budget allows, what is used of it, and whether a model call or a step still fits."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from backend.core.budget import Budget, BudgetExceededError


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens, cost in US dollars and steps that were used. `cost` is None when some of it has no known price."""

    tokens: int = 0
    cost: Decimal | None = Decimal(0)
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a running call is expected to use."""

    model: str
    tokens: int
    cost: Decimal


@dataclass(slots=True)
class Ledger:
    """What is used of one budget, that of the task or the run (`scope`).

    `before` was used elsewhere: by earlier tries, or by the run's other tasks. `tokens` and `cost` include what running
    calls have reserved. Not thread-safe: the `Purse` holds one lock for all ledgers of a task.
    """

    budget: Budget
    scope: Literal["task", "run"]
    before: Spent = field(default_factory=Spent)
    tokens: int = 0
    cost: Decimal = Decimal(0)
    steps: int = 0
    reserved_tokens: int = 0
    reserved_cost: Decimal = Decimal(0)

    @property
    def name(self) -> str:
        return f"the {self.scope}'s budget"

    def uses(self, asked: Spent | None = None) -> Iterator[tuple[str, Decimal, Decimal, Decimal]]:
        """Each limit's name, what it allows, what is used of it, and what would be used with what is `asked` for."""
        before, more = self.before, asked or Spent()
        if self.budget.max_tokens is not None:
            total = before.tokens + self.tokens
            used, wanted = total - self.reserved_tokens, total + more.tokens
            yield "max_tokens", Decimal(self.budget.max_tokens), Decimal(used), Decimal(wanted)
        if self.budget.max_cost_usd is not None and before.cost is not None:
            paid = before.cost + self.cost
            yield "max_cost_usd", self.budget.max_cost_usd, paid - self.reserved_cost, paid + (more.cost or 0)
        if self.budget.max_steps is not None:
            made = before.steps + self.steps
            yield "max_steps", Decimal(self.budget.max_steps), Decimal(made), Decimal(made + more.steps)

    def take(self, tokens: int, cost: Decimal) -> None:
        """Reserve what a call is expected to use."""
        self.tokens += tokens
        self.cost += cost
        self.reserved_tokens += tokens
        self.reserved_cost += cost

    def replace(self, expected: Reservation, tokens: int, cost: Decimal) -> None:
        self.tokens += tokens - expected.tokens
        self.cost += cost - expected.cost
        self.reserved_tokens -= expected.tokens
        self.reserved_cost -= expected.cost

    def check_call(self, model: str, tokens: int, cost: Decimal | None) -> None:
        """Raise `BudgetExceededError` when a call of this size doesn't fit."""
        budget = self.budget
        if budget.max_tokens is not None:
            used = self.before.tokens + self.tokens
            if used + tokens > budget.max_tokens:
                raise BudgetExceededError(
                    f"{self.name} has max_tokens {budget.max_tokens}: {used} are used or asked for, and the next call"
                    f" needs about {tokens} for its prompt alone"
                )
        if budget.max_cost_usd is not None:
            if cost is None:
                raise BudgetExceededError(
                    f"{self.name} has max_cost_usd, but the price of {model or 'the model'} is not known; use a model"
                    " with a known price, or max_tokens"
                )
            if self.before.cost is None:
                raise BudgetExceededError(
                    f"{self.name} has max_cost_usd, but what was used before has no known price; use max_tokens"
                )
            paid = self.before.cost + self.cost
            if paid + cost > budget.max_cost_usd:
                raise BudgetExceededError(
                    f"{self.name} has max_cost_usd {budget.max_cost_usd}: {paid:.6f} are spent or asked for, and the"
                    f" next call costs about {cost:.6f} for its prompt alone"
                )

    def check_step(self) -> None:
        """Raise `BudgetExceededError` when another step doesn't fit."""
        limit = self.budget.max_steps
        if limit is not None and self.before.steps + self.steps >= limit:
            raise BudgetExceededError(f"{self.name} has max_steps {limit}, and all of them were made")
