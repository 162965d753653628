"""Keeps model calls within the limits that an operator sets, across all processes.

Limits are rows, and so is what is used of them (`backend.db.limits.usage`). Which limits there are is known for
`KNOWN_SECONDS`, so where none is set a call costs no query. Where one applies, a call costs two small transactions:
one reserves what its prompt is expected to use, if all limits permit it, and one replaces that by what it has used.

As with budgets, the length of an answer isn't known beforehand: calls that are in progress when a limit is reached may
exceed it by their answers, and no call is made after them.

While the database is away, a call that limits apply to waits for it; a process that has never been able to read the
limits goes on without them, as it does without checkpoints.
"""

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backend.core.limits import SPEND, Limit, LimitReachedError, LimitUse, plain
from backend.db.engine import Database
from backend.db.limits import book, usage
from backend.db.limits.usage import CallReservation
from backend.db.outage import OUTAGE_SECONDS, temporary
from backend.db.runs import executions
from backend.models.prices import cost_usd
from backend.observation.task_context import TaskContext

log = logging.getLogger(__name__)

T = TypeVar("T")

KNOWN_SECONDS = 5.0
"""How long a process knows which limits there are. A new one takes effect this much later; a changed figure at once."""

PAUSE_SECONDS = 1.0
"""Time between two questions to a database that is away."""


class SpendLimits:
    """Whether an operator limits tokens or cost at all. For all agents of a process, in any thread."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._any = False

    def exist(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether there are any, read again when that was too long ago."""
        with self._lock:
            now = time.monotonic()
            if now - self._read_at >= KNOWN_SECONDS:
                self._read_at = now
                try:
                    self._any = self.database.run_from_thread(loop, book.any_of, SPEND)
                except SQLAlchemyError as error:
                    log.warning("the operator's limits can't be read: %s", type(error).__name__)
            return self._any


class CallLimits:
    """The operator's limits that apply to the model calls of one try."""

    def __init__(self, spend: SpendLimits, task: TaskContext, loop: asyncio.AbstractEventLoop) -> None:
        self._spend = spend
        self._task = task
        self._loop = loop
        self._holder = uuid.uuid4().hex
        self._applying: list[Limit] = []
        self._read_at = float("-inf")
        self._execution_id = self._user = ""
        self._reserved: set[uuid.UUID] = set()

    def exist(self) -> bool:
        """Whether there are limits that may apply."""
        return self._spend.exist(self._loop)

    def reserve(self, call_id: uuid.UUID, model: str, tokens: int) -> None:
        """Reserve what a call is expected to use. Raises `LimitReachedError`."""
        applying = self._known()
        if not applying or model.startswith("local:"):  # computed here, and paid to nobody
            return
        cost = cost_usd(model, tokens, 0)
        if cost is None and (priced := next((one for one in applying if one.kind == "cost_usd"), None)):
            self._patiently(lambda connection: book.count_refusal(connection, priced.kind))
            raise LimitReachedError(
                f"The operator's limit {priced.label} applies, but the price of {model or 'the model'} is not known;"
                " use a model with a known price."
            )
        refused = self._patiently(lambda connection: self._reserve(connection, applying, call_id, tokens, cost))
        if refused is not None:
            asked = (
                f", and the next call needs about {tokens} tokens for its prompt alone"
                if refused.limit.kind == "tokens"
                else f", and the next call costs about {plain(round(cost or Decimal(0), 8))} for its prompt alone"
            )
            raise LimitReachedError(refused.refusal(asked))
        self._reserved.add(call_id)

    def settle(self, call_id: uuid.UUID, tokens: int, cost: Decimal) -> None:
        """Count what a call has used instead, until its usage is recorded."""
        if call_id in self._reserved:
            self._reserved.discard(call_id)
            holder = self._holder
            self._try(lambda connection: usage.settle(connection, str(call_id), holder, tokens, cost))

    def release(self, call_id: uuid.UUID) -> None:
        """A call has failed, and used nothing."""
        if call_id in self._reserved:
            self._reserved.discard(call_id)
            self._try(lambda connection: usage.release(connection, str(call_id)))

    def _known(self) -> list[Limit]:
        if time.monotonic() - self._read_at >= KNOWN_SECONDS:
            self._applying = self._patiently(self._read)
            self._read_at = time.monotonic()
        return self._applying

    def _read(self, connection: Connection) -> list[Limit]:
        task = self._task
        if task.team is not None:
            book.set_team(connection, task.dag_id, task.team)
        self._execution_id = self._execution_id or executions.ensure(connection, task.run_state())
        self._user = executions.user_of(connection, self._execution_id) or ""
        return book.applying(connection, SPEND, self._user, task.dag_id)

    def _reserve(
        self, connection: Connection, limits: list[Limit], call_id: uuid.UUID, tokens: int, cost: Decimal | None
    ) -> LimitUse | None:
        dag_id, price = self._task.dag_id, cost or Decimal(0)
        call = CallReservation(str(call_id), self._holder, self._execution_id, self._user, dag_id, tokens, price)
        refused = usage.reserve(connection, limits, call)
        if refused is not None:
            book.count_refusal(connection, refused.limit.kind)
        return refused

    def _patiently(self, function: Callable[[Connection], T]) -> T:
        """Run `function` in a transaction, waiting for a database that is away: a limit is never guessed."""
        until = time.monotonic() + OUTAGE_SECONDS
        while True:
            try:
                return self._spend.database.run_from_thread(self._loop, function)
            except Exception as error:
                if not temporary(error) or time.monotonic() >= until:
                    raise
                time.sleep(PAUSE_SECONDS)

    def _try(self, function: Callable[[Connection], None]) -> None:
        try:
            self._spend.database.run_from_thread(self._loop, function)
        except SQLAlchemyError as error:  # what was reserved counts until the usage is recorded, or it expires
            log.warning("a model call's use of limits could not be updated: %s", type(error).__name__)
