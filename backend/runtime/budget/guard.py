"""Keeps agents within their budgets: asks before each model call and each step, in whatever graph it happens.

A call is made when what was used, what calls under way are expected to use, and the estimate of this call's prompt fit
the budget (`backend.models.token_estimate`). How long an answer will be isn't known beforehand, so a call that was
allowed may end above the budget by its answer; it is the last one then.
"""

import asyncio
import contextlib
import json
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

from backend.core.budget import Budget, BudgetExceededError
from backend.models.prices import cost_usd
from backend.models.token_estimate import estimate_messages, estimate_text

log = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
"""How old a run's count of what its other tasks use may be."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What was used. `cost` is None when some of it has no known price."""

    tokens: int = 0
    cost: Decimal | None = Decimal(0)
    steps: int = 0


@dataclass(slots=True)
class Ledger:
    """What is used of one budget. `before` was used elsewhere: by earlier tries, or by the run's other tasks.

    `scope` is whose budget it is. `tokens` and `cost` include what calls under way are expected to use, which is
    `reserved`. Not locked: `Guard` holds one lock for all ledgers of a task.
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
        """Whose budget it is, in messages."""
        return f"the {self.scope}'s budget"

    def uses(self, asked: Spent | None = None) -> Iterator[tuple[str, Decimal, Decimal, Decimal]]:
        """Each limit's name, what it allows, what is used of it, and what would be with all that is asked for."""
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
        """A call is expected to use so much."""
        self.tokens += tokens
        self.cost += cost
        self.reserved_tokens += tokens
        self.reserved_cost += cost

    def replace(self, expected: "Reservation", tokens: int, cost: Decimal) -> None:
        """Put what a call did use in the place of what was expected."""
        self.tokens += tokens - expected.tokens
        self.cost += cost - expected.cost
        self.reserved_tokens -= expected.tokens
        self.reserved_cost -= expected.cost

    def check_call(self, model: str, tokens: int, cost: Decimal | None) -> None:
        """Raise `BudgetExceededError` when a call of that size doesn't fit."""
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
        """Raise `BudgetExceededError` when no further step fits."""
        limit = self.budget.max_steps
        if limit is not None and self.before.steps + self.steps >= limit:
            raise BudgetExceededError(f"{self.name} has max_steps {limit}, and so many were made")


class Purse:
    """The budgets that the agents of one task share, and one lock for them: nodes may run in threads."""

    def __init__(self, ledgers: Sequence[Ledger], watch: Callable[[Ledger, Spent | None], None] | None = None) -> None:
        self.ledgers = list(ledgers)
        self._lock = threading.Lock()
        self._watch = watch
        self._look()

    def __bool__(self) -> bool:
        return bool(self.ledgers)

    def reserve(self, model: str, tokens: int) -> "Reservation":
        """Take what a call's prompt is expected to use, from all budgets or none. Raises `BudgetExceededError`."""
        priced = any(ledger.budget.max_cost_usd is not None for ledger in self.ledgers)
        cost = cost_usd(model, tokens, 0) if priced else Decimal(0)
        with self._lock:
            with self._refusing(Spent(tokens, cost)):
                for ledger in self.ledgers:
                    ledger.check_call(model, tokens, cost)
            for ledger in self.ledgers:
                ledger.take(tokens, cost or Decimal(0))
        return Reservation(model, tokens, cost or Decimal(0))

    def settle(self, reserved: "Reservation", tokens: int, cost: Decimal) -> None:
        """Put what a call did use in the place of what was expected."""
        with self._lock:
            for ledger in self.ledgers:
                ledger.replace(reserved, tokens, cost)
            self._look()

    def step(self) -> None:
        """Count a step that begins. Raises `BudgetExceededError` instead when it doesn't fit."""
        with self._lock:
            with self._refusing(Spent(steps=1)):
                for ledger in self.ledgers:
                    ledger.check_step()
            for ledger in self.ledgers:
                ledger.steps += 1
            self._look()

    def _look(self, asked: Spent | None = None) -> None:
        if self._watch is not None:
            for ledger in self.ledgers:
                self._watch(ledger, asked)

    @contextmanager
    def _refusing(self, asked: Spent) -> Iterator[None]:
        try:
            yield
        except BudgetExceededError:
            self._look(asked)
            raise

    @asynccontextmanager
    async def following(self, ledger: Ledger, read: Callable[[], Awaitable[Spent]]) -> AsyncIterator[None]:
        """Read again and again what was used elsewhere, as long as the context lasts."""

        async def follow() -> None:
            while True:
                await asyncio.sleep(REFRESH_SECONDS)
                try:
                    spent = await read()
                    with self._lock:
                        ledger.before = spent
                        self._look()
                except Exception as error:
                    log.warning("what the run's other tasks use could not be read: %s", type(error).__name__)

        follower = asyncio.create_task(follow())
        try:
            yield
        finally:
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call under way is expected to use."""

    model: str
    tokens: int
    cost: Decimal


class Guard(BaseCallbackHandler):
    """LangChain's callback handler that keeps one agent within the task's budgets, in sync and async nodes alike."""

    raise_error = True  # what it raises ends the call before it is made
    # Beside the other handlers, not before them: LangChain would leave theirs as coroutines that nobody awaits.
    run_inline = False

    def __init__(self, purse: Purse, *, model: str | None) -> None:
        self._purse = purse
        self._model = model
        self._steps: set[str] = set()
        self._calls: dict[uuid.UUID, Reservation] = {}

    def on_chain_start(
        self, serialized: dict[str, Any], inputs: Any, *, metadata: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Count a node's execution when it begins; what runs inside it carries the same namespace."""
        place = str((metadata or {}).get("langgraph_checkpoint_ns", ""))
        if place and place not in self._steps:
            self._purse.step()
            self._steps.add(place)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: uuid.UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take what the call's prompt is expected to use, or refuse the call."""
        tokens = sum(estimate_messages(batch) for batch in messages)
        tools = (kwargs.get("invocation_params") or {}).get("tools")
        if tools:
            tokens += estimate_text(json.dumps(tools, default=str))
        self._reserve(run_id, tokens, metadata)

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: uuid.UUID,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """The same for a model that completes texts."""
        self._reserve(run_id, sum(map(estimate_text, prompts)), metadata)

    def on_llm_end(self, response: LLMResult, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """Count what the call did use; where the provider doesn't say, the estimate."""
        reserved = self._calls.pop(run_id, None)
        if reserved is None:
            return
        given = answered = 0
        counted = False
        cached: dict[str, Any] = {}
        for generation in (item for batch in response.generations for item in batch):
            message = generation.message if isinstance(generation, ChatGeneration) else None
            if isinstance(message, AIMessage) and message.usage_metadata:
                used = message.usage_metadata
                counted = True
                given += used["input_tokens"]
                answered += used["output_tokens"]
                cached = dict(used.get("input_token_details") or {})
            elif isinstance(generation, Generation):
                answered += estimate_text(generation.text)
        if not counted:
            given = reserved.tokens
        cost = cost_usd(
            reserved.model,
            given,
            answered,
            cache_read_tokens=cached.get("cache_read", 0) or 0,
            cache_write_tokens=cached.get("cache_creation", 0) or 0,
        )
        self._purse.settle(reserved, given + answered, cost if cost is not None else reserved.cost)

    def on_llm_error(self, error: BaseException, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """A call that failed used nothing."""
        reserved = self._calls.pop(run_id, None)
        if reserved is not None:
            self._purse.settle(reserved, 0, Decimal(0))

    def _reserve(self, run_id: uuid.UUID, tokens: int, metadata: dict[str, Any] | None) -> None:
        known = metadata or {}
        name = known.get("ls_model_name")
        model = f"{known.get('ls_provider', 'unknown')}:{name}" if name else self._model or ""
        self._calls[run_id] = self._purse.reserve(model, tokens)
