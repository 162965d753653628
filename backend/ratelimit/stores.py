"""Where the shared state of models' limits is kept: in PostgreSQL, in Redis, or in this process alone."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from backend.core.ratelimit.state import Change, Counts, LimitState, Reservation, Seen, first_time
from backend.db import rate_limits
from backend.db.engine import Database

log = logging.getLogger(__name__)

T = TypeVar("T")

STORE_TIMEOUT = 5.0
"""Seconds after which a store that doesn't answer is given up for a while."""
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 30.0


class StoreUnavailableError(RuntimeError):
    """The state can't be read or written now. A retry may help."""


class LimitStore(Protocol):
    """Keeps models' states. Each call is one round trip and atomic; what fails raises `StoreUnavailableError`."""

    async def read(self, model: str) -> Seen:
        """The state."""

    async def read_all(self) -> dict[str, Seen]:
        """All states by model."""

    async def reserve(self, model: str, wanted: Reservation, counts: Counts) -> tuple[bool, Seen]:
        """Take turns, if there is still a pace (or none) and the first of them comes soon enough.

        Gives whether they were taken, and the state afterwards; `counts` are added in any case.
        """

    async def swap(self, model: str, version: int | None, change: Change, counts: Counts) -> tuple[bool, Seen]:
        """Change pace and circuit, if `version` is still theirs (None: if there are none yet).

        Gives whether they were changed, and the state afterwards; `counts` are added only then.
        """

    async def add(self, model: str, counts: Counts) -> Seen:
        """Count; gives the state."""

    async def close(self) -> None:
        """Give back what the store itself opened."""


class MemoryStore:
    """For the callers of one process."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._states: dict[str, LimitState] = {}

    def put(self, model: str, state: LimitState) -> None:
        """Go on from a state that was kept elsewhere."""
        self._states[model] = state

    async def read(self, model: str) -> Seen:
        """The state."""
        return Seen(self._states.get(model), self._clock())

    async def read_all(self) -> dict[str, Seen]:
        """All states by model."""
        return {model: Seen(state, self._clock()) for model, state in sorted(self._states.items())}

    async def reserve(self, model: str, wanted: Reservation, counts: Counts) -> tuple[bool, Seen]:
        """Take turns, if there is still a pace (or none) and the first of them comes soon enough."""
        now = self._clock()
        state = self._states.get(model)
        if state is None:
            return False, Seen(None, now)
        time = first_time(state, wanted, now)
        taken = (state.pace.rate is not None) == wanted.paced and time <= now + wanted.within
        if taken:
            state = replace(state, pace=replace(state.pace, active_at=now), admitted=state.admitted + wanted.calls)
            if wanted.paced:
                state = replace(state, tail=max(state.tail, state.counter(now)) + wanted.calls)
            if wanted.interval:
                used = wanted.calls * wanted.interval
                state = replace(state, next_request=max(state.next_request, time) + used)
            if wanted.token_seconds:
                due = max(state.next_tokens + wanted.token_debt, time)
                state = replace(state, next_tokens=due + wanted.token_seconds)
        self._states[model] = state = replace(state, counts=state.counts + counts)
        return taken, Seen(state, now)

    async def swap(self, model: str, version: int | None, change: Change, counts: Counts) -> tuple[bool, Seen]:
        """Change pace and circuit, if `version` is still theirs."""
        now = self._clock()
        state = self._states.get(model)
        if (None if state is None else state.version) != version:
            return False, Seen(state, now)
        before = state or LimitState(change.pace)
        after = replace(
            before,
            pace=change.pace,
            circuit=change.circuit,
            version=before.version + 1,
            turn=change.turn,
            turn_at=change.turn_at,
            counts=before.counts + counts,
        )
        self._states[model] = after
        return True, Seen(after, now)

    async def add(self, model: str, counts: Counts) -> Seen:
        """Count; gives the state."""
        state = self._states.get(model)
        if state is not None:
            self._states[model] = state = replace(state, counts=state.counts + counts)
        return Seen(state, self._clock())

    async def close(self) -> None:
        """Nothing is open."""


class PostgresStore:
    """For all processes, in the table `model_limits`, on connections that the process has anyway."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._late: set[asyncio.Task[Any]] = set()

    async def read(self, model: str) -> Seen:
        """The state."""
        return await self._within_time(self._database.run_autocommit(rate_limits.read, model))

    async def read_all(self) -> dict[str, Seen]:
        """All states by model."""
        return await self._within_time(self._database.run_autocommit(rate_limits.read_all))

    async def reserve(self, model: str, wanted: Reservation, counts: Counts) -> tuple[bool, Seen]:
        """Take turns, if there is still a pace (or none) and the first of them comes soon enough."""
        return await self._within_time(self._database.run_autocommit(rate_limits.reserve, model, wanted, counts))

    async def swap(self, model: str, version: int | None, change: Change, counts: Counts) -> tuple[bool, Seen]:
        """Change pace and circuit, if `version` is still theirs."""
        return await self._within_time(self._database.run_autocommit(rate_limits.swap, model, version, change, counts))

    async def add(self, model: str, counts: Counts) -> Seen:
        """Count; gives the state."""
        return await self._within_time(self._database.run_autocommit(rate_limits.add, model, counts))

    async def close(self) -> None:
        """The database is somebody else's."""

    async def _within_time(self, work: Coroutine[Any, Any, T]) -> T:
        # Not a timeout around it: a database that runs in threads tells of a cancellation when it has ended.
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
                self._late.add(running)
                running.add_done_callback(self._forget)
                running.cancel()

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # nobody waits for it any more


class SteadyStore:
    """A shared store, and this process's own in its place while that one is out of reach. Never raises."""

    def __init__(self, shared: LimitStore, clock: Callable[[], float] = time.time) -> None:
        """`clock` is about the shared store's."""
        self._shared = shared
        self._own = MemoryStore(clock)
        self._pause = 0.0
        self._away_until = 0.0
        self._known: dict[str, LimitState] = {}

    async def read(self, model: str) -> Seen:
        """The state."""
        return self._keep(model, await self._either(lambda store: store.read(model)))

    async def read_all(self) -> dict[str, Seen]:
        """All states by model."""
        return await self._either(lambda store: store.read_all())

    async def reserve(self, model: str, wanted: Reservation, counts: Counts) -> tuple[bool, Seen]:
        """Take turns, if there is still a pace (or none) and the first of them comes soon enough."""
        taken, seen = await self._either(lambda store: store.reserve(model, wanted, counts))
        return taken, self._keep(model, seen)

    async def swap(self, model: str, version: int | None, change: Change, counts: Counts) -> tuple[bool, Seen]:
        """Change pace and circuit, if `version` is still theirs."""
        won, seen = await self._either(lambda store: store.swap(model, version, change, counts))
        return won, self._keep(model, seen)

    async def add(self, model: str, counts: Counts) -> Seen:
        """Count; gives the state."""
        return self._keep(model, await self._either(lambda store: store.add(model, counts)))

    async def close(self) -> None:
        """Close the shared store."""
        await self._shared.close()

    async def _either(self, call: Callable[[LimitStore], Coroutine[Any, Any, T]]) -> T:
        if asyncio.get_running_loop().time() >= self._away_until:
            try:
                answer = await call(self._shared)
            except StoreUnavailableError as error:
                self._leave(error)
            else:
                if self._pause:
                    self._pause = 0.0
                    log.warning("models' limits are shared again")
                return answer
        return await call(self._own)

    def _leave(self, error: StoreUnavailableError) -> None:
        if not self._pause:
            log.warning("models' limits are not shared for now, each process keeps its own: %s", error)
            for model, state in self._known.items():
                self._own.put(model, state)
        self._pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * self._pause))
        self._away_until = asyncio.get_running_loop().time() + self._pause

    def _keep(self, model: str, seen: Seen) -> Seen:
        if seen.state is not None:
            self._known[model] = seen.state
        return seen
