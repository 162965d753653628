"""What becomes of a model's shared state when something is seen: each function gives the change to make, or None."""

from dataclasses import replace

from backend.core.ratelimit import adaptive_rate
from backend.core.ratelimit import circuit_breaker as breaker
from backend.core.ratelimit.adaptive_rate import Admitted, Pace
from backend.core.ratelimit.circuit_breaker import Circuit
from backend.core.ratelimit.state import Change, LimitState

TOUCH_SECONDS = 15.0
"""How often a model that is in use, and unlimited, is marked so."""


def begun(now: float) -> Change:
    """For a model that nobody has called yet."""
    return Change(adaptive_rate.begin(now, 0), Circuit(), 0.0, now)


def due(state: LimitState, now: float, *, waiting: bool) -> Change | None:
    """For calls that come or go on without a 429; `waiting` tells that they wait for their turns now."""
    served = state.served(now)
    pace = adaptive_rate.wake(state.pace, now, served)
    if pace is state.pace:
        pace = adaptive_rate.advance(pace, now, served, waiting=waiting, unused=state.counter(now) - state.tail)
    if pace is state.pace and now - pace.active_at > TOUCH_SECONDS:
        pace = replace(pace, active_at=now)
    return None if pace is state.pace else _change(state, pace, state.circuit, now)


def limited(
    state: LimitState, now: float, retry_after: float | None, admitted: Admitted | None, local_rate: float
) -> Change | None:
    """For a 429 of a call that was `admitted` so (None: unknown)."""
    pace = adaptive_rate.cut(
        state.pace, now, state.served(now), retry_after=retry_after, admitted=admitted, local_rate=local_rate
    )
    circuit = state.circuit if _from_before(state, admitted) else breaker.answered(state.circuit)
    if pace is state.pace and circuit == state.circuit:
        return None
    return _change(state, pace, circuit, now)


def down(
    state: LimitState, now: float, retry_after: float | None, admitted: Admitted | None, caller: str
) -> Change | None:
    """For a call that found the provider down."""
    if _from_before(state, admitted):
        return None
    circuit = breaker.failed(state.circuit, now, caller, retry_after)
    if circuit is state.circuit:
        return None
    opens = circuit.is_open and not circuit.probing
    pace = replace(state.pace, epoch=state.pace.epoch + 1) if opens else state.pace
    return _change(state, pace, circuit, now)


def answered(state: LimitState, now: float, admitted: Admitted | None) -> Change | None:
    """For a call that the provider answered. After an outage calls come back through a ramp."""
    circuit = state.circuit if _from_before(state, admitted) else breaker.answered(state.circuit)
    if circuit == state.circuit:
        return None
    pace = state.pace
    if state.circuit.is_open and pace.phase != "learned":
        pace = adaptive_rate.begin(now, state.served(now), epoch=pace.epoch, burst=1)
    return _change(state, pace, circuit, now)


def probed(state: LimitState, now: float) -> Change | None:
    """For a call that is to find out whether the provider is back; None: another one does."""
    if not state.circuit.is_open or state.circuit.refusal(now) is not None:
        return None
    pace = replace(state.pace, epoch=state.pace.epoch + 1)
    return _change(state, pace, breaker.probe(state.circuit, now), now)


def _change(state: LimitState, pace: Pace, circuit: Circuit, now: float) -> Change:
    """The counter goes on from where it stands, at the new rate and when nobody is held back any more."""
    return Change(pace, circuit, state.counter(now), max(now, pace.held_until))


def _from_before(state: LimitState, admitted: Admitted | None) -> bool:
    """Whether a call was made before the circuit opened or the probe went, of which it says nothing."""
    return state.circuit.is_open and admitted is not None and admitted.epoch < state.pace.epoch
