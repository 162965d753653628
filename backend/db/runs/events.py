"""The event log. Events are appended under the execution's row lock, so the order of `seq` is the order of commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CTE, ColumnElement, Connection, Select, func, insert, literal, select, text

from backend.core.events import CHANNEL, Event, NewEvent
from backend.core.jsonable import dumps
from backend.db.runs.announcements import Announcement, collecting
from backend.db.runs.traces import Place
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
    SELECT last_seq, CASE WHEN :notify THEN pg_notify(:channel, id || ' ' || last_seq) END FROM taken
    """
)
# A finished run has had its `end`, and a superseded try may append nothing. All rows are locked first, in the order in
# which every transaction locks them.
_APPEND_FROM_TRIES = text(
    """
    WITH reported AS MATERIALIZED (
        SELECT execution_id, number, task_id, map_index, try_number, events
        FROM jsonb_to_recordset(CAST(:reported AS jsonb)) AS t (
            execution_id uuid, number integer, task_id text, map_index integer, try_number integer, events jsonb)
    ), locked AS MATERIALIZED (
        SELECT id, state, last_seq FROM visual_ai.workflow_executions
        WHERE id IN (SELECT execution_id FROM reported)
        ORDER BY id FOR NO KEY UPDATE
    ), new AS MATERIALIZED (
        SELECT r.execution_id, r.number, item.value ->> 'type' AS event_type, item.value -> 'payload' AS payload,
            locked.last_seq + row_number() OVER (PARTITION BY locked.id ORDER BY r.number, item.position) AS seq
        FROM reported r
        JOIN locked ON locked.id = r.execution_id AND locked.state IN ('queued', 'running', 'awaiting_input')
        CROSS JOIN jsonb_array_elements(r.events) WITH ORDINALITY AS item (value, position)
        WHERE NOT EXISTS (
            SELECT FROM visual_ai.workflow_tasks t
            WHERE t.execution_id = r.execution_id AND t.task_id = r.task_id AND t.map_index = r.map_index
              AND t.try_number > r.try_number
        )
    ), taken AS (
        UPDATE visual_ai.workflow_executions e
        SET last_seq = appended.last_seq, updated_at = clock_timestamp()
        FROM (SELECT execution_id, max(seq) AS last_seq FROM new GROUP BY execution_id) appended
        WHERE e.id = appended.execution_id
    ), written AS (
        INSERT INTO visual_ai.workflow_events (execution_id, seq, event_type, payload)
        SELECT execution_id, seq, event_type, payload FROM new
    ), announced AS MATERIALIZED (
        SELECT execution_id, CASE WHEN :notify THEN pg_notify(:channel, execution_id || ' ' || max(seq)) END
        FROM new GROUP BY execution_id
    )
    SELECT new.number, min(new.seq) AS first, max(new.seq) AS last
    FROM new JOIN announced USING (execution_id) GROUP BY new.number
    """
)


@dataclass(frozen=True, slots=True)
class TryEvents:
    """Events reported by the task try of a place, in order."""

    execution_id: str
    place: Place
    events: Sequence[NewEvent]


def append(connection: Connection, execution_id: str, new: Sequence[NewEvent]) -> int:
    """Append events in order, and wake the feeds when the transaction commits; returns the last `seq`.

    Don't call it inside a savepoint that may be rolled back, because the feeds would be woken all the same. It holds
    the execution's row lock until the transaction ends, so keep the transaction short. Raises `LookupError` if the
    execution doesn't exist.
    """
    items = dumps(_items(new))
    announcements = collecting(connection)
    values = {"execution_id": execution_id, "count": len(new), "items": items}
    last_seq = connection.execute(_APPEND, {**values, "channel": CHANNEL, "notify": announcements is None}).scalar()
    if last_seq is None:
        raise LookupError(f"no execution {execution_id}")
    if announcements is not None:
        announcements.append(Announcement(execution_id, last_seq - len(new) + 1, last_seq, items))
    return int(last_seq)


def first_of(connection: Connection, made: CTE, event: NewEvent) -> Select[Any]:
    """The statement that creates an execution and its first event, and returns the execution's id.

    `made` is the insert of the execution, which returns its id, with `last_seq` 1.
    """
    first = (
        insert(events)
        .from_select(
            ["execution_id", "seq", "event_type", "payload"],
            select(made.c.id, literal(1), literal(event.type), literal(event.payload, events.c.payload.type)),
        )
        .cte("first")
    )
    columns: list[ColumnElement[Any]] = [made.c.id]
    if collecting(connection) is None:
        columns.append(func.pg_notify(CHANNEL, func.concat(made.c.id, " 1")))
    return select(*columns).add_cte(first)


def announce_first(connection: Connection, execution_id: str, event: NewEvent) -> None:
    """Announce the event that `first_of` has created."""
    announcements = collecting(connection)
    if announcements is not None:
        announcements.append(Announcement(execution_id, 1, 1, dumps(_items([event]))))


def append_from_tries(connection: Connection, entries: Sequence[TryEvents]) -> set[int]:
    """Append events of task tries, of any number of executions; returns the indexes of the entries that were appended.

    Nothing is appended for a finished run, or for a try that a later try of its task has superseded. Entries of the
    same execution are appended in the given order. The rows of all executions are locked in the order of their ids.
    """
    if not entries:
        return set()
    announcements = collecting(connection)
    rows = [
        {
            "number": number,
            "execution_id": one.execution_id,
            "task_id": one.place.task_id,
            "map_index": one.place.map_index,
            "try_number": one.place.try_number,
            "events": _items(one.events),
        }
        for number, one in enumerate(entries)
    ]
    appended = connection.execute(
        _APPEND_FROM_TRIES, {"reported": dumps(rows), "channel": CHANNEL, "notify": announcements is None}
    ).all()
    if announcements is not None:
        for number, first, last in appended:
            one = entries[number]
            announcements.append(Announcement(one.execution_id, first, last, dumps(_items(one.events))))
    return {row.number for row in appended}


def _items(new: Sequence[NewEvent]) -> list[dict[str, Any]]:
    return [{"type": event.type, "payload": event.payload} for event in new]


def read_after(connection: Connection, execution_id: str, seq: int, *, limit: int) -> list[Event]:
    """Up to `limit` events after `seq`, in order."""
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
    """The events after each execution's cursor, at most `per_execution` of each, in one query."""
    values = {"ids": list(cursors), "seqs": list(cursors.values()), "per_execution": per_execution}
    return [Event(*row) for row in connection.execute(_READ_MANY, values)]


_PRUNE = text(
    """
    WITH old AS (
        SELECT id, last_seq - 2 AS last_pruned FROM visual_ai.workflow_executions
        WHERE finished_at < clock_timestamp() - make_interval(secs => :older_than) AND pruned_seq = 0 AND last_seq > 2
        ORDER BY finished_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), marked AS (
        UPDATE visual_ai.workflow_executions e SET pruned_seq = old.last_pruned FROM old WHERE e.id = old.id
    ), deleted AS (
        DELETE FROM visual_ai.workflow_events w USING old
        WHERE w.execution_id = old.id AND w.seq <= old.last_pruned
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM old), (SELECT count(*) FROM deleted)
    """
)


def prune(connection: Connection, *, older_than: float, limit: int) -> tuple[int, int]:
    """Delete the events of at most `limit` runs that ended more than `older_than` seconds ago.

    The last two, the final state and the end, are kept. Returns the number of runs and of events.
    """
    runs, deleted = connection.execute(_PRUNE, {"older_than": older_than, "limit": limit}).one()
    return int(runs), int(deleted)
