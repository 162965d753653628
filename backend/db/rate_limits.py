"""The limits of models that all processes share: their pace, their circuit breakers and the turns given away.

Each function is a single statement, or none that leaves a lock behind, so that a process that stands still holds up no
other one: run them with `Database.run_autocommit`.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Interval, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from backend.core.ratelimit.adaptive_rate import Pace
from backend.core.ratelimit.circuit_breaker import Circuit
from backend.core.ratelimit.state import KEPT_SECONDS, TOLERANCE_SECONDS, Change, Counts, LimitState, Reservation, Seen
from backend.db.rows import Row, all_rows, first_row
from backend.db.tables import model_limits as limits

_NOW = func.clock_timestamp().label("now")


def read(connection: Connection, model: str) -> Seen:
    """The state of a model."""
    row = first_row(connection.execute(select(limits, _NOW).where(limits.c.model == model)))
    if row is None:
        return Seen(None, connection.execute(select(_NOW)).scalar_one().timestamp())
    return _seen(row)


def read_all(connection: Connection) -> dict[str, Seen]:
    """The state of every model that was called in the last month, by name."""
    recent = limits.c.active_at > func.clock_timestamp() - _seconds(KEPT_SECONDS)
    rows = all_rows(connection.execute(select(limits, _NOW).where(recent).order_by(limits.c.model)))
    return {row["model"]: _seen(row) for row in rows}


def reserve(connection: Connection, model: str, wanted: Reservation, counts: Counts) -> tuple[bool, Seen]:
    """Take turns, if there is still a pace (or none) as wanted and the first of them comes soon enough.

    Gives whether they were taken, and the state afterwards. `counts` are added in any case.
    """
    now = func.statement_timestamp()
    time = func.greatest(now, limits.c.held_until)  # `greatest` leaves out what is null
    values: dict[str, Any] = {"admitted": limits.c.admitted + wanted.calls, "active_at": now}
    if wanted.paced:
        running = func.greatest(0.0, func.extract("epoch", now - limits.c.turn_at))
        turn = func.greatest(limits.c.tail, limits.c.turn + limits.c.rate * running)
        ahead = (turn - limits.c.burst + 1 - limits.c.turn) / limits.c.rate
        time = func.greatest(time, limits.c.turn_at + ahead * _seconds(1))
        values["tail"] = turn + wanted.calls
    if wanted.interval:
        time = func.greatest(time, limits.c.next_request - _seconds(wanted.tolerance))
    if wanted.token_seconds:
        due = limits.c.next_tokens + _seconds(wanted.token_debt)
        time = func.greatest(time, due - _seconds(TOLERANCE_SECONDS))
        values["next_tokens"] = func.greatest(due, time) + _seconds(wanted.token_seconds)
    if wanted.interval:
        used = _seconds(wanted.calls * wanted.interval)
        values["next_request"] = func.greatest(limits.c.next_request, time) + used
    row = first_row(
        connection.execute(
            update(limits)
            .where(
                limits.c.model == model,
                limits.c.rate.is_not(None) if wanted.paced else limits.c.rate.is_(None),
                time <= now + _seconds(wanted.within),
            )
            .values(**values, **_added(counts))
            .returning(limits, _NOW)
        )
    )
    if row is not None:
        return True, _seen(row)
    return False, add(connection, model, counts) if counts else read(connection, model)


def swap(connection: Connection, model: str, version: int | None, change: Change, counts: Counts) -> tuple[bool, Seen]:
    """Put a new pace and circuit in place of those of `version` (None: of none at all).

    Gives whether that was still the version, and the state afterwards. `counts` are added only if so.
    """
    pace, circuit = change.pace, change.circuit
    values: dict[str, Any] = {
        "phase": pace.phase,
        "rate": pace.rate,
        "burst": pace.burst,
        "epoch": pace.epoch,
        "streak": pace.streak,
        "held_until": _time(pace.held_until),
        "limited_at": _time(pace.limited_at),
        "active_at": _time(pace.active_at),
        "changed_at": _time(pace.changed_at),
        "changed_served": pace.changed_served,
        "measured_at": _time(pace.measured_at),
        "measured_served": pace.measured_served,
        "turn": change.turn,
        "turn_at": _time(change.turn_at),
        "failures": circuit.failures,
        "failed_by": list(circuit.failed_by),
        "failed_at": _time(circuit.failed_at),
        "opened_at": _time(circuit.opened_at),
        "open_until": _time(circuit.open_until),
        "open_seconds": circuit.open_seconds,
        "probing": circuit.probing,
    }
    if version is None:
        made = insert(limits).values(model=model, version=1, **values, **_counted(counts)).on_conflict_do_nothing()
        row = first_row(connection.execute(made.returning(limits, _NOW)))
    else:
        changed = update(limits).where(limits.c.model == model, limits.c.version == version)
        row = first_row(
            connection.execute(changed.values(version=version + 1, **values, **_added(counts)).returning(limits, _NOW))
        )
    return (True, _seen(row)) if row is not None else (False, read(connection, model))


def add(connection: Connection, model: str, counts: Counts) -> Seen:
    """Count; gives the state."""
    row = first_row(
        connection.execute(
            update(limits).where(limits.c.model == model).values(**_added(counts)).returning(limits, _NOW)
        )
    )
    return _seen(row) if row is not None else read(connection, model)


def _seen(row: Row) -> Seen:
    pace = Pace(
        row["phase"],
        row["rate"],
        burst=row["burst"],
        epoch=row["epoch"],
        streak=row["streak"],
        held_until=_stamp(row["held_until"]),
        limited_at=_stamp(row["limited_at"]),
        active_at=_stamp(row["active_at"]),
        changed_at=_stamp(row["changed_at"]),
        changed_served=row["changed_served"],
        measured_at=_stamp(row["measured_at"]),
        measured_served=row["measured_served"],
    )
    circuit = Circuit(
        failures=row["failures"],
        failed_by=tuple(row["failed_by"]),
        failed_at=_stamp(row["failed_at"]),
        opened_at=_stamp(row["opened_at"]) or None,
        open_until=_stamp(row["open_until"]),
        open_seconds=row["open_seconds"],
        probing=row["probing"],
    )
    state = LimitState(
        pace,
        circuit,
        version=row["version"],
        turn=row["turn"],
        turn_at=_stamp(row["turn_at"]),
        tail=row["tail"],
        admitted=row["admitted"],
        next_request=_stamp(row["next_request"]),
        next_tokens=_stamp(row["next_tokens"]),
        counts=Counts(row["held_back"], row["rate_limited"], row["opened"]),
    )
    return Seen(state, row["now"].timestamp())


def _counted(counts: Counts) -> dict[str, Any]:
    return {"held_back": counts.held_back, "rate_limited": counts.rate_limited, "opened": counts.opened}


def _added(counts: Counts) -> dict[str, Any]:
    return {name: limits.c[name] + number for name, number in _counted(counts).items()}


def _seconds(seconds: float) -> Any:
    return literal(timedelta(seconds=seconds), Interval)


def _time(moment: float | None) -> datetime | None:
    return datetime.fromtimestamp(moment, UTC) if moment else None


def _stamp(moment: datetime | None) -> float:
    return moment.timestamp() if moment is not None else 0.0
