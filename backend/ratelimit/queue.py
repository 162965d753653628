"""The calls of one process to one model, waiting in order of arrival for permission to start.

A `ModelQueue` takes one ticket per waiting call from the state that all processes share (`core/ratelimit/state.py`) and
lets the first call go whenever the first ticket is due. Tickets belong to the queue, not to a call: if a call is
cancelled, the next one uses its ticket. A call whose ticket would be due after its deadline is rejected at once.

While nothing limits the model, calls take no tickets. They only pass a local `BurstLimit`, and the shared state is read
once a second.

Every change of the shared state is a compare-and-swap: read the state, compute the one that follows, store it if nobody
was faster, else start over from what they stored. No lock is held meanwhile, so a process that hangs delays no other.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from backend.core.ratelimit import state as limits
from backend.core.ratelimit.circuit_breaker import Circuit
from backend.core.ratelimit.configured import ModelLimit
from backend.core.ratelimit.interface import CallOutcome, CircuitOpenError, HeldBackError
from backend.core.ratelimit.state import Counts, LimitState, Snapshot, Ticket
from backend.ratelimit.burst import MIN_SLEEP, BurstLimit
from backend.ratelimit.stores import LimitStore

log = logging.getLogger(__name__)

FRESH_SECONDS = 1.0
"""The maximum age of the shared state that an unlimited call relies on."""
CURRENT_SECONDS = 0.1
"""The same for a call with a ticket: the rate may have been cut since."""
TAKE_SECONDS = 0.05
"""While tickets are left, new ones are taken this often, for all calls that have arrived meanwhile."""
PROMPT_SECONDS = 0.05
"""A wait this short is no wait, even for a call with `max_wait=0`."""
LATE_SECONDS = 0.5
"""How long after its deadline a waiting call is rejected if the store keeps the queue from making progress."""
COUNTED_SECONDS = 0.1
"""A shorter wait isn't counted as held back."""
MAX_WAIT_SECONDS = 86_400.0
SWAP_ATTEMPTS, SWAP_BACKOFF = 50, 0.005
"""How often a change is attempted, and the bound of the first random pause in seconds; it doubles up to 64-fold."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What `report` needs to know about an admitted call: the epoch, the rate and the time of the event loop that it
    started at, and the tokens it was charged."""

    epoch: int
    rate: float | None
    at: float
    tokens: int


@dataclass(slots=True, eq=False)
class _Waiter:
    tokens: int
    since: float
    deadline: float
    admitted: "asyncio.Future[Admission]"


class ModelQueue:
    """The queue of one model on one event loop, first come, first served."""

    def __init__(self, model: str, store: LimitStore, limit: ModelLimit | None) -> None:
        self._model = model
        self._store = store
        self._cap = limit.requests_per_second if limit else None
        self._tokens_per_second = limit.tokens_per_second if limit else None
        self._tokens_owed = 0
        self._snapshot: Snapshot | None = None
        self._snapshot_at = self._taken_at = float("-inf")
        self._waiters: deque[_Waiter] = deque()
        self._tickets: deque[Ticket] = deque()
        self._server: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._storing = asyncio.Lock()
        self._burst = BurstLimit()
        self._uncounted = Counts()

    async def admit(self, tokens: int, max_wait: float) -> Admission:
        """Wait until a call of about `tokens` tokens may start, at most `max_wait` seconds.

        Raises `HeldBackError` at once if the wait would be longer, and `CircuitOpenError` if the provider is down.
        """
        now = self._now()
        if self._may_pass(now):
            return Admission(self._state.epoch, None, now, tokens)
        max_wait = min(max(0.0, max_wait), MAX_WAIT_SECONDS)
        if self._age(now) < FRESH_SECONDS and (wait := self._expected_wait()) > max(max_wait, PROMPT_SECONDS):
            raise self._held_back(wait)
        waiter = _Waiter(tokens, now, now + max_wait, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        if self._server is None:
            self._server = asyncio.create_task(self._serve(), name=f"model queue {self._model}")
        elif len(self._waiters) == len(self._tickets) + 1:
            self._wake.set()
        try:
            async with asyncio.timeout_at(waiter.deadline + LATE_SECONDS):
                return await waiter.admitted
        except TimeoutError:
            raise self._held_back(LATE_SECONDS) from None
        finally:
            with suppress(ValueError):
                self._waiters.remove(waiter)

    async def report(
        self,
        outcome: CallOutcome,
        *,
        caller: str,
        admission: Admission | None,
        retry_after: float | None,
        tokens: int | None,
    ) -> None:
        """Record how a call ended; `admission` is None if it isn't known. See `ModelGate.report`."""
        if self._tokens_per_second is not None and admission is not None and tokens is not None:
            self._tokens_owed += tokens - admission.tokens
        epoch = admission.epoch if admission is not None else None
        if outcome == "rate_limited":
            self._uncounted += Counts(rate_limited=1)
            refused_rate = admission.rate if admission is not None else None
            in_flight = self._now() - admission.at if admission is not None else 0.0
            await self._update(
                lambda state, now: limits.limited(
                    state, now, retry_after=retry_after, epoch=epoch, refused_rate=refused_rate, in_flight=in_flight
                )
            )
        elif outcome == "down":
            await self._update(
                lambda state, now: limits.down(state, now, retry_after=retry_after, epoch=epoch, caller=caller)
            )
        elif self._snapshot is not None and self._state.circuit != Circuit():
            await self._update(lambda state, now: limits.answered(state, now, epoch=epoch))

    async def close(self) -> None:
        """Admit everyone who is still waiting, and store what was counted."""
        if self._server is not None:
            self._server.cancel()
            with suppress(asyncio.CancelledError):
                await self._server
        while self._waiters:
            self._admit_next()
        if self._uncounted and self._snapshot is not None:
            await self._update(lambda state, _: state, counts=True)

    # Time and what is known of the shared state

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _shared_now(self) -> float:
        """The time on the store's clock."""
        return self._snapshot.now + self._now() - self._snapshot_at if self._snapshot is not None else 0.0

    @property
    def _state(self) -> LimitState:
        """The shared state as it was last seen."""
        if self._snapshot is None or self._snapshot.state is None:
            return limits.begin(self._shared_now(), self._cap)
        return self._snapshot.state

    def _age(self, now: float) -> float:
        return now - self._snapshot_at

    def _may_pass(self, now: float) -> bool:
        """Whether a call may start without a ticket."""
        if self._waiters or self._tokens_per_second is not None or self._age(now) >= FRESH_SECONDS:
            return False
        state = self._state
        if state.rate is not None or state.circuit.is_open:
            return False
        return self._burst.wait(now) == 0.0

    def _expected_wait(self) -> float:
        """About how many seconds a call that arrives now would wait."""
        state, now = self._state, self._shared_now()
        state, ticket = limits.take(self._charged(state), now, 1, self._tokens_per_second)
        ahead = max(0, len(self._waiters) - len(self._tickets))
        return self._due(state, replace(ticket, number=ticket.number + ahead)) - now

    def _due(self, state: LimitState, ticket: Ticket) -> float:
        return max(state.time_of(ticket.number), ticket.not_before)

    def _charged(self, state: LimitState) -> LimitState:
        """The state once the tokens that calls used beyond their estimates are paid for."""
        if self._tokens_per_second is None or not self._tokens_owed:
            return state
        return replace(state, tokens_at=state.tokens_at + self._tokens_owed / self._tokens_per_second)

    # Serving the queue

    async def _serve(self) -> None:
        try:
            while self._waiters:
                await self._step()
        except Exception:
            # The limiter must never keep agents from working.
            log.exception("the rate limiter of %s failed and admits all calls", self._model)
            while self._waiters:
                self._admit_next()
        finally:
            self._drop_tickets()
            self._server = None

    async def _step(self) -> None:
        if self._age(self._now()) >= FRESH_SECONDS:
            await self._refresh()
        await self._update(lambda state, now: limits.settle(state, now, self._cap))
        state = self._state
        if (refusal := state.circuit.refusal(self._shared_now())) is not None:
            while self._waiters:
                self._reject(self._waiters.popleft(), CircuitOpenError(refusal))
        elif state.circuit.is_open:
            if await self._update(limits.probe) and self._waiters:
                self._admit_next()
        elif state.rate is None and self._tokens_per_second is None:
            await self._admit_without_tickets()
        else:
            await self._admit_by_ticket()

    async def _admit_without_tickets(self) -> None:
        self._drop_tickets()
        while self._waiters:
            if (wait := self._burst.wait(self._now())) > 0:
                await self._sleep(wait)
                return
            self._admit_next()

    async def _admit_by_ticket(self) -> None:
        if any(ticket.number >= self._state.tail for ticket in self._tickets):
            self._drop_tickets()  # the store has lost the state that they were taken from
        missing = len(self._waiters) > len(self._tickets)
        if missing and (not self._tickets or self._now() - self._taken_at >= TAKE_SECONDS):
            await self._take_tickets()
            missing = len(self._waiters) > len(self._tickets)
        self._reject_expired()
        while self._waiters and self._tickets and not self._state.circuit.is_open:
            wait = self._due(self._state, self._tickets[0]) - self._shared_now()
            if wait > 0:
                await self._sleep(min(wait, TAKE_SECONDS if missing else FRESH_SECONDS))
                return
            if self._age(self._now()) > CURRENT_SECONDS:
                await self._refresh()
                return
            self._burst.wait(self._now())
            self._admit_next()

    async def _take_tickets(self) -> None:
        """Take a ticket for each call without one, and reject those that can't wait for theirs."""
        waiters = list(self._waiters)[len(self._tickets) :]
        taken: list[Ticket] = []
        rejected: list[tuple[_Waiter, float]] = []
        owed = 0

        def take(state: LimitState, now: float) -> LimitState:
            nonlocal owed
            taken.clear()
            rejected.clear()
            owed, state = self._tokens_owed, self._charged(state)
            for waiter in waiters:
                after, ticket = limits.take(state, now, waiter.tokens, self._tokens_per_second)
                wait = self._due(after, ticket) - now
                if self._expired(waiter, wait):
                    rejected.append((waiter, wait))
                else:
                    taken.append(ticket)
                    state = after
            return state

        if await self._update(take):
            self._tokens_owed -= owed
            self._tickets.extend(taken)
            self._taken_at = self._now()
        elif taken:
            return  # other processes were faster each time
        for waiter, wait in rejected:
            with suppress(ValueError):
                self._waiters.remove(waiter)
            self._reject(waiter, self._held_back(wait))

    def _reject_expired(self) -> None:
        """Reject the calls whose tickets are due too late, now that the rate has changed."""
        state, now = self._state, self._shared_now()
        waiters, tickets = list(self._waiters), iter(self._tickets)
        ticket = next(tickets, None)
        for waiter in waiters:
            if ticket is None:
                return
            if self._expired(waiter, wait := self._due(state, ticket) - now):
                self._waiters.remove(waiter)
                self._reject(waiter, self._held_back(wait))
            else:
                ticket = next(tickets, None)

    def _expired(self, waiter: _Waiter, wait: float) -> bool:
        return wait > PROMPT_SECONDS and self._now() + wait > waiter.deadline

    def _admit_next(self) -> None:
        waiter = self._waiters.popleft()
        tokens = self._tickets.popleft().tokens if self._tickets else waiter.tokens
        if self._now() - waiter.since > COUNTED_SECONDS:
            self._uncounted += Counts(held_back=1)
        if not waiter.admitted.done():
            state = self._state
            waiter.admitted.set_result(Admission(state.epoch, state.rate, self._now(), tokens))

    def _held_back(self, wait: float) -> HeldBackError:
        self._uncounted += Counts(held_back=1)
        return HeldBackError(wait)

    @staticmethod
    def _reject(waiter: _Waiter, error: Exception) -> None:
        if not waiter.admitted.done():
            waiter.admitted.set_exception(error)

    def _drop_tickets(self) -> None:
        """Forget unused tickets; the next call gets back the tokens they paid for."""
        if self._tokens_per_second is not None:
            self._tokens_owed -= sum(ticket.tokens for ticket in self._tickets)
        self._tickets.clear()

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but wake up if a call arrives or the shared state changes."""
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, MIN_SLEEP)):
                await self._wake.wait()

    # The store

    async def _refresh(self) -> None:
        if self._uncounted and self._snapshot is not None:
            await self._update(lambda state, _: state, counts=True)
        else:
            async with self._storing:
                self._see(await self._store.read(self._model))

    async def _update(self, change: Callable[[LimitState, float], LimitState], *, counts: bool = False) -> bool:
        """Replace the shared state by what `change` makes of it and of the time; return whether it was replaced.

        Nothing is stored if `change` returns the state itself, unless `counts` says that counts must be stored.
        """
        async with self._storing:
            if self._snapshot is None:
                self._see(await self._store.read(self._model))
            for attempt in range(SWAP_ATTEMPTS):
                if self._snapshot is None:
                    return False
                version, state, now = self._snapshot.version, self._state, self._shared_now()
                changed = change(state, now)
                if changed is self._snapshot.state and not counts:
                    return False
                uncounted, self._uncounted = self._uncounted, Counts()
                swapped, snapshot = await self._store.swap(
                    self._model, version, replace(changed, counts=changed.counts + uncounted)
                )
                if not swapped:
                    self._uncounted += uncounted
                self._see(snapshot)
                if swapped:
                    return True
                await asyncio.sleep(random.uniform(0, SWAP_BACKOFF * 2 ** min(attempt, 6)))  # noqa: S311  # no secret
        return False

    def _see(self, snapshot: Snapshot) -> None:
        known = self._snapshot.state if self._snapshot is not None else None
        self._snapshot, self._snapshot_at = snapshot, self._now()
        new = snapshot.state
        if known is None or new is None or known.epoch != new.epoch or known.circuit != new.circuit:
            self._wake.set()
