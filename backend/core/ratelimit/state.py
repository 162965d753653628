"""What all callers of a model share: its pace, its circuit breaker and the turns that are given away.

Times are seconds since 1970 by the clock of whoever keeps the state, so that callers' own clocks don't matter.

Turns are numbers, not times: a counter runs through them at the pace's rate. So the order in which callers came stays
as it is when the rate changes, and a turn that was given away needs no correction. Turns under a limit that is
configured, and so never changes, are times.
"""

from dataclasses import dataclass, field

from backend.core.ratelimit.adaptive_rate import Pace
from backend.core.ratelimit.circuit_breaker import Circuit

TOLERANCE_SECONDS = 1.0
"""How much of a configured limit may be used at once, in seconds' worth. What needs more goes when nothing is owed."""

KEPT_SECONDS = 30 * 86_400.0
"""For how long a model is told of that nobody calls."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls that had to wait for their turn or were sent away, 429s, and how often the circuit opened."""

    held_back: int = 0
    rate_limited: int = 0
    opened: int = 0

    def __bool__(self) -> bool:
        return bool(self.held_back or self.rate_limited or self.opened)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.held_back + other.held_back, self.rate_limited + other.rate_limited, self.opened + other.opened
        )


@dataclass(frozen=True, slots=True)
class LimitState:
    """The shared state of one model.

    `version` changes with pace, circuit and counter, not with turns that are taken. The counter stands at `turn` until
    `turn_at` and runs from then on. `tail` is the next turn that nobody has, `admitted` how many were given away.
    `next_request` and `next_tokens` are when the configured limits allow the next call.
    """

    pace: Pace
    circuit: Circuit = field(default_factory=Circuit)
    version: int = 0
    turn: float = 0.0
    turn_at: float = 0.0
    tail: float = 0.0
    admitted: int = 0
    next_request: float = 0.0
    next_tokens: float = 0.0
    counts: Counts = field(default_factory=Counts)

    def counter(self, now: float) -> float:
        """The turn whose time has come; the last one given away, while nothing limits."""
        if self.pace.rate is None:
            return self.tail
        return self.turn + self.pace.rate * max(0.0, now - self.turn_at)

    def served(self, now: float) -> int:
        """How many of the turns that were given away have come."""
        return self.admitted - int(max(0.0, self.tail - self.counter(now)))

    def time_of(self, turn: float) -> float:
        """When a turn comes, at the present pace."""
        if self.pace.rate is None:
            return self.pace.held_until
        return self.turn_at + (turn - (self.pace.burst - 1) - self.turn) / self.pace.rate


@dataclass(frozen=True, slots=True)
class Seen:
    """The state as it was read at `now`, by the keeper's clock; None: nobody has called the model yet."""

    state: LimitState | None
    now: float


@dataclass(frozen=True, slots=True)
class Change:
    """A new pace and circuit, and where the counter stands until when."""

    pace: Pace
    circuit: Circuit
    turn: float
    turn_at: float


@dataclass(frozen=True, slots=True)
class Reservation:
    """Turns that are wanted: for so many calls, the first of them within so many seconds.

    `paced` tells whether a pace was seen that limits; `interval` (seconds a call) and `token_seconds` (seconds' worth
    of all the calls) are what they take of configured limits, 0 without. `token_debt` is what earlier calls have used
    more of the tokens' limit than they had taken, or less.
    """

    calls: int
    within: float
    paced: bool
    interval: float = 0.0
    token_seconds: float = 0.0
    token_debt: float = 0.0

    @property
    def tolerance(self) -> float:
        """How far calls may run ahead of `next_request`."""
        return max(0.0, TOLERANCE_SECONDS - self.interval) if self.interval else 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that was given away, and the time before which a configured limit doesn't allow it."""

    number: float
    not_before: float


def first_time(state: LimitState, wanted: Reservation, now: float) -> float:
    """When the first of the calls may go, at the present pace."""
    time = max(now, state.pace.held_until)
    if wanted.paced:
        time = max(time, state.time_of(max(state.tail, state.counter(now))))
    if wanted.interval:
        time = max(time, state.next_request - wanted.tolerance)
    if wanted.token_seconds:
        time = max(time, state.next_tokens + wanted.token_debt - TOLERANCE_SECONDS)
    return time


def turns(after: LimitState, taken: Reservation, now: float) -> list[Turn]:
    """The turns of the calls, from the state after they were taken."""
    first = after.tail - taken.calls
    request = after.next_request - taken.calls * taken.interval - taken.tolerance if taken.interval else now
    tokens = after.next_tokens - taken.token_seconds - TOLERANCE_SECONDS if taken.token_seconds else now
    return [Turn(first + call, max(request + call * taken.interval, tokens)) for call in range(taken.calls)]
