"""Where the calls of one process to one model wait for their turns."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from backend.core.ratelimit import transitions
from backend.core.ratelimit.adaptive_rate import Admitted
from backend.core.ratelimit.burst import Surge
from backend.core.ratelimit.circuit_breaker import Circuit
from backend.core.ratelimit.configured import ModelLimit
from backend.core.ratelimit.interface import CircuitOpenError, HeldBackError
from backend.core.ratelimit.state import Change, Counts, LimitState, Reservation, Seen, Turn, first_time, turns
from backend.ratelimit.stores import LimitStore

log = logging.getLogger(__name__)

Outcome = Literal["ok", "rate_limited", "down", "other"]

FRESH_SECONDS = 1.0
"""How old, at most, what a call relies on may be: others may have met a 429 since."""
TRUSTED_CALLS = 2
TRUSTED_SECONDS = (0.05, 0.5)
"""How old what a turn relies on may be: the time of so many calls, but at least and at most so long."""
BATCH_SECONDS = 0.1
"""Turns that are taken together are of at most this time, or a ramp's burst."""
PROMPT_SECONDS = 0.05
"""A turn that comes so soon comes at once, also for a call that can't wait."""
LATE_SECONDS = 0.5
"""How much later than its time a waiting call is sent away, if the store keeps everybody waiting."""
COUNTED_SECONDS = 0.1
"""A call that waited less was not held back."""
LONGEST_WAIT = 86_400.0
SHORTEST_PAUSE = 0.001
"""Clocks are not finer."""
_TRIES = 8


@dataclass(slots=True, eq=False)
class _Waiter:
    tokens: int
    since: float
    deadline: float
    turn: "asyncio.Future[None]"


class Lane:
    """The queue of one model on one event loop, first come, first served.

    While nothing limits the model, calls pass, and the store is asked at most once a second.
    """

    def __init__(self, model: str, store: LimitStore, limit: ModelLimit | None) -> None:
        self._model = model
        self._store = store
        self._interval = 1 / limit.requests_per_second if limit and limit.requests_per_second else 0.0
        self._tokens_per_second = limit.tokens_per_second if limit else None
        self._known: Seen | None = None
        self._known_at = 0.0
        self._queue: deque[_Waiter] = deque()
        self._server: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._changing = asyncio.Lock()
        self._surge = Surge()
        self._uncounted = Counts()
        self._tokens_owed = 0

    async def admit(self, tokens: int, max_wait: float) -> Admitted | None:
        """Wait for a turn; gives how things stand then. Raises `HeldBackError` and `CircuitOpenError`."""
        now = self._now()
        if self._passes(now):
            return self._admitted()
        max_wait = min(max(0.0, max_wait), LONGEST_WAIT)
        if self._fresh(now) and (wait := self._expected(len(self._queue))) > max(max_wait, PROMPT_SECONDS):
            raise self._held_back(wait)
        waiter = _Waiter(tokens, now, now + max_wait, asyncio.get_running_loop().create_future())
        self._queue.append(waiter)
        if self._server is None:
            self._server = asyncio.create_task(self._serve(), name=f"model gate {self._model}")
        try:
            async with asyncio.timeout_at(waiter.deadline + LATE_SECONDS):
                await waiter.turn
        except TimeoutError:
            position = self._queue.index(waiter) if waiter in self._queue else 0
            raise self._held_back(max(LATE_SECONDS, self._expected(position))) from None
        finally:
            with suppress(ValueError):
                self._queue.remove(waiter)
        return self._admitted()

    async def report(
        self,
        outcome: Outcome,
        *,
        caller: str,
        admitted: Admitted | None,
        retry_after: float | None,
        more_tokens: int,
    ) -> None:
        """Tell how a call went that was `admitted` so; `more_tokens` it used than it had said."""
        if self._tokens_per_second is not None:
            self._tokens_owed += more_tokens
        if outcome == "rate_limited":
            self._uncounted += Counts(rate_limited=1)
            rate = self._surge.rate(self._now())
            await self._change(lambda state, now: transitions.limited(state, now, retry_after, admitted, rate))
        elif outcome == "down":
            await self._change(lambda state, now: transitions.down(state, now, retry_after, admitted, caller))
        elif self._known is not None and self._known.state is not None and self._known.state.circuit != Circuit():
            await self._change(lambda state, now: transitions.answered(state, now, admitted))

    async def close(self) -> None:
        """Let nobody wait any more, and write down what was counted."""
        if self._server is not None:
            self._server.cancel()
            with suppress(asyncio.CancelledError):
                await self._server
        while self._queue:
            self._let_go(self._now())
        if self._uncounted:
            await self._refresh()

    # What is known

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _shared_now(self) -> float:
        """The present time by the clock of the store."""
        return self._known.now + self._now() - self._known_at if self._known is not None else 0.0

    def _state(self) -> LimitState:
        if self._known is None or self._known.state is None:
            raise RuntimeError("nothing is known yet")
        return self._known.state

    def _admitted(self) -> Admitted | None:
        if self._known is None or self._known.state is None:
            return None
        state, now = self._known.state, self._shared_now()
        return Admitted(state.pace.epoch, now, state.served(now), state.pace.rate)

    def _fresh(self, now: float) -> bool:
        return self._known is not None and self._known.state is not None and now - self._known_at < FRESH_SECONDS

    def _passes(self, now: float) -> bool:
        """Whether a call may go at once, as far as is known."""
        if self._queue or self._interval or self._tokens_per_second is not None or not self._fresh(now):
            return False
        state = self._state()
        if state.circuit.is_open or state.pace.held_until > self._shared_now() or state.pace.rate is not None:
            return False
        return self._surge.take(now) == 0.0

    def _wanted(self, calls: int, within: float, tokens: int) -> Reservation:
        paced = self._state().pace.rate is not None
        if self._tokens_per_second is None:
            return Reservation(calls, within, paced, self._interval)
        token_seconds, debt = max(1, tokens) / self._tokens_per_second, self._tokens_owed / self._tokens_per_second
        return Reservation(calls, within, paced, self._interval, token_seconds, debt)

    def _each(self) -> float:
        """How many seconds apart calls have their turns."""
        rate = self._state().pace.rate
        return max(self._interval, 1 / rate if rate is not None else 0.0)

    def _expected(self, position: int) -> float:
        """In how many seconds about a call has its turn that has so many others of this process before it."""
        if self._known is None or self._known.state is None:
            return 0.0
        now = self._shared_now()
        return first_time(self._known.state, self._wanted(1, 0.0, 1), now) - now + position * self._each()

    # Serving the queue

    async def _serve(self) -> None:
        try:
            while self._queue:
                await self._step()
        except Exception:
            # Whatever is wrong here must not keep agents from their work.
            log.exception("the gate of %s failed and lets calls pass", self._model)
            while self._queue:
                self._let_go(self._now())
        finally:
            self._server = None

    async def _step(self) -> None:
        state = await self._settled()
        now = self._shared_now()
        if (refusal := state.circuit.refusal(now)) is not None:
            while self._queue:
                self._send_away(self._queue.popleft(), CircuitOpenError(refusal))
            return
        if state.circuit.is_open:
            if await self._change(transitions.probed) and self._queue:
                self._let_go(self._now())
            return
        self._send_hopeless_away(self._expected(0))
        if (held := state.pace.held_until - now) > 0:
            await self._pause(min(held, FRESH_SECONDS))
        elif state.pace.rate is not None or self._interval or self._tokens_per_second is not None:
            await self._take_turns(state)
        else:
            await self._let_surge_go()

    async def _let_surge_go(self) -> None:
        """Let all go that may at once."""
        while self._queue:
            if (wait := self._surge.take(self._now())) > 0:
                await self._pause(wait)
                return
            self._let_go(self._now(), surge=False)

    async def _settled(self) -> LimitState:
        """The state, fresh enough, with the changes made that are due."""
        if not self._fresh(self._now()):
            await self._refresh()
        await self._change(lambda state, now: transitions.due(state, now, waiting=False))
        return self._state()

    async def _take_turns(self, state: LimitState) -> None:
        if not self._queue:
            return
        head = self._queue[0]
        owed = self._tokens_owed
        calls = 1
        if self._tokens_per_second is None:
            calls = min(len(self._queue), max(state.pace.burst, int(BATCH_SECONDS / self._each()), 1))
        wanted = self._wanted(calls, max(PROMPT_SECONDS, head.deadline - self._now()), head.tokens)
        counts, self._uncounted = self._uncounted, Counts()
        taken, seen = await self._store.reserve(self._model, wanted, counts)
        self._learn(seen)
        if seen.state is None:
            return
        first = first_time(seen.state, wanted, seen.now) - seen.now
        if not taken:
            if (seen.state.pace.rate is not None) == wanted.paced and self._queue and self._queue[0] is head:
                self._send_away(self._queue.popleft(), self._held_back(first))
            return
        self._tokens_owed -= owed
        waiting = len(self._queue) > calls or first > calls * self._each()
        await self._change(lambda state, now: transitions.due(state, now, waiting=waiting))
        for turn in turns(seen.state, wanted, seen.now):
            if not await self._comes(turn):
                return
            self._let_go(self._now())

    async def _comes(self, turn: Turn) -> bool:
        """Wait for a turn; says whether it came while somebody wanted it."""
        while self._queue and self._known is not None and self._known.state is not None:
            state, now = self._known.state, self._shared_now()
            if state.circuit.is_open:
                return False
            wait = max(turn.not_before, state.pace.held_until, state.time_of(turn.number)) - now
            age = self._now() - self._known_at
            if wait > 0:
                self._send_hopeless_away(wait)
                await self._pause(min(wait, FRESH_SECONDS))
                if self._now() - self._known_at >= FRESH_SECONDS:
                    await self._refresh()
            elif age > self._trusted(state):
                await self._refresh()
            else:
                return True
        return False

    @staticmethod
    def _trusted(state: LimitState) -> float:
        if state.pace.rate is None:
            return FRESH_SECONDS
        least, most = TRUSTED_SECONDS
        return min(most, max(least, TRUSTED_CALLS / state.pace.rate))

    def _let_go(self, turn: float, *, surge: bool = True) -> None:
        """Let the first one go, whose turn it was at `turn`."""
        waiter = self._queue.popleft()
        if waiter.turn.done():
            return
        waiter.turn.set_result(None)
        if surge:
            self._surge.count(self._now())
        if turn - waiter.since > COUNTED_SECONDS:
            self._uncounted += Counts(held_back=1)

    def _send_hopeless_away(self, first: float) -> None:
        """Send those away whose turn comes too late for them; the first one's is in `first` seconds."""
        now, each = self._now(), self._each()
        for position, waiter in enumerate(list(self._queue)):
            wait = first + position * each
            if wait > PROMPT_SECONDS and now + wait > waiter.deadline:
                self._queue.remove(waiter)
                self._send_away(waiter, self._held_back(wait))

    def _held_back(self, wait: float) -> HeldBackError:
        self._uncounted += Counts(held_back=1)
        return HeldBackError(wait)

    @staticmethod
    def _send_away(waiter: _Waiter, error: Exception) -> None:
        if not waiter.turn.done():
            waiter.turn.set_exception(error)

    async def _pause(self, seconds: float) -> None:
        """Sleep, until there is news at the most."""
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, SHORTEST_PAUSE)):
                await self._news.wait()

    # The store

    async def _refresh(self) -> None:
        counts, self._uncounted = self._uncounted, Counts()
        self._learn(await (self._store.add(self._model, counts) if counts else self._store.read(self._model)))

    async def _change(self, decide: Callable[[LimitState, float], Change | None]) -> bool:
        """Make the change that `decide` gives for the shared state; says whether there was one and it was made."""
        async with self._changing:
            for _ in range(_TRIES):
                if self._known is None:
                    await self._refresh()
                state, now = self._known.state if self._known is not None else None, self._shared_now()
                change = transitions.begun(now) if state is None else decide(state, now)
                if change is None:
                    return False
                opens = state is not None and change.circuit.is_open and not state.circuit.is_open
                counts, self._uncounted = self._uncounted, Counts()
                made, seen = await self._store.swap(
                    self._model,
                    None if state is None else state.version,
                    change,
                    counts + Counts(opened=int(opens)),
                )
                if not made:
                    self._uncounted += counts
                self._learn(seen)
                if made and state is not None:
                    return True
        return False

    def _learn(self, seen: Seen) -> None:
        now, known = self._now(), self._known
        if known is not None and known.state is not None:
            overtaken = seen.state is not None and seen.state.version < known.state.version
            if overtaken and now - self._known_at < FRESH_SECONDS:
                return
            before: LimitState | None = known.state
        else:
            before = None
        self._known, self._known_at = seen, now
        after = seen.state
        if before is None or after is None or before.pace.epoch != after.pace.epoch or before.circuit != after.circuit:
            self._news.set()
