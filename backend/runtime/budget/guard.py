"""Keeps agents within their budgets, by refusing model calls and steps that don't fit any more.

A task may have a budget of its own, over all its tries, and share the budget of its run with the run's other tasks.
Each is a `Ledger`; the `Purse` holds the ledgers of a task, and one `Guard` per agent asks it before every model call
and every step. The guard is a LangChain callback handler that raises: callbacks are the one place that every model call
passes, also in users' unchanged graphs, synchronous or not.

A call reserves the estimated tokens of its prompt (`backend.models.token_estimate`) and their price, and replaces them
by what it used when it is over. It is allowed when what was used, what running calls have reserved, and its own
estimate fit the budget. The length of an answer isn't known beforehand, so an allowed call may exceed the budget by its
answer; it is the last one then. What the run's other tasks use is read again every `REFRESH_SECONDS`, so a run's budget
may be exceeded by what they use in that time.

The guard also asks the operator's limits (`call_limits`), which all processes share.
"""

import asyncio
import contextlib
import json
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from sqlalchemy import Connection

from backend.core.budget import Budget, BudgetExceededError
from backend.db.engine import Database
from backend.db.outage import retry_until_available
from backend.db.runs import executions, traces
from backend.models.prices import cost_usd
from backend.models.token_estimate import estimate_messages, estimate_text
from backend.models.usage import CallUsage, answers, model_named
from backend.observation.recording.recorder import Recorder
from backend.observation.task_context import TaskContext
from backend.runtime.budget.alerts import open_watch
from backend.runtime.budget.call_limits import CallLimits
from backend.runtime.budget.ledger import Ledger, Reservation, Spent

log = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
"""How often a task reads what the run's other tasks use."""


class Purse:
    """The budgets that the agents of one task share, and one lock for them, because nodes may run in threads."""

    def __init__(self, ledgers: Sequence[Ledger], watch: Callable[[Ledger, Spent | None], None] | None = None) -> None:
        self.ledgers = list(ledgers)
        self._lock = threading.Lock()
        self._watch = watch
        self._look()

    def __bool__(self) -> bool:
        return bool(self.ledgers)

    def reserve(self, model: str, tokens: int) -> Reservation:
        """Reserve what a call's prompt is expected to use, in all budgets or none. Raises `BudgetExceededError`."""
        priced = any(ledger.budget.max_cost_usd is not None for ledger in self.ledgers)
        cost = cost_usd(model, tokens, 0) if priced else Decimal(0)
        with self._lock:
            with self._refusing(Spent(tokens, cost)):
                for ledger in self.ledgers:
                    ledger.check_call(model, tokens, cost)
            for ledger in self.ledgers:
                ledger.take(tokens, cost or Decimal(0))
        return Reservation(model, tokens, cost or Decimal(0))

    def settle(self, reserved: Reservation, tokens: int, cost: Decimal) -> None:
        with self._lock:
            for ledger in self.ledgers:
                ledger.replace(reserved, tokens, cost)
            self._look()

    def step(self) -> None:
        """Count a step that begins. Raises `BudgetExceededError` when it doesn't fit."""
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
        """Keep reading what the run's other tasks use, as long as the context lasts."""

        async def follow() -> None:
            while True:
                await asyncio.sleep(REFRESH_SECONDS)
                try:
                    spent = await read()
                    with self._lock:
                        ledger.before = spent
                        self._look()
                except Exception as error:
                    log.warning("could not read what the run's other tasks use: %s", type(error).__name__)

        follower = asyncio.create_task(follow())
        try:
            yield
        finally:
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower


class Guard(BaseCallbackHandler):
    """LangChain's callback handler that keeps one agent within the task's budgets and the operator's limits, in nodes
    that are synchronous or not."""

    raise_error = True  # what it raises ends the call before it is made
    # Inline handlers run first, and LangChain would then never await the coroutines of the other handlers.
    run_inline = False

    def __init__(self, purse: Purse, limits: CallLimits | None, *, model: str | None) -> None:
        self._purse = purse
        self._limits = limits
        self._model = model
        self._steps: set[str] = set()
        self._calls: dict[uuid.UUID, Reservation] = {}

    @property
    def ignore_chain(self) -> bool:
        """Whether LangChain need not report nodes: nobody counts steps."""
        return not self._purse

    def on_chain_start(
        self, serialized: dict[str, Any], inputs: Any, *, metadata: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Count a node's execution when it begins; what runs inside it carries the same namespace."""
        place = str((metadata or {}).get("langgraph_checkpoint_ns", ""))
        if place and place not in self._steps:
            self._purse.step()
            self._steps.add(place)

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: uuid.UUID, **kwargs: Any
    ) -> None:
        def estimate() -> int:
            tools = (kwargs.get("invocation_params") or {}).get("tools")
            described = estimate_text(json.dumps(tools, default=str)) if tools else 0
            return described + sum(estimate_messages(batch) for batch in messages)

        self._reserve(run_id, estimate, kwargs.get("metadata"))

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], *, run_id: uuid.UUID, **kwargs: Any) -> None:
        self._reserve(run_id, lambda: sum(map(estimate_text, prompts)), kwargs.get("metadata"))

    def on_llm_end(self, response: LLMResult, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """Count what the call used, or the estimate where the provider reports no usage."""
        reserved = self._calls.pop(run_id, None)
        if reserved is None:
            return
        known = [used for used in (CallUsage.of(one, reserved.model) for one in answers(response)) if used.known]
        if known:
            tokens = sum(used.input_tokens + used.output_tokens for used in known)
            costs = [used.cost for used in known if used.cost is not None]
            cost = sum(costs, Decimal(0)) if len(costs) == len(known) else None
        else:
            answered = sum(estimate_text(item.text) for batch in response.generations for item in batch)
            tokens, cost = reserved.tokens + answered, cost_usd(reserved.model, reserved.tokens, answered)
        self._purse.settle(reserved, tokens, reserved.cost if cost is None else cost)
        if self._limits is not None:
            self._limits.settle(run_id, tokens, reserved.cost if cost is None else cost)

    def on_llm_error(self, error: BaseException, *, run_id: uuid.UUID, **kwargs: Any) -> None:
        """A call that failed used nothing."""
        reserved = self._calls.pop(run_id, None)
        if reserved is not None:
            self._purse.settle(reserved, 0, Decimal(0))
            if self._limits is not None:
                self._limits.release(run_id)

    def _reserve(self, run_id: uuid.UUID, estimate: Callable[[], int], metadata: dict[str, Any] | None) -> None:
        limits = self._limits if self._limits is not None and self._limits.exist() else None
        if not self._purse and limits is None:
            return
        model, tokens = model_named(metadata or {}) or self._model or "", estimate()
        reserved = self._purse.reserve(model, tokens)
        if limits is not None:
            try:
                limits.reserve(run_id, model, tokens)
            except BaseException:
                self._purse.settle(reserved, 0, Decimal(0))
                raise
        self._calls[run_id] = reserved


@asynccontextmanager
async def open_purse(
    database: Database, recorder: Recorder, task: TaskContext, budget: Budget | None, started_at: datetime
) -> AsyncIterator[Purse]:
    """The budgets of one try that began at `started_at`: the task's own `budget`, and that of the run's conf.

    Raises `InputError` for an invalid budget in the conf, and `sqlalchemy.exc.OperationalError` when what was used so
    far can't be read, because a budget is never guessed (a retry helps).
    """

    async def spent(whole_run: bool) -> Spent:
        def read(connection: Connection) -> Spent:
            execution_id = executions.ensure(connection, task.run_state())
            return Spent(*traces.spent_before(connection, execution_id, task.place(), started_at, whole_run=whole_run))

        return await retry_until_available(partial(database.run, read))

    run_budget = task.run_budget
    ledgers: list[Ledger] = []
    if budget is not None:
        ledgers.append(Ledger(budget, "task", await spent(False)))
    if run_budget is not None:
        ledgers.append(Ledger(run_budget, "run", await spent(True)))
    purse = Purse(ledgers, await open_watch(database, recorder, task) if ledgers else None)
    async with AsyncExitStack() as stack:
        if run_budget is not None:
            await stack.enter_async_context(purse.following(ledgers[-1], partial(spent, True)))
        yield purse
