"""The rate limit of one model as all its callers share it: a ticket queue whose speed is found by AIMD.

Providers limit how often a key may call a model, and answer 429 beyond that. Neither the limit nor who else uses the
key is known, so the limiter searches for the rate the way TCP searches for bandwidth: it raises the rate by small steps
while callers are waiting, and cuts it by a factor when a 429 arrives (additive increase, multiplicative decrease).

**Tickets.** A caller takes the next number (`tail`). A counter runs through the numbers at the current rate; a call may
start once the counter has reached its ticket. The counter is computed, never stored: it stood at `turn` at the time
`turn_at` and has been running since. Changing the rate therefore moves all outstanding tickets at once and keeps their
order, and no ticket has to be taken again. Numbers that nobody took before the counter passed them are lost, except for
`burst` calls that may start together.

**Phases.** `ramp`: nothing is known yet, so the rate starts at `RAMP_RATE` and grows exponentially while callers are
waiting (slow start). `open`: the ramp met no limit, so calls need no ticket. `learned`: a 429 was received, and the
rate follows AIMD. A model with a configured limit of requests starts `open` at that rate and never exceeds it.

**Epochs.** Many calls may be in flight when the rate is cut, and their 429s say nothing new. `epoch` counts the cuts; a
429 of a call that was admitted in an earlier epoch only extends the pause if its `Retry-After` asks for more.

All functions are pure: they take a state and a time and return the state that follows, or the same object if nothing
changes. Times are seconds since 1970 on the clock of the store, so the clocks of the callers don't matter. Rates are
calls per second.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from backend.core.ratelimit import circuit_breaker
from backend.core.ratelimit.circuit_breaker import Circuit

Phase = Literal["ramp", "open", "learned"]

RAMP_RATE = 40.0
RAMP_BURST = 5
RAMP_SECONDS = 0.2
RAMP_GROWTH = 1.3
"""While callers are waiting, a ramp multiplies its rate by `RAMP_GROWTH` every `RAMP_SECONDS`."""
OPEN_RATE = 10_000.0
"""A ramp that exceeds this rate has met no limit."""
RAMP_QUIET_SECONDS = 2.0
"""A ramp ends after this time without a waiting caller."""
IDLE_SECONDS = 60.0
"""An open model that was not called for so long starts with a ramp again."""
FORGET_SECONDS = 900.0
"""A learned rate is forgotten when the last 429 was so long ago."""

MIN_RATE = 1 / 60
CUT = 0.8
RAMP_CUT = 0.35
"""The factor that a 429 applies to the rate."""
RAISE = 0.01
"""The n-th raise in a row adds n times this share of the rate after the last cut."""
RAISE_CALLS, RAISE_SECONDS = 10, 0.5
SLOW_RAISE_CALLS, SLOW_RAISE_SECONDS = 3, 30.0
"""A raise is due after so many calls and so long a time at the same rate; with fewer calls, after a longer time."""

PAUSE_SECONDS, PAUSE_CALLS = 1.0, 5
"""The pause after a 429 without `Retry-After`; shorter at a learned rate that would have made `PAUSE_CALLS` by then."""
MIN_PAUSE, MAX_PAUSE = 0.1, 3600.0
MAX_CATCH_UP = 2.0
"""The pause is at least as long as the refused call took, up to this: for so long there were too many calls."""
LONGER_PAUSE = 0.25
"""A call in flight extends the pause only if it asks for so many seconds more than the pause that is in force."""
UNKNOWN_SECONDS = 1.0
"""A 429 of a call whose epoch is unknown is taken for an old one if the last cut is younger than this."""

TOKENS_AHEAD_SECONDS = 1.0
"""How much of a configured token limit may be used at once, in seconds' worth of tokens."""
TOUCH_SECONDS = 15.0
"""How often `active_at` is updated for an open model that is in use."""
KEPT_SECONDS = 30 * 86_400.0
"""How long the state of a model that nobody calls is kept."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Totals: calls that were delayed or rejected, calls answered with 429, and how often the circuit opened."""

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
    """What all callers of one model share. The module's docstring explains tickets, phases and epochs.

    `rate` is None while nothing limits the model. `cut_rate` is the rate after the last cut, `raises` the number of
    raises since. No call starts before `held_until`. `tokens_at` is when a configured token limit has paid for all
    admitted calls.
    """

    phase: Phase
    rate: float | None
    burst: int = 1
    epoch: int = 0
    cut_rate: float = 0.0
    raises: int = 0
    turn: float = 0.0
    turn_at: float = 0.0
    tail: float = 0.0
    held_until: float = 0.0
    limited_at: float = 0.0
    active_at: float = 0.0
    tokens_at: float = 0.0
    circuit: Circuit = field(default_factory=Circuit)
    counts: Counts = field(default_factory=Counts)

    def counter(self, now: float) -> float:
        """The number whose turn it is."""
        if self.rate is None:
            return self.tail
        return self.turn + self.rate * max(0.0, now - self.turn_at)

    def time_of(self, number: float) -> float:
        """When the call with this ticket may start, at the current rate."""
        if self.rate is None:
            return self.held_until
        return max(self.held_until, self.turn_at + (number - (self.burst - 1) - self.turn) / self.rate)

    def is_awaited(self, now: float) -> bool:
        """Whether a ticket has been taken that isn't due yet."""
        return self.rate is not None and self.time_of(self.tail - 1) > now

    def as_json(self) -> dict[str, Any]:
        """The state as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "LimitState | None":
        """The state that `as_json` was called on; None if another version of this class wrote it."""
        try:
            circuit = {**values["circuit"], "failed_by": tuple(values["circuit"]["failed_by"])}
            return cls(**{**values, "circuit": Circuit(**circuit), "counts": Counts(**values["counts"])})
        except (KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model's state and its version as a store returned them at `now`; None if there is no state that can be used."""

    state: LimitState | None
    version: int | None
    now: float


@dataclass(frozen=True, slots=True)
class Ticket:
    """A place in the queue, the time before which a configured token limit forbids it, and the tokens it paid for."""

    number: float
    not_before: float
    tokens: int


def begin(now: float, cap: float | None) -> LimitState:
    """The state of a model that was never called. `cap` is the configured rate, if there is one."""
    state = LimitState("ramp", RAMP_RATE, turn_at=now)
    return _open(state, now, cap) if cap is not None else _ramp(state, now, RAMP_BURST)


def settle(state: LimitState, now: float, cap: float | None) -> LimitState:
    """Apply the changes that are due without a 429: raises, the end of a ramp, and what expires with time."""
    if state.phase == "open" and state.rate != cap:
        return _open(state, now, cap)
    if state.phase == "learned" and now - max(state.limited_at, state.held_until) > FORGET_SECONDS:
        return _open(state, now, cap) if cap is not None else _ramp(state, now, RAMP_BURST)
    if state.phase == "open" and cap is None and now - state.active_at > IDLE_SECONDS:
        return _ramp(state, now, RAMP_BURST)
    if state.phase != "open" and state.rate is not None:
        state = _grown(state, state.rate, now, cap)
    return state if now - state.active_at <= TOUCH_SECONDS else replace(state, active_at=now)


def take(state: LimitState, now: float, tokens: int, tokens_per_second: float | None) -> tuple[LimitState, Ticket]:
    """Take the next ticket for a call of about `tokens` tokens."""
    number = max(state.tail, state.counter(now))
    state = replace(state, tail=number + 1, active_at=now)
    if tokens_per_second is None:
        return state, Ticket(number, 0.0, tokens)
    start = max(now, state.time_of(number), state.tokens_at - TOKENS_AHEAD_SECONDS)
    tokens_at = max(start, state.tokens_at) + max(1, tokens) / tokens_per_second
    return replace(state, tokens_at=tokens_at), Ticket(number, start, tokens)


def limited(
    state: LimitState,
    now: float,
    *,
    retry_after: float | None,
    epoch: int | None,
    refused_rate: float | None,
    in_flight: float,
) -> LimitState:
    """Cut the rate after a 429 of a call that was admitted in `epoch` (None: unknown), at the rate `refused_rate`.

    The rate may have risen since the call was admitted, but the provider has refused the lower one. `retry_after` is
    what the provider asked for and `in_flight` how long the call took, in seconds.
    """
    if not _before_outage(state, epoch):
        state = _with_circuit(state, circuit_breaker.answered(state.circuit))
    pause = PAUSE_SECONDS
    if retry_after is not None:
        pause = retry_after
    elif state.phase == "learned" and state.rate is not None:
        pause = min(PAUSE_SECONDS, PAUSE_CALLS / state.rate)
    held_until = now + min(MAX_PAUSE, max(MIN_PAUSE, pause, min(in_flight, MAX_CATCH_UP)))
    stale = now - state.limited_at < UNKNOWN_SECONDS if epoch is None else epoch < state.epoch
    if stale and (retry_after is None or held_until <= state.held_until + LONGER_PAUSE):
        return state
    state = replace(state, limited_at=now, held_until=max(state.held_until, held_until))
    if state.rate is None:  # calls were not counted while nothing limited them, so the search starts again
        return _ramp(replace(state, epoch=state.epoch + 1), now, 1)
    if stale:
        return _moved(state, now)
    rate = min(state.rate, refused_rate or state.rate) * (RAMP_CUT if state.phase == "ramp" else CUT)
    rate = max(MIN_RATE, rate)
    return _moved(state, now, epoch=state.epoch + 1, phase="learned", rate=rate, cut_rate=rate, raises=0, burst=1)


def down(state: LimitState, now: float, *, retry_after: float | None, epoch: int | None, caller: str) -> LimitState:
    """Record a call that found the provider down."""
    if _before_outage(state, epoch):
        return state
    circuit = circuit_breaker.failed(state.circuit, now, caller, retry_after)
    if circuit.is_open and not circuit.probing and circuit is not state.circuit:
        opened = Counts(opened=int(not state.circuit.is_open))
        state = replace(state, epoch=state.epoch + 1, counts=state.counts + opened)
    return _with_circuit(state, circuit)


def answered(state: LimitState, now: float, *, epoch: int | None) -> LimitState:
    """Record a call that the provider answered. After an outage, calls come back through a ramp."""
    if _before_outage(state, epoch):
        return state
    after = _with_circuit(state, circuit_breaker.answered(state.circuit))
    recovered = state.circuit.is_open and not after.circuit.is_open
    return _ramp(after, now, 1) if recovered and state.phase != "learned" else after


def probe(state: LimitState, now: float) -> LimitState:
    """Claim the one call that checks whether the provider is back; unchanged if another caller has claimed it."""
    if not state.circuit.is_open or state.circuit.refusal(now) is not None:
        return state
    return replace(state, epoch=state.epoch + 1, circuit=circuit_breaker.probe(state.circuit, now))


def _grown(state: LimitState, rate: float, now: float, cap: float | None) -> LimitState:
    age, calls = now - state.turn_at, state.counter(now) - state.turn
    waiting = state.is_awaited(now)
    if state.phase == "ramp":
        if waiting and age >= RAMP_SECONDS:
            faster = RAMP_GROWTH * rate
            return _open(state, now, cap) if faster > OPEN_RATE else _moved(state, now, rate=faster)
        return _open(state, now, cap) if age >= RAMP_QUIET_SECONDS and not waiting else state
    due = (calls >= RAISE_CALLS and age >= RAISE_SECONDS) or (calls >= SLOW_RAISE_CALLS and age >= SLOW_RAISE_SECONDS)
    if not waiting or not due:
        return state
    raises = state.raises + 1
    raised = rate + RAISE * raises * state.cut_rate
    return _moved(state, now, rate=raised if cap is None else min(cap, raised), raises=raises)


def _ramp(state: LimitState, now: float, burst: int) -> LimitState:
    return _moved(state, now, phase="ramp", rate=RAMP_RATE, burst=burst, active_at=now)


def _open(state: LimitState, now: float, cap: float | None) -> LimitState:
    """No limit but the configured one, of which one second's worth of calls may start together."""
    return _moved(state, now, phase="open", rate=cap, burst=max(1, int(cap or 1)), active_at=now)


def _moved(state: LimitState, now: float, **changes: Any) -> LimitState:
    """Apply changes of the rate or the pause; the counter continues from where it stands."""
    state = replace(state, turn=state.counter(now), **changes)
    return replace(state, turn_at=max(now, state.held_until))


def _with_circuit(state: LimitState, circuit: Circuit) -> LimitState:
    return state if circuit == state.circuit else replace(state, circuit=circuit)


def _before_outage(state: LimitState, epoch: int | None) -> bool:
    """Whether a call was admitted before the circuit opened or the probe started, so that it proves nothing."""
    return state.circuit.is_open and epoch is not None and epoch < state.epoch
