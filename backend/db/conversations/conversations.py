"""Conversations, as LangGraph's protocol shows them: who has which, and what they are doing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from backend.core.jsonable import dumps
from backend.core.roles import Visible
from backend.db.rows import Row, all_rows, first_row

# A turn whose run has ended is over, whatever it says of itself; one whose run was never started is given up.
_OPEN = """
    t.ended_at IS NULL AND coalesce(
        e.state IN ('queued', 'running', 'awaiting_input'), t.created_at > clock_timestamp() - interval '2 minutes')
"""
_KEPT = "SELECT * FROM visual_ai.conversations c WHERE c.deleted_at IS NULL"


def _shown(chosen: str) -> str:
    """A query of what is shown of the chosen conversations: their status costs a look at the turns of each."""
    return f"""
    SELECT c.id::text, c.user_id, c.dag_id, c.graph_id, c.metadata, c.config, c.last_seq, c.pruned_seq,
        c.copied_from::text, c.copied_checkpoint, c.shown_from, c.created_at, c.updated_at,
        coalesce(c.state_updated_at, c.updated_at) AS state_updated_at,
        CASE WHEN latest.state IS NULL THEN 'idle'
             WHEN latest.busy AND latest.state = 'paused' THEN 'interrupted'
             WHEN latest.busy THEN 'busy'
             WHEN latest.state = 'error' THEN 'error'
             ELSE 'idle' END AS status
    FROM ({chosen}) c
    LEFT JOIN LATERAL (
        SELECT t.state, {_OPEN} AS busy
        FROM visual_ai.conversation_turns t LEFT JOIN visual_ai.workflow_executions e ON e.id = t.execution_id
        WHERE t.conversation_id = c.id AND NOT t.rolled_back
        ORDER BY ({_OPEN}) AND t.state <> 'paused' DESC, t.number DESC LIMIT 1
    ) latest ON true
    """  # noqa: S608  # constant parts


_VISIBLE = """
    AND (c.user_id = :username AND (CAST(:reads AS text[]) IS NULL OR c.dag_id IS NULL OR c.dag_id = ANY(:reads))
         OR (CAST(:sees AS text[]) IS NULL AND :sees_all) OR c.dag_id = ANY(:sees))
"""
_GET = text(_shown(f"{_KEPT} AND c.id = CAST(:id AS uuid)"))

SORTED_BY = {
    "thread_id": "id",
    "status": "status",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "state_updated_at": "coalesce(state_updated_at, updated_at)",
}
"""The names by which clients sort, and our columns."""


@dataclass(frozen=True, slots=True)
class Search:
    """Which conversations: those with these ids, metadata and status."""

    metadata: Mapping[str, Any]
    ids: Sequence[str] | None = None
    status: str | None = None
    sort_by: str = "created_at"
    descending: bool = True
    limit: int = 10
    offset: int = 0


_CHOSEN = f"""
    {_KEPT} {_VISIBLE} AND NOT c.temporary AND c.metadata @> CAST(:metadata AS jsonb)
        AND (CAST(:ids AS uuid[]) IS NULL OR c.id = ANY(CAST(:ids AS uuid[])))
"""
_UNDER_WAY = "AND c.id IN (SELECT conversation_id FROM visual_ai.conversation_turns WHERE ended_at IS NULL)"


def _of_status(status: str) -> str:
    """A query of the chosen conversations of a status: few are under way, of all others each has to be looked at."""
    chosen = f"{_CHOSEN} {_UNDER_WAY}" if status in ("busy", "interrupted") else _CHOSEN
    return f"SELECT * FROM ({_shown(chosen)}) found WHERE status = :status"  # noqa: S608  # constant parts


def _values(search: Search, visible: Visible) -> dict[str, Any]:
    return {
        "metadata": dumps(dict(search.metadata)),
        "ids": None if search.ids is None else list(search.ids),
        "status": search.status,
        **rights(visible),
    }


def rights(visible: Visible) -> dict[str, Any]:
    """The parameters that say which conversations a user sees."""
    return {
        "username": visible.username,
        "reads": None if visible.reads is None else sorted(visible.reads),
        "sees": None if visible.sees is None else sorted(visible.sees),
        "sees_all": visible.sees is None,
    }


def search(connection: Connection, wanted: Search, visible: Visible) -> list[Row]:
    """The conversations that the user sees, in order."""
    order = f"ORDER BY {SORTED_BY[wanted.sort_by]} {'DESC' if wanted.descending else 'ASC'}, id"
    page = f"{order} LIMIT :limit OFFSET :offset"
    if wanted.status is not None:
        query = f"{_of_status(wanted.status)} {page}"
    elif wanted.sort_by == "status":
        query = f"SELECT * FROM ({_shown(_CHOSEN)}) found {page}"  # noqa: S608  # constant parts
    else:  # the page first, and then what is shown of its conversations
        query = f"SELECT * FROM ({_shown(f'SELECT * FROM ({_CHOSEN}) c {page}')}) found {order}"  # noqa: S608
    values = {**_values(wanted, visible), "limit": wanted.limit, "offset": wanted.offset}
    return all_rows(connection.execute(text(query), values))


def count(connection: Connection, wanted: Search, visible: Visible) -> int:
    """How many conversations there are that the user sees."""
    chosen = _CHOSEN if wanted.status is None else _of_status(wanted.status)
    query = text(f"SELECT count(*) FROM ({chosen}) counted")  # noqa: S608  # constant parts
    return int(connection.execute(query, _values(wanted, visible)).scalar_one())


def get(connection: Connection, conversation_id: str) -> Row | None:
    """A conversation."""
    return first_row(connection.execute(_GET, {"id": conversation_id}))


_CREATE = text(
    """
    INSERT INTO visual_ai.conversations (
        id, user_id, dag_id, graph_id, metadata, temporary, expires_at, copied_from, copied_checkpoint)
    VALUES (CAST(:id AS uuid), :user, :dag_id, :graph_id, CAST(:metadata AS jsonb), :temporary, :expires_at,
        CAST(:copied_from AS uuid), :copied_checkpoint)
    ON CONFLICT (id) DO NOTHING
    """
)


def create(
    connection: Connection,
    conversation_id: str,
    *,
    user: str,
    metadata: Mapping[str, Any],
    temporary: bool = False,
    expires_at: datetime | None = None,
    copied_from: str | None = None,
    copied_checkpoint: str | None = None,
    dag_id: str | None = None,
    graph_id: str | None = None,
) -> bool:
    """Make a conversation; returns False if there is one with this id."""
    values = {
        "id": conversation_id,
        "user": user,
        "dag_id": dag_id,
        "graph_id": graph_id,
        "metadata": dumps(dict(metadata)),
        "temporary": temporary,
        "expires_at": expires_at,
        "copied_from": copied_from,
        "copied_checkpoint": copied_checkpoint,
    }
    return connection.execute(_CREATE, values).rowcount > 0


_UPDATE = text(
    """
    UPDATE visual_ai.conversations
    SET metadata = metadata || CAST(:metadata AS jsonb), updated_at = clock_timestamp(),
        config = coalesce(CAST(:config AS jsonb), config), dag_id = coalesce(:dag_id, dag_id),
        graph_id = coalesce(:graph_id, graph_id),
        expires_at = CASE WHEN :expires THEN CAST(:expires_at AS timestamptz) ELSE expires_at END
    WHERE id = CAST(:id AS uuid) AND deleted_at IS NULL
    """
)


def update(
    connection: Connection,
    conversation_id: str,
    *,
    metadata: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    dag_id: str | None = None,
    graph_id: str | None = None,
    expires: bool = False,
    expires_at: datetime | None = None,
) -> bool:
    """Add to a conversation's metadata, and set what is given; returns whether there is such a conversation."""
    values = {
        "id": conversation_id,
        "metadata": dumps(dict(metadata)),
        "config": None if config is None else dumps(dict(config)),
        "dag_id": dag_id,
        "graph_id": graph_id,
        "expires": expires,
        "expires_at": expires_at,
    }
    return connection.execute(_UPDATE, values).rowcount > 0


_DELETE = text(
    """
    UPDATE visual_ai.conversations SET deleted_at = clock_timestamp(), metadata = '{}', config = '{}'
    WHERE id = CAST(:id AS uuid) AND deleted_at IS NULL
    """
)
_FORGET = (
    "DELETE FROM visual_ai.conversation_frames WHERE conversation_id = CAST(:id AS uuid)",
    "DELETE FROM visual_ai.conversation_states WHERE conversation_id = CAST(:id AS uuid)",
    "DELETE FROM visual_ai.conversation_turns WHERE conversation_id = CAST(:id AS uuid)",
)


def delete(connection: Connection, conversation_id: str) -> bool:
    """Delete a conversation; its checkpoints are left to maintenance. Returns whether there was one."""
    if not connection.execute(_DELETE, {"id": conversation_id}).rowcount:
        return False
    for statement in _FORGET:
        connection.execute(text(statement), {"id": conversation_id})
    return True


_SHOW_FROM = text("UPDATE visual_ai.conversations SET shown_from = :checkpoint WHERE id = CAST(:id AS uuid)")


def show_from(connection: Connection, conversation_id: str, checkpoint_id: str) -> None:
    """Show no states before this one any more."""
    connection.execute(_SHOW_FROM, {"id": conversation_id, "checkpoint": checkpoint_id})


_EXPIRED = text(
    """
    SELECT c.id::text FROM visual_ai.conversations c
    WHERE c.deleted_at IS NULL AND c.expires_at < clock_timestamp()
      AND NOT EXISTS (
        SELECT FROM visual_ai.conversation_turns t JOIN visual_ai.workflow_executions e ON e.id = t.execution_id
        WHERE t.conversation_id = c.id AND e.state IN ('queued', 'running', 'awaiting_input'))
    ORDER BY c.expires_at LIMIT :limit
    """
)


def delete_expired(connection: Connection, *, limit: int) -> int:
    """Delete at most `limit` conversations whose time is over; returns how many."""
    found = list(connection.execute(_EXPIRED, {"limit": limit}).scalars())
    for conversation_id in found:
        delete(connection, conversation_id)
    return len(found)


_DELETED = text(
    """
    SELECT c.id::text FROM visual_ai.conversations c
    WHERE c.deleted_at IS NOT NULL
      AND EXISTS (SELECT FROM visual_ai.checkpoints k WHERE k.thread_id = c.id::text)
      -- One that begins with its states has not copied them yet.
      AND NOT EXISTS (
        SELECT FROM visual_ai.conversations copy WHERE copy.copied_from = c.id AND copy.deleted_at IS NULL)
    ORDER BY c.deleted_at LIMIT :limit
    """
)


def deleted(connection: Connection, *, limit: int) -> list[str]:
    """Deleted conversations that still have checkpoints, which nobody needs."""
    return list(connection.execute(_DELETED, {"limit": limit}).scalars())
