"""What is used of limits: counters of what is recorded, and reservations of model calls that aren't recorded yet.

Use is the sum of both. A call reserves what its prompt is expected to use before it is made, replaces that by what it
has used, and its reservation is deleted by the transaction that adds its usage to the counters, so it counts once at
any time. A reservation whose process has died expires.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Date,
    Numeric,
    Text,
    cast,
    delete,
    func,
    literal,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import INTERVAL, insert

from backend.core.jsonable import dumps
from backend.core.limits import Kind, Limit, LimitUse, fold
from backend.core.states import ACTIVE_RUN_STATES
from backend.db.tables import account_roles as roles
from backend.db.tables import dag_teams as teams
from backend.db.tables import images, open_streams, operator_limits
from backend.db.tables import limit_reservations as reservations
from backend.db.tables import limit_usage as usage
from backend.db.tables import run_slots as slots
from backend.db.tables import workflow_executions as executions

RESERVED_SECONDS = 3600
"""How long a reservation stays valid without a sign of life from its try."""

SLOT_SECONDS = 120
"""How long an admitted run may take until it is recorded as active."""

STREAMS_SEEN_SECONDS = 20
"""How long a backend's streams count after its last sign of life."""


@dataclass(frozen=True, slots=True)
class CallReservation:
    """What a model call is expected to use. `id` is that of the call, and `holder` names the try that makes it."""

    id: str
    holder: str
    execution_id: str
    user_id: str
    dag_id: str
    tokens: int
    cost: Decimal


_ADD = text(
    """
    WITH used AS (
        SELECT id, sum(input_tokens + output_tokens) AS tokens, coalesce(sum(cost_usd), 0) AS cost_usd
        FROM jsonb_populate_recordset(CAST(NULL AS visual_ai.workflow_executions), CAST(:rows AS jsonb)) GROUP BY id
    ), done AS (
        DELETE FROM visual_ai.limit_reservations WHERE id = ANY(CAST(:calls AS uuid[]))
        RETURNING execution_id, tokens, cost_usd
    ), settled AS (
        -- Where a server reports no usage, what was estimated is all that is known.
        SELECT execution_id, sum(tokens) AS tokens, sum(cost_usd) AS cost_usd FROM done GROUP BY execution_id
    ), added AS (
        SELECT lower(coalesce(e.user_id, '')) AS user_id, e.dag_id,
            sum(greatest(used.tokens, settled.tokens)) AS tokens,
            sum(greatest(used.cost_usd, settled.cost_usd)) AS cost_usd
        FROM used JOIN visual_ai.workflow_executions e ON e.id = used.id
        LEFT JOIN settled ON settled.execution_id = used.id
        GROUP BY 1, 2
    )
    INSERT INTO visual_ai.limit_usage AS u (period, starts_on, user_id, dag_id, tokens, cost_usd)
    SELECT p.period, date_trunc(p.period, now() AT TIME ZONE 'UTC')::date, user_id, dag_id, tokens, cost_usd
    FROM added CROSS JOIN (VALUES ('day'), ('month')) AS p (period)
    ORDER BY 1, 3, 4
    ON CONFLICT (period, starts_on, user_id, dag_id)
    DO UPDATE SET tokens = u.tokens + excluded.tokens, cost_usd = u.cost_usd + excluded.cost_usd
    """
)


def add(connection: Connection, used: Sequence[Mapping[str, Any]], calls: Iterable[str]) -> None:
    """Add the usage of executions, as `executions.add_usage` takes it, to the counters of their users and DAGs, and
    drop the reservations of the `calls` that it consists of."""
    if used:
        connection.execute(_ADD, {"rows": dumps(used), "calls": list(calls)})


def of_limits(connection: Connection, limits: Sequence[Limit], user: str) -> list[LimitUse]:
    """What is used of these limits now, with their present amounts; without those that are gone meanwhile.

    `user` is the one that limits for each user are about, in any spelling.
    """
    if not limits:
        return []
    known = {limit.id: limit for limit in limits}
    parts = [
        select(
            literal(limit.id, Text).label("id"),
            operator_limits.c.amount,
            cast(_used(limit, fold(user)), Numeric).label("used"),
            func.now().label("now"),
        ).where(operator_limits.c.id == limit.id)
        for limit in known.values()
    ]
    rows = connection.execute(union_all(*parts))
    found = {row.id: row for row in rows}
    return [
        LimitUse(
            Limit(limit.id, limit.subject, limit.kind, limit.period, row.amount),
            Decimal(row.used) if row.used is not None else None,
            row.now,
        )
        for limit in known.values()
        if (row := found.get(limit.id)) is not None
    ]


_LOCK = text(
    "SELECT pg_advisory_xact_lock(hashtextextended('limit ' || id, 0))"
    " FROM unnest(CAST(:ids AS text[])) WITH ORDINALITY AS l (id, place) ORDER BY place"
)


def lock(connection: Connection, limits: Collection[Limit]) -> None:
    """Let nobody else check these limits until the transaction ends."""
    # Always in the same order, so that no two wait for each other.
    connection.execute(_LOCK, {"ids": sorted(limit.id for limit in limits)})


def reserve(connection: Connection, limits: Sequence[Limit], call: CallReservation) -> LimitUse | None:
    """Reserve what a call is expected to use, if all limits permit it. Otherwise returns the limit that doesn't."""
    lock(connection, limits)
    for use in of_limits(connection, limits, call.user_id):
        asked = Decimal(call.tokens) if use.limit.kind == "tokens" else call.cost
        if use.used_up or (use.used or 0) + asked > use.limit.amount:
            return use
    values = {
        "id": call.id,
        "holder": call.holder,
        "execution_id": call.execution_id,
        "user_id": fold(call.user_id),
        "dag_id": call.dag_id,
        "tokens": call.tokens,
        "cost_usd": call.cost,
        "expires_at": _in(RESERVED_SECONDS),
    }
    connection.execute(insert(reservations).values(values).on_conflict_do_nothing())
    return None


_SETTLE = text(
    """
    UPDATE visual_ai.limit_reservations
    SET expires_at = now() + make_interval(secs => :seconds),
        tokens = CASE id WHEN CAST(:id AS uuid) THEN :tokens ELSE tokens END,
        cost_usd = CASE id WHEN CAST(:id AS uuid) THEN :cost ELSE cost_usd END
    WHERE holder = :holder
    """
)


def settle(connection: Connection, call_id: str, holder: str, tokens: int, cost: Decimal) -> None:
    """Replace what a call was expected to use by what it has used, until that is recorded."""
    values = {"id": call_id, "holder": holder, "tokens": tokens, "cost": cost, "seconds": RESERVED_SECONDS}
    connection.execute(_SETTLE, values)


def release(connection: Connection, call_id: str) -> None:
    """Drop the reservation of a call that used nothing."""
    connection.execute(delete(reservations).where(reservations.c.id == call_id))


def take_slot(
    connection: Connection, limits: Sequence[Limit], execution_id: str, user: str, dag_id: str
) -> LimitUse | None:
    """Admit a run that is about to start, if all limits of runs at once permit it. Otherwise returns the one that
    doesn't. A run that is admitted already, or active, is admitted again."""
    lock(connection, limits)
    active = executions.c.state.in_(sorted(ACTIVE_RUN_STATES))
    connection.execute(delete(slots).where(slots.c.expires_at <= func.now()))
    known = select(slots.c.execution_id).where(slots.c.execution_id == execution_id)
    running = select(executions.c.id).where(executions.c.id == execution_id, active)
    if connection.execute(union_all(known, running)).first() is not None:
        return None
    for use in of_limits(connection, limits, user):
        if use.used_up:
            return use
    values = {"execution_id": execution_id, "user_id": fold(user), "dag_id": dag_id, "expires_at": _in(SLOT_SECONDS)}
    connection.execute(insert(slots).values(values).on_conflict_do_nothing())
    return None


def free_slot(connection: Connection, execution_id: str) -> None:
    """The run was recorded as active, or has not started."""
    connection.execute(delete(slots).where(slots.c.execution_id == execution_id))


def forget(connection: Connection) -> None:
    """Delete what has expired, and counters of days that ended more than two months ago."""
    connection.execute(delete(reservations).where(reservations.c.expires_at <= func.now()))
    old = func.now() - cast("62 days", INTERVAL)
    connection.execute(delete(usage).where(usage.c.period == "day", usage.c.starts_on < old))


def _used(limit: Limit, user: str) -> ColumnElement[Any]:
    kind: Kind = limit.kind
    if kind == "runs_at_once":
        owner = func.lower(executions.c.user_id)
        active = executions.c.state.in_(sorted(ACTIVE_RUN_STATES))
        running = select(func.count()).where(active, *_whose(limit, user, owner, executions.c.dag_id))
        recorded = select(executions.c.id).where(executions.c.id == slots.c.execution_id, active).exists()
        starting = select(func.count()).where(
            slots.c.expires_at > func.now(), ~recorded, *_whose(limit, user, slots.c.user_id, slots.c.dag_id)
        )
        return running.scalar_subquery() + starting.scalar_subquery()
    if kind == "upload_bytes":
        stored = func.coalesce(func.sum(func.octet_length(images.c.content)), 0)
        owner = func.lower(images.c.user_id)
        return select(stored).where(*_whose(limit, user, owner, None)).scalar_subquery()
    if kind == "streams":
        seen = func.now() - cast(f"{STREAMS_SEEN_SECONDS} seconds", INTERVAL)
        total = func.coalesce(func.sum(open_streams.c.streams), 0)
        return select(total).where(open_streams.c.user_id == user, open_streams.c.seen_at > seen).scalar_subquery()
    if kind == "batch_size":
        return literal(None, Numeric)
    counted, reserved = usage.c[kind], reservations.c[kind]
    starts_on = cast(func.date_trunc(limit.period, func.timezone("UTC", func.now())), Date)
    recorded_use = select(func.coalesce(func.sum(counted), 0)).where(
        usage.c.period == limit.period,
        usage.c.starts_on == starts_on,
        *_whose(limit, user, usage.c.user_id, usage.c.dag_id),
    )
    reserved_use = select(func.coalesce(func.sum(reserved), 0)).where(
        reservations.c.expires_at > func.now(), *_whose(limit, user, reservations.c.user_id, reservations.c.dag_id)
    )
    return recorded_use.scalar_subquery() + reserved_use.scalar_subquery()


def _whose(
    limit: Limit, user: str, owner: ColumnElement[Any], dag_id: ColumnElement[Any] | None
) -> list[ColumnElement[bool]]:
    subject = limit.subject
    if subject.type == "each_user":
        return [owner == user]
    if subject.type == "user":
        return [owner == subject.name]
    if subject.type == "role":
        return [owner.in_(select(roles.c.user_id).where(roles.c.role == subject.name))]
    if subject.type == "team" and dag_id is not None:
        return [dag_id.in_(select(teams.c.dag_id).where(teams.c.team == subject.name))]
    return []


def _in(seconds: int) -> ColumnElement[Any]:
    return func.now() + cast(f"{seconds} seconds", INTERVAL)
