"""How fast a model may be called: found out from the 429s that all callers of a model meet together.

A model's pace goes through three phases:

- `ramp`: nothing is known. A few calls at once, then a rate that rises several times a second while callers wait for
  it, as TCP begins: the first 429 comes while only a few calls are on their way.
- `open`: the ramp met no limit. Nobody waits.
- `learned`: a 429 came. Between two of them, with callers waiting all the time, as many calls were answered as the
  provider allows: that is the rate, a little less at first, then rising by small steps that grow until the next 429.
  Steps are counted in calls, so that the part of them that is refused is the same at three a minute and at hundreds
  a second.

Everything here is a function of a pace and a time. Times are seconds of the clock that all callers share; rates are
calls a second; `served` is the number of calls that have had their turn.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

Phase = Literal["ramp", "open", "learned"]

RAMP_RATE = 40.0
RAMP_BURST = 5
RAMP_STEP = 0.2
RAMP_GROWTH = 1.3
"""A ramp that keeps callers waiting rises so much after so many seconds."""
OPEN_RATE = 1000.0
"""A ramp that gets past this rate has met no limit."""
RAMP_QUIET = 2.0
"""Seconds without a waiting caller after which a ramp is over."""
IDLE_SECONDS = 60.0
"""After so long without a call an open model begins with a ramp again."""
FORGET_SECONDS = 900.0
"""So long after the last 429 a learned rate is forgotten."""

MIN_RATE = 1 / 60
HEADROOM = 0.9
"""What is left free of the rate that was measured."""
CUT = 0.85
CUT_AGAIN = 0.7
RAMP_CUT = 0.5
"""What a 429 leaves of the rate at most: after it had risen, before it had risen since the last cut, and in a ramp."""
MEASURED_CALLS, MEASURED_SECONDS = 10, 1.0
MEASURED_LEAST, GUESSED_LEAST = 0.1, 0.5
"""What it leaves at least: when so many calls or seconds were measured, and when fewer were."""
GROW_CALLS, GROW_SECONDS = 10, 0.5
GROW_FEW_CALLS, GROW_MANY_SECONDS = 3, 30.0
"""A rate rises after so many calls at it, but not faster than 429s come back; or after fewer in a long time."""
GROWTH = 0.03
GROWTH_OF_GROWTH = 1.2
MAX_GROWTH = 0.25
CLIMB = 4
"""After so many rises in a row the mean rate since the last 429 says little of the present one."""
HOLD_SECONDS, HOLD_CALLS = 1.0, 5
"""For how long nobody calls after a 429 that doesn't say; or for the time of so many calls at a learned rate."""
LEAST_HOLD, MAX_UNDER_WAY = 0.1, 2.0
"""For how long after any 429, and at most for as long as it was under way: the other calls must come to their ends."""
LONGER_HOLD = 0.25
"""By how many seconds a call that was under way must be told to wait longer than the others to hold up all."""
MAX_HOLD = 3600.0
"""No word of a provider holds everybody back for longer: then one call asks again."""
UNKNOWN_GRACE = 1.0
"""A 429 whose call isn't known is news when the pace is so old; a younger pace is the answer to it already."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What is known of a model's limit.

    `rate` is None while nothing limits; `burst` calls may go at once when nobody called for a while. `epoch` counts the
    cuts: a 429 of a call that was admitted before the last one says nothing new. `streak` counts the rises since.
    `changed_*` are of the last change of the rate, `measured_*` of the beginning of the present measurement, which is
    none (0.0) when calls have not been waiting all the time.
    """

    phase: Phase
    rate: float | None
    burst: int = 1
    epoch: int = 0
    streak: int = 0
    held_until: float = 0.0
    limited_at: float = 0.0
    active_at: float = 0.0
    changed_at: float = 0.0
    changed_served: int = 0
    measured_at: float = 0.0
    measured_served: int = 0


@dataclass(frozen=True, slots=True)
class Admitted:
    """How things stood when a call was admitted."""

    epoch: int
    at: float
    served: int
    rate: float | None


def begin(now: float, served: int, *, epoch: int = 0, burst: int = RAMP_BURST, rate: float = 0.0) -> Pace:
    """The pace of a model that nothing is known of, but perhaps that there was such a rate."""
    return Pace(
        "ramp",
        max(RAMP_RATE, rate),
        burst=burst,
        epoch=epoch,
        active_at=now,
        changed_at=now,
        changed_served=served,
        measured_at=now,
        measured_served=served,
    )


def wake(pace: Pace, now: float, served: int) -> Pace:
    """The pace for a call that comes now, perhaps after a long time without any."""
    if pace.phase == "learned" and now - max(pace.limited_at, pace.held_until) > FORGET_SECONDS:
        return begin(now, served, epoch=pace.epoch)
    if pace.phase == "open" and now - pace.active_at > IDLE_SECONDS:
        return begin(now, served, epoch=pace.epoch)
    return pace


def advance(pace: Pace, now: float, served: int, *, waiting: bool, unused: float) -> Pace:
    """The pace after calls that met no 429; the same one when nothing is due.

    `waiting` tells that callers wait for their turns now, `unused` how many turns went by that nobody wanted.
    """
    if pace.rate is None:
        return pace
    age = now - pace.changed_at
    if pace.phase == "ramp":
        if waiting and age >= RAMP_STEP:
            rate = RAMP_GROWTH * pace.rate
            return _open(pace, now) if rate > OPEN_RATE else _changed(pace, rate, now, served)
        return _open(pace, now) if age >= RAMP_QUIET else pace
    if not waiting:
        idle = unused > max(2.0, pace.rate * GROW_SECONDS)
        return replace(pace, measured_at=0.0) if idle and pace.measured_at else pace
    calls = served - pace.changed_served
    if (calls >= GROW_CALLS and age >= GROW_SECONDS) or (calls >= GROW_FEW_CALLS and age >= GROW_MANY_SECONDS):
        growth = min(MAX_GROWTH, GROWTH * GROWTH_OF_GROWTH**pace.streak)
        return replace(_changed(pace, pace.rate * (1 + growth), now, served), streak=pace.streak + 1)
    return pace


def cut(
    pace: Pace, now: float, served: int, *, retry_after: float | None, admitted: Admitted | None, local_rate: float
) -> Pace:
    """The pace after a 429 of a call that was `admitted` so (None: unknown).

    One that was admitted before the last cut changes nothing but the time until which nobody calls. `local_rate` is
    that of the process that met it: all that is known of a model that was open.
    """
    under_way = min(MAX_UNDER_WAY, now - admitted.at) if admitted is not None else 0.0
    asked_hold = _unasked_hold(pace) if retry_after is None else retry_after
    hold = min(MAX_HOLD, max(LEAST_HOLD, under_way, asked_hold))
    stale = now - pace.limited_at < UNKNOWN_GRACE if admitted is None else admitted.epoch < pace.epoch
    if stale:
        asked = now + hold if retry_after is not None else 0.0
        longer = asked > pace.held_until + LONGER_HOLD
        return replace(pace, held_until=asked, limited_at=now) if longer else pace
    held = max(pace.held_until, now + hold)
    # A provider that asks for a pause counts it in; the one that we add passes without a call that was allowed.
    measured_at = now + hold - min(hold, retry_after or 0.0)
    if pace.rate is None:
        again = begin(now, served, epoch=pace.epoch + 1, burst=1, rate=local_rate * RAMP_CUT)
        return replace(again, held_until=held, limited_at=now)
    return Pace(
        "learned",
        max(MIN_RATE, _rate_left(pace, admitted or Admitted(pace.epoch, now, served, pace.rate))),
        epoch=pace.epoch + 1,
        held_until=held,
        limited_at=now,
        active_at=now,
        changed_at=now,
        changed_served=served,
        measured_at=measured_at,
        measured_served=served,
    )


def _unasked_hold(pace: Pace) -> float:
    if pace.phase != "learned" or pace.rate is None:
        return HOLD_SECONDS
    return min(HOLD_SECONDS, HOLD_CALLS / pace.rate)


def _rate_left(pace: Pace, refused: Admitted) -> float:
    """What is left of the rate. All that was admitted after the first one that was refused was too much as well."""
    rate = min(refused.rate or math.inf, pace.rate or math.inf)
    risen = CUT if pace.streak else CUT_AGAIN
    most = rate * (RAMP_CUT if pace.phase == "ramp" else risen)
    if not pace.measured_at or refused.at <= pace.measured_at:
        return most
    calls, seconds = refused.served - pace.measured_served, refused.at - pace.measured_at
    measured = max(0, calls) / seconds
    if pace.streak >= CLIMB:
        measured = math.sqrt(measured * rate)
    least = MEASURED_LEAST if calls >= MEASURED_CALLS or seconds >= MEASURED_SECONDS else GUESSED_LEAST
    return min(most, max(measured * HEADROOM, rate * least))


def _changed(pace: Pace, rate: float, now: float, served: int) -> Pace:
    return replace(pace, rate=rate, changed_at=now, changed_served=served)


def _open(pace: Pace, now: float) -> Pace:
    return replace(pace, phase="open", rate=None, changed_at=now)
