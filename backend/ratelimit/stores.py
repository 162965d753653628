"""Stores of the shared state of rate limits: PostgreSQL, or this process's memory while the shared store is away.

A store knows nothing about rate limits. It keeps one versioned state per model and replaces it by compare-and-swap, so
that all rules are in `core/ratelimit/state.py`, once. The Redis store has a module of its own.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from backend.core.ratelimit.state import LimitState, Snapshot
from backend.db import rate_limits
from backend.db.engine import Database

log = logging.getLogger(__name__)

T = TypeVar("T")

STORE_TIMEOUT = 5.0
"""Seconds after which an answer of the store is no longer waited for."""
FIRST_PAUSE, MAX_PAUSE = 2.0, 30.0
"""For how many seconds a store that failed is not asked again; doubled each time it fails."""


class StoreUnavailableError(RuntimeError):
    """The store can't be reached or doesn't answer. A retry may help."""


class LimitStore(Protocol):
    """Keeps the state of each model. Operations are atomic and raise `StoreUnavailableError` if they can't be done."""

    async def read(self, model: str) -> Snapshot:
        """The state of a model."""

    async def read_all(self) -> dict[str, Snapshot]:
        """The states of all models, by model."""

    async def swap(self, model: str, version: int | None, state: LimitState) -> tuple[bool, Snapshot]:
        """Replace the state of this version (None: there is none yet) by another one.

        Returns whether it was replaced, and the state that is stored now.
        """

    async def close(self) -> None:
        """Close the connections that the store has opened."""


class MemoryStore:
    """Keeps states in the memory of this process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._states: dict[str, tuple[LimitState, int]] = {}

    def put(self, model: str, state: LimitState, version: int) -> None:
        """Store a state that was kept elsewhere."""
        self._states[model] = state, version

    async def read(self, model: str) -> Snapshot:
        """See `LimitStore.read`."""
        state, version = self._states.get(model, (None, None))
        return Snapshot(state, version, self._clock())

    async def read_all(self) -> dict[str, Snapshot]:
        """See `LimitStore.read_all`."""
        return {model: await self.read(model) for model in sorted(self._states)}

    async def swap(self, model: str, version: int | None, state: LimitState) -> tuple[bool, Snapshot]:
        """See `LimitStore.swap`."""
        before = await self.read(model)
        if before.version != version:
            return False, before
        self._states[model] = state, (version or 0) + 1
        return True, await self.read(model)

    async def close(self) -> None:
        """There is nothing to close."""


class PostgresStore:
    """Keeps states in the table `model_limits`, using the process's own connections."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def read(self, model: str) -> Snapshot:
        """See `LimitStore.read`."""
        return await self._in_time(self._database.run_autocommit(rate_limits.read, model))

    async def read_all(self) -> dict[str, Snapshot]:
        """See `LimitStore.read_all`; without models that nobody has called for a month."""
        return await self._in_time(self._database.run_autocommit(rate_limits.read_all))

    async def swap(self, model: str, version: int | None, state: LimitState) -> tuple[bool, Snapshot]:
        """See `LimitStore.swap`."""
        return await self._in_time(self._database.run_autocommit(rate_limits.swap, model, version, state))

    async def close(self) -> None:
        """The database is closed by its owner."""

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        # `asyncio.timeout` would wait for a statement that runs in a thread, as it can't be cancelled.
        running = asyncio.ensure_future(work)
        try:
            await asyncio.wait([running], timeout=STORE_TIMEOUT)
            if not running.done():
                raise StoreUnavailableError(f"no answer within {STORE_TIMEOUT:g} s")
            return running.result()
        except (SQLAlchemyError, OSError) as error:
            raise StoreUnavailableError(type(error).__name__) from error
        finally:
            if not running.done():
                self._abandoned.add(running)
                running.add_done_callback(self._forget)
                running.cancel()

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio doesn't log it


class FallbackStore:
    """A shared store, replaced by the memory of this process while it is unavailable. Never raises."""

    def __init__(self, shared: LimitStore, clock: Callable[[], float] = time.time) -> None:
        """`clock` should be close to the clock of the shared store."""
        self._shared = shared
        self._own = MemoryStore(clock)
        self._pause = 0.0
        self._away_until = 0.0
        self._seen: dict[str, Snapshot] = {}

    async def read(self, model: str) -> Snapshot:
        """See `LimitStore.read`."""
        self._seen[model] = snapshot = await self._either(lambda store: store.read(model))
        return snapshot

    async def read_all(self) -> dict[str, Snapshot]:
        """See `LimitStore.read_all`."""
        return await self._either(lambda store: store.read_all())

    async def swap(self, model: str, version: int | None, state: LimitState) -> tuple[bool, Snapshot]:
        """See `LimitStore.swap`."""
        swapped, self._seen[model] = await self._either(lambda store: store.swap(model, version, state))
        return swapped, self._seen[model]

    async def close(self) -> None:
        """Close the shared store."""
        await self._shared.close()

    async def _either(self, operation: Callable[[LimitStore], Coroutine[Any, Any, T]]) -> T:
        if asyncio.get_running_loop().time() >= self._away_until:
            try:
                result = await operation(self._shared)
            except StoreUnavailableError as error:
                self._leave(error)
            else:
                if self._pause:
                    self._pause = 0.0
                    log.warning("the rate limiter's store is available again")
                return result
        return await operation(self._own)

    def _leave(self, error: StoreUnavailableError) -> None:
        if not self._pause:
            log.warning("the rate limiter's store is unavailable; until it is back, limits are per process: %s", error)
            for model, seen in self._seen.items():
                if seen.state is not None and seen.version is not None:
                    self._own.put(model, seen.state, seen.version)
        self._pause = min(MAX_PAUSE, max(FIRST_PAUSE, 2 * self._pause))
        self._away_until = asyncio.get_running_loop().time() + self._pause
