"""Schedules, and the times that they were due: their firings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Select, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from backend.core.roles import Visible
from backend.db.rows import Row, all_rows, first_row, one_row
from backend.db.tables import schedule_firings as firings
from backend.db.tables import schedules

Kind = Literal["workflow", "template", "free"]
"""Of a workflow or a template there is one schedule; of free ones there may be any number."""

Outcome = Literal["started", "skipped", "postponed", "failed"]
"""What came of a firing. A `postponed` one is asked for again by its task's next try."""

Order = Literal["id", "created_at", "updated_at", "end_date", "user_id"]


@dataclass(frozen=True, slots=True)
class ScheduleFilter:
    """Which schedules to find; None and empty mappings apply to all. `metadata` and `extra` have to contain these."""

    kind: Kind | None = None
    dag_id: str | None = None
    template: str | None = None
    user_id: str | None = None
    enabled: bool | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def add(connection: Connection, values: Mapping[str, Any]) -> Row:
    """Add a schedule. Raises `IntegrityError` if its workflow or template has one."""
    return one_row(connection.execute(insert(schedules).values(**values).returning(*schedules.c)))


def get(connection: Connection, schedule_id: str) -> Row | None:
    """The schedule with this id."""
    return first_row(connection.execute(select(schedules).where(schedules.c.id == schedule_id)))


def lock(connection: Connection, schedule_id: str) -> Row | None:
    """The schedule with this id, locked until the transaction ends."""
    return first_row(connection.execute(select(schedules).where(schedules.c.id == schedule_id).with_for_update()))


def find_one(connection: Connection, kind: Kind, name: str, *, locked: bool = False) -> Row | None:
    """The schedule of a workflow or a template; `locked` until the transaction ends."""
    column = schedules.c.template if kind == "template" else schedules.c.dag_id
    query = select(schedules).where(schedules.c.kind == kind, column == name)
    return first_row(connection.execute(query.with_for_update() if locked else query))


def change(connection: Connection, schedule_id: str, values: Mapping[str, Any]) -> Row:
    """Change a schedule, which has to be locked."""
    query = update(schedules).where(schedules.c.id == schedule_id)
    return one_row(
        connection.execute(query.values(**values, updated_at=func.clock_timestamp()).returning(*schedules.c))
    )


def stop(connection: Connection, schedule_id: str, reason: str, *, user_id: str) -> bool:
    """Stop a schedule of this user for a reason; returns whether it was not stopped or paused before."""
    now = func.clock_timestamp()
    query = (
        update(schedules)
        .where(schedules.c.id == schedule_id, schedules.c.enabled, schedules.c.user_id == user_id)
        .values(enabled=False, stopped_at=now, stopped_reason=reason, updated_at=now)
        .returning(schedules.c.id)
    )
    return connection.execute(query).first() is not None


def remove(connection: Connection, schedule_id: str) -> None:
    """Delete a schedule and its firings."""
    connection.execute(delete(schedules).where(schedules.c.id == schedule_id))


def search(
    connection: Connection,
    wanted: ScheduleFilter,
    visible: Visible,
    *,
    order_by: Order = "created_at",
    descending: bool = True,
    limit: int,
    offset: int = 0,
) -> list[Row]:
    """The schedules that fit and that the user sees."""
    column = schedules.c[order_by]
    order = column.desc().nulls_last() if descending else column.asc().nulls_last()
    query = _matching(select(schedules), wanted, visible)
    return all_rows(connection.execute(query.order_by(order, schedules.c.id).limit(limit).offset(offset)))


def count(connection: Connection, wanted: ScheduleFilter, visible: Visible) -> int:
    """How many schedules fit and are the user's to see."""
    return int(connection.execute(_matching(select(func.count()), wanted, visible)).scalar_one())


def _matching(query: Select[Any], wanted: ScheduleFilter, visible: Visible) -> Select[Any]:
    query = query.select_from(schedules)
    for name in ("kind", "dag_id", "template", "user_id", "enabled"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(schedules.c[name] == value)
    if wanted.metadata:
        query = query.where(schedules.c.metadata.contains(dict(wanted.metadata)))
    if wanted.extra:
        query = query.where(schedules.c.extra.contains(dict(wanted.extra)))
    if visible.reads is not None:
        query = query.where(schedules.c.dag_id.in_(sorted(visible.reads)))
    if visible.sees is not None:
        own = schedules.c.user_id == visible.username
        query = query.where(or_(own, schedules.c.dag_id.in_(sorted(visible.sees))))
    return query


# Firings


def latest(connection: Connection, schedule_id: str, *, limit: int) -> list[Row]:
    """The latest firings of a schedule, newest first."""
    query = select(firings).where(firings.c.schedule_id == schedule_id)
    return all_rows(connection.execute(query.order_by(firings.c.requested_at.desc(), firings.c.firing).limit(limit)))


def ask(
    connection: Connection, schedule_id: str, firing: str, *, logical_date: datetime | None, assets: list[str]
) -> None:
    """Ask for the run of a firing; again, if an earlier try's request has failed or was postponed.

    Raises `IntegrityError` if the schedule has been deleted.
    """
    values = {"schedule_id": schedule_id, "firing": firing, "logical_date": logical_date, "assets": assets}
    statement = insert(firings).inline().values(**values)
    again = {"requested_at": func.clock_timestamp()} | dict.fromkeys(
        ("claimed_until", "settled_at", "outcome", "detail"), None
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[firings.c.schedule_id, firings.c.firing],
            set_=again,
            where=firings.c.outcome.in_(("postponed", "failed")),
        )
    )


def answer(connection: Connection, schedule_id: str, firing: str) -> Row | None:
    """A firing with its outcome, if it has one yet; None if the schedule has been deleted."""
    query = select(firings).where(firings.c.schedule_id == schedule_id, firings.c.firing == firing)
    return first_row(connection.execute(query))


def claim(connection: Connection, *, limit: int, lease: timedelta) -> list[Row]:
    """Claim firings that were asked for, oldest first, for the duration of the lease."""
    now = func.clock_timestamp()
    due = (
        select(firings.c.schedule_id, firings.c.firing)
        .where(firings.c.outcome.is_(None), or_(firings.c.claimed_until.is_(None), firings.c.claimed_until < now))
        .order_by(firings.c.requested_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    query = (
        update(firings)
        .where(firings.c.schedule_id == due.c.schedule_id, firings.c.firing == due.c.firing)
        .values(claimed_until=now + lease)
        .returning(*firings.c)
    )
    return all_rows(connection.execute(query))


def settle(
    connection: Connection,
    firing: Row,
    outcome: Outcome,
    detail: str | None,
    *,
    dag_id: str | None = None,
    dag_run_id: str | None = None,
) -> None:
    """Record what came of a firing."""
    connection.execute(
        update(firings)
        .where(firings.c.schedule_id == firing["schedule_id"], firings.c.firing == firing["firing"])
        .values(
            outcome=outcome,
            detail=detail,
            settled_at=func.clock_timestamp(),
            claimed_until=None,
            dag_id=dag_id,
            dag_run_id=dag_run_id,
        )
    )


def prune(connection: Connection, *, after: timedelta, limit: int) -> int:
    """Delete firings that were settled longer than this ago; returns how many."""
    old = (
        select(firings.c.schedule_id, firings.c.firing)
        .where(firings.c.settled_at < func.clock_timestamp() - after)
        .limit(limit)
        .cte("old")
    )
    query = delete(firings).where(firings.c.schedule_id == old.c.schedule_id, firings.c.firing == old.c.firing)
    return connection.execute(query).rowcount
