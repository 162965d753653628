"""The rate limiter of model calls, shared by all agents of all processes.

Before each model call an agent asks a `ModelGate` for admission and afterwards reports how the call ended. The gate
delays calls to a model whose rate limit is known or was met, rejects calls that can't wait that long, and refuses calls
to a provider that is down. What it has learned is kept in a store that all processes share: Redis with `REDIS_URL`,
else PostgreSQL. While the store is unavailable, each process continues with what it knows; if the limiter itself fails,
it admits every call. No agent ever fails because of it.

`core/ratelimit/state.py` explains how the rate is found, `queue.py` how calls wait.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from uuid import uuid4

from backend.core.models.names import entry_of
from backend.core.ratelimit.configured import ModelLimit
from backend.core.ratelimit.interface import CallOutcome, CircuitOpenError, HeldBackError, ModelGate, OpenGate
from backend.core.settings import Settings
from backend.db.engine import Database
from backend.ratelimit.queue import Admission, ModelQueue
from backend.ratelimit.stores import FallbackStore, LimitStore, PostgresStore

log = logging.getLogger(__name__)

LOCAL_PROVIDER = "local:"
"""Models that run inside this process have no rate limit."""


@dataclass(frozen=True, slots=True)
class _AdmittedCall:
    """The latest call admitted in the current context. `caller` tells the agents of one process apart."""

    model: str
    admission: Admission | None
    caller: str


_admitted_call: ContextVar[_AdmittedCall | None] = ContextVar("visual_ai_admitted_model_call", default=None)


class SharedGate:
    """A `ModelGate` for the calls of one event loop, with one queue per model."""

    def __init__(self, store: LimitStore, limits: Mapping[str, ModelLimit]) -> None:
        """`limits` are the configured ones, by model. The gate closes `store` when it is closed."""
        self._store = store
        self._limits = limits
        self._queues: dict[str, ModelQueue] = {}

    async def admit(self, model: str, *, tokens: int, max_wait: float) -> None:
        """See `ModelGate.admit`."""
        if model.startswith(LOCAL_PROVIDER):
            return
        previous = _admitted_call.get()
        admission = None
        try:
            admission = await self._queue(model).admit(tokens, max_wait)
        except (HeldBackError, CircuitOpenError):
            raise
        except Exception:
            log.exception("the rate limiter of %s failed and admits the call", model)
        _admitted_call.set(_AdmittedCall(model, admission, previous.caller if previous else uuid4().hex[:12]))

    async def report(
        self, model: str, outcome: CallOutcome, *, retry_after: float | None = None, tokens: int | None = None
    ) -> None:
        """See `ModelGate.report`."""
        if model.startswith(LOCAL_PROVIDER):
            return
        latest = _admitted_call.get()
        if tokens is None and outcome != "ok":
            tokens = 0
        try:
            await self._queue(model).report(
                outcome,
                caller=latest.caller if latest is not None else uuid4().hex[:12],
                admission=latest.admission if latest is not None and latest.model == model else None,
                retry_after=retry_after,
                tokens=tokens,
            )
        except Exception:
            log.exception("the rate limiter of %s failed to record the outcome of a call", model)

    async def close(self) -> None:
        """Store the counts and close the store. Never raises."""
        for model, queue in self._queues.items():
            try:
                await queue.close()
            except Exception as error:
                log.warning("counts of the rate limiter of %s are lost: %s", model, type(error).__name__)
        try:
            await self._store.close()
        except Exception as error:
            log.warning("the store of the rate limiter could not be closed: %s", type(error).__name__)

    def _queue(self, model: str) -> ModelQueue:
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = ModelQueue(model, self._store, entry_of(self._limits, model))
        return queue


def limit_store(settings: Settings, database: Database) -> LimitStore:
    """The store that the settings ask for: Redis with `REDIS_URL`, else `database`, which the caller keeps open."""
    if settings.redis_address is None:
        return PostgresStore(database)
    from backend.ratelimit.redis_store import RedisStore  # importing it takes a while, and most have no Redis

    return RedisStore(settings.redis_address)


@asynccontextmanager
async def open_gate(settings: Settings, database: Database) -> AsyncIterator[ModelGate]:
    """The gate for the model calls of the running event loop; one is enough for all its agents."""
    if not settings.rate_limiter:
        yield OpenGate()
        return
    gate = SharedGate(FallbackStore(limit_store(settings, database)), settings.model_limits)
    try:
        yield gate
    finally:
        await gate.close()
