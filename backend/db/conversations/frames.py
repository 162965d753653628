"""What turns stream. `seq` counts within a conversation without gaps, in the order of commits."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from backend.core.turns import Frame

CHANNEL = "visual_ai_frames"
"""The PostgreSQL channel that announces new frames; a payload is `<conversation id> <last seq>`."""

BYTES = 2**20
"""Of the frames of one conversation that are read at a time."""

END = "lifecycle"
"""The mode of the frame that ends a turn, at the root of its graph."""

_APPEND = text(
    """
    WITH taken AS (
        UPDATE visual_ai.conversations
        SET last_seq = last_seq + :count, updated_at = clock_timestamp()
        WHERE id = CAST(:conversation AS uuid)
        RETURNING id, last_seq - :count AS base, last_seq
    ), written AS (
        INSERT INTO visual_ai.conversation_frames (conversation_id, seq, turn_id, mode, namespace, data)
        SELECT taken.id, taken.base + item.position, CAST(:turn AS uuid), item.mode,
            CASE WHEN item.namespace = '' THEN '{}' ELSE string_to_array(item.namespace, '|') END, item.data
        FROM taken, unnest(CAST(:modes AS text[]), CAST(:namespaces AS text[]), CAST(:data AS text[]))
            WITH ORDINALITY AS item (mode, namespace, data, position)
    )
    SELECT last_seq, pg_notify(:channel, id || ' ' || last_seq) FROM taken
    """
)


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A frame with its place in its conversation. `at` is in milliseconds."""

    conversation_id: str
    seq: int
    turn_id: str
    mode: str
    namespace: tuple[str, ...]
    data: str
    at: int


def append(connection: Connection, conversation_id: str, turn_id: str, frames: Sequence[Frame]) -> int:
    """Append frames in order, and wake the feeds when the transaction commits; returns the last `seq`.

    It holds the conversation's row lock until the transaction ends. Raises `LookupError` if the conversation doesn't
    exist any more.
    """
    last = connection.execute(
        _APPEND,
        {
            "conversation": conversation_id,
            "turn": turn_id,
            "count": len(frames),
            "modes": [frame.mode for frame in frames],
            "namespaces": ["|".join(frame.namespace) for frame in frames],
            "data": [frame.data for frame in frames],
            "channel": CHANNEL,
        },
    ).scalar()
    if last is None:
        raise LookupError(f"no conversation {conversation_id}")
    return int(last)


_READ = text(
    """
    SELECT f.conversation_id::text, f.seq, f.turn_id::text, f.mode, f.namespace, f.data,
        (extract(epoch FROM f.created_at) * 1000)::bigint
    FROM unnest(CAST(:ids AS uuid[]), CAST(:seqs AS bigint[])) AS cursor (id, seq)
    CROSS JOIN LATERAL (
        SELECT f.*, sum(octet_length(f.data)) OVER (ORDER BY f.seq) - octet_length(f.data) AS bytes_before
        FROM visual_ai.conversation_frames f
        WHERE f.conversation_id = cursor.id AND f.seq > cursor.seq
        ORDER BY f.seq LIMIT :per_conversation
    ) f
    WHERE f.bytes_before < :bytes
    ORDER BY f.conversation_id, f.seq
    """
)


def read_after(connection: Connection, cursors: dict[str, int], *, per_conversation: int) -> list[StoredFrame]:
    """The frames after each conversation's cursor, in one query: of each at most `per_conversation`, and no more after
    the first `BYTES`. A frame may be a large state."""
    values = {
        "ids": list(cursors),
        "seqs": list(cursors.values()),
        "per_conversation": per_conversation,
        "bytes": BYTES,
    }
    found = connection.execute(_READ, values)
    return [StoredFrame(row[0], row[1], row[2], row[3], tuple(row[4]), row[5], row[6]) for row in found]


_PRUNE = text(
    """
    WITH old AS (
        SELECT c.id, c.last_seq FROM visual_ai.conversations c
        WHERE c.last_seq > c.pruned_seq AND c.updated_at < clock_timestamp() - make_interval(secs => :older_than)
          AND NOT EXISTS (
            SELECT FROM visual_ai.conversation_turns t WHERE t.conversation_id = c.id AND t.ended_at IS NULL)
        ORDER BY c.updated_at LIMIT :limit
        FOR UPDATE OF c SKIP LOCKED
    ), marked AS (
        UPDATE visual_ai.conversations c SET pruned_seq = old.last_seq FROM old WHERE c.id = old.id
    ), deleted AS (
        DELETE FROM visual_ai.conversation_frames f USING old WHERE f.conversation_id = old.id AND f.seq <= old.last_seq
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM old), (SELECT count(*) FROM deleted)
    """
)


def prune(connection: Connection, *, older_than: float, limit: int) -> tuple[int, int]:
    """Delete the frames of at most `limit` conversations in which nothing has happened for `older_than` seconds.

    Returns the number of conversations and of frames. The conversations keep their states.
    """
    conversations, deleted = connection.execute(_PRUNE, {"older_than": older_than, "limit": limit}).one()
    return int(conversations), int(deleted)
