"""The event log: appended under the execution's row lock, so that order of `seq` is order of commit."""

from collections.abc import Sequence

from sqlalchemy import Connection, select, text

from backend.core.events import CHANNEL, Event, NewEvent
from backend.core.jsonable import dumps
from backend.db.tables import workflow_events as events

_APPEND = text(
    """
    WITH taken AS (
        UPDATE visual_ai.workflow_executions
        SET last_seq = last_seq + :count, updated_at = clock_timestamp()
        WHERE id = :execution_id
        RETURNING id, last_seq - :count AS base, last_seq
    ), written AS (
        INSERT INTO visual_ai.workflow_events (execution_id, seq, event_type, payload)
        SELECT taken.id, taken.base + item.position, item.value ->> 'type', item.value -> 'payload'
        FROM taken, jsonb_array_elements(CAST(:items AS jsonb)) WITH ORDINALITY AS item (value, position)
    )
    SELECT last_seq, pg_notify(:channel, id || ' ' || last_seq) FROM taken
    """
)


def append(connection: Connection, execution_id: str, new: Sequence[NewEvent]) -> int:
    """Append events in order and wake the feeds when the transaction commits; gives the last `seq`.

    Holds the execution's row lock until the transaction ends, so keep the transaction short.
    Raises `LookupError` when there is no such execution.
    """
    items = dumps([{"type": event.type, "payload": event.payload} for event in new])
    row = connection.execute(
        _APPEND,
        {
            "execution_id": execution_id,
            "count": len(new),
            "items": items,
            "channel": CHANNEL,
        },
    ).first()
    if row is None:
        raise LookupError(f"no execution {execution_id}")
    return int(row.last_seq)


def read_after(connection: Connection, execution_id: str, seq: int, *, limit: int) -> list[Event]:
    """Up to `limit` events that follow `seq`, in order."""
    query = (
        select(events.c.execution_id, events.c.seq, events.c.event_type, events.c.payload)
        .where(events.c.execution_id == execution_id, events.c.seq > seq)
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [Event(*row) for row in connection.execute(query)]


_READ_MANY = text(
    """
    SELECT e.execution_id::text, e.seq, e.event_type, e.payload
    FROM unnest(CAST(:ids AS uuid[]), CAST(:seqs AS bigint[])) AS cursor (id, seq)
    CROSS JOIN LATERAL (
        SELECT * FROM visual_ai.workflow_events w
        WHERE w.execution_id = cursor.id AND w.seq > cursor.seq
        ORDER BY w.seq LIMIT :per_execution
    ) e
    ORDER BY e.execution_id, e.seq
    """
)


def read_many_after(connection: Connection, cursors: dict[str, int], *, per_execution: int) -> list[Event]:
    """What follows each execution's cursor, at most `per_execution` events of each, in one query."""
    rows = connection.execute(
        _READ_MANY,
        {"ids": list(cursors), "seqs": list(cursors.values()), "per_execution": per_execution},
    )
    return [Event(*row) for row in rows]


def last_of_types(connection: Connection, execution_id: str, types: Sequence[str]) -> Event | None:
    """The newest event of one of the types."""
    query = (
        select(events.c.execution_id, events.c.seq, events.c.event_type, events.c.payload)
        .where(events.c.execution_id == execution_id, events.c.event_type.in_(types))
        .order_by(events.c.seq.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return Event(*row) if row else None
