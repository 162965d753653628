"""The states of conversations: LangGraph's checkpoints, with what it says of them while the graph runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from backend.core.jsonable import dumps
from backend.db.rows import Row, all_rows

_WRITE = text(
    """
    INSERT INTO visual_ai.conversation_states (conversation_id, checkpoint_ns, checkpoint_id, next, tasks)
    SELECT CAST(:conversation AS uuid), checkpoint_ns, checkpoint_id, next, tasks
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS t (
        checkpoint_ns text, checkpoint_id text, next text[], tasks jsonb)
    ON CONFLICT (conversation_id, checkpoint_ns, checkpoint_id) DO UPDATE SET
        next = excluded.next, tasks = excluded.tasks
    """
)


@dataclass(frozen=True, slots=True)
class NewState:
    """What LangGraph says of a checkpoint: the nodes that come `next`, and their `tasks`."""

    checkpoint_ns: str
    checkpoint_id: str
    next: Sequence[str]
    tasks: Sequence[Mapping[str, Any]]


def write(connection: Connection, conversation_id: str, states: Sequence[NewState]) -> None:
    """Record what is known of checkpoints; of each, what is said last."""
    latest = {(one.checkpoint_ns, one.checkpoint_id): one for one in states}
    rows = [
        {"checkpoint_ns": ns, "checkpoint_id": key, "next": [*one.next], "tasks": [*one.tasks]}
        for (ns, key), one in latest.items()
    ]
    connection.execute(_WRITE, {"conversation": conversation_id, "rows": dumps(rows)})
    connection.execute(_TOUCH, {"conversation": conversation_id})


_TOUCH = text(
    "UPDATE visual_ai.conversations SET state_updated_at = clock_timestamp() WHERE id = CAST(:conversation AS uuid)"
)

# The inline values of a checkpoint stand in its JSON, all others are blobs of the versions that it names.
_PAGE = text(
    """
    WITH page AS (
        SELECT c.* FROM visual_ai.checkpoints c
        WHERE c.thread_id = :thread AND c.checkpoint_ns = :ns
          AND (CAST(:only AS text) IS NULL OR c.checkpoint_id = :only)
          AND (CAST(:last AS text) IS NULL OR c.checkpoint_id <= :last)
          AND (CAST(:before AS text) IS NULL OR c.checkpoint_id < :before)
          AND (CAST(:first AS text) IS NULL OR c.checkpoint_id >= :first)
          AND c.metadata @> CAST(:metadata AS jsonb)
          AND NOT EXISTS (
            SELECT FROM visual_ai.conversation_turns t
            WHERE t.conversation_id = CAST(:conversation AS uuid) AND t.rolled_back
              AND t.id::text = c.metadata ->> 'run_id')
        ORDER BY c.checkpoint_id DESC LIMIT :limit
    )
    SELECT c.checkpoint_id, c.checkpoint_ns, c.parent_checkpoint_id, c.metadata, c.checkpoint ->> 'ts' AS created_at,
        c.checkpoint -> 'channel_values' AS inline, s.next, s.tasks,
        (SELECT json_agg(json_build_array(b.channel, b.type, encode(b.blob, 'base64')))
         FROM jsonb_each_text(c.checkpoint -> 'channel_versions') v (channel, version)
         JOIN visual_ai.checkpoint_blobs b ON b.thread_id = c.thread_id AND b.checkpoint_ns = c.checkpoint_ns
            AND b.channel = v.channel AND b.version = v.version) AS blobs
    FROM page c
    LEFT JOIN visual_ai.conversation_states s ON s.conversation_id = CAST(:conversation AS uuid)
        AND s.checkpoint_ns = c.checkpoint_ns AND s.checkpoint_id = c.checkpoint_id
    ORDER BY c.checkpoint_id DESC
    """
)


@dataclass(frozen=True, slots=True)
class StateQuery:
    """Which states of a conversation: of the graph or a subgraph, up to `last`, before `before`, from `first` on, or
    only one, whose metadata contain `metadata`; newest first."""

    conversation_id: str
    namespace: str = ""
    only: str | None = None
    last: str | None = None
    before: str | None = None
    first: str | None = None
    metadata: Mapping[str, Any] | None = None
    limit: int = 1


def read(connection: Connection, query: StateQuery) -> list[Row]:
    """Checkpoints with their values as they are stored, and what is known of them. Those of turns that were rolled back
    are left out."""
    values = {
        "thread": query.conversation_id,
        "conversation": query.conversation_id,
        "ns": query.namespace,
        "only": query.only,
        "last": query.last,
        "before": query.before,
        "first": query.first,
        "metadata": dumps(dict(query.metadata or {})),
        "limit": query.limit,
    }
    return all_rows(connection.execute(_PAGE, values))


_ROLL_BACK = (
    """
    DELETE FROM visual_ai.checkpoints
    WHERE thread_id = :thread AND metadata ->> 'run_id' = ANY(:turns)
    """,
    """
    DELETE FROM visual_ai.checkpoint_writes w
    WHERE w.thread_id = :thread AND NOT EXISTS (
        SELECT FROM visual_ai.checkpoints c
        WHERE c.thread_id = w.thread_id AND c.checkpoint_ns = w.checkpoint_ns AND c.checkpoint_id = w.checkpoint_id)
    """,
)


def roll_back(connection: Connection, conversation_id: str, turns: Sequence[str]) -> None:
    """Delete the checkpoints that these turns have written."""
    for statement in _ROLL_BACK:
        connection.execute(text(statement), {"thread": conversation_id, "turns": list(turns)})
