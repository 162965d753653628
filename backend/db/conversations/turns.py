"""Turns: one at a time in each conversation, in the order in which they were asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from backend.core.jsonable import dumps
from backend.core.turns import ENDED, Frame, Turn
from backend.db.conversations import frames
from backend.db.rows import Row, all_rows, first_row

_STALE = 120
"""Seconds after which a turn counts as abandoned whose run was never started."""

_LOCK = text("SELECT 1 FROM visual_ai.conversations WHERE id = CAST(:conversation AS uuid) FOR UPDATE")
# A turn stands in the way as long as its run is under way. One that waits for people does too: whoever goes on without
# them ends it first.
_AHEAD = text(
    f"""
    SELECT t.id FROM visual_ai.conversation_turns t
    LEFT JOIN visual_ai.workflow_executions e ON e.id = t.execution_id
    WHERE t.conversation_id = CAST(:conversation AS uuid) AND t.number < :number AND t.ended_at IS NULL
      AND t.execution_id IS DISTINCT FROM CAST(:execution AS uuid)
      AND CASE WHEN e.id IS NULL THEN t.created_at > clock_timestamp() - make_interval(secs => {_STALE})
               ELSE e.state IN ('queued', 'running', 'awaiting_input') END
    LIMIT 1
    """  # noqa: S608  # a constant number
)
_ENSURE = text(
    """
    INSERT INTO visual_ai.conversations (id, user_id, dag_id, graph_id, metadata, temporary, expires_at)
    VALUES (CAST(:conversation AS uuid), :user, :dag, :graph, CAST(:names AS jsonb), :temporary,
        CASE WHEN :temporary THEN clock_timestamp() + interval '1 hour' END)
    ON CONFLICT (id) DO NOTHING
    """
)
_ADD = text(
    """
    INSERT INTO visual_ai.conversation_turns (
        id, conversation_id, execution_id, dag_id, dag_run_id, assistant_id, user_id, strategy, state, metadata,
        request, after_seq)
    VALUES (CAST(:id AS uuid), CAST(:conversation AS uuid), CAST(:execution AS uuid), :dag, :run,
        CAST(:assistant AS uuid), :user, :strategy, :state, CAST(:metadata AS jsonb), CAST(:request AS jsonb), :after)
    ON CONFLICT (id) DO NOTHING
    """
)
_ONE = text(
    """
    SELECT t.*, c.copied_from, c.copied_checkpoint, c.deleted_at, c.user_id AS owner, c.dag_id AS latest_dag,
        EXISTS (SELECT FROM visual_ai.conversation_turns later
            WHERE later.conversation_id = t.conversation_id AND later.number > t.number AND later.state <> 'pending'
              AND later.execution_id IS DISTINCT FROM t.execution_id) AS passed
    FROM visual_ai.conversation_turns t JOIN visual_ai.conversations c ON c.id = t.conversation_id
    WHERE t.id = CAST(:id AS uuid) FOR UPDATE OF c
    """
)
_BEGIN = text(
    """
    UPDATE visual_ai.conversation_turns t
    SET state = 'running', execution_id = CAST(:execution AS uuid), dag_run_id = :run, ended_at = NULL,
        updated_at = clock_timestamp(),
        after_seq = coalesce(t.after_seq, c.last_seq)
    FROM visual_ai.conversations c
    WHERE c.id = t.conversation_id AND t.id = CAST(:id AS uuid)
    """
)
_ROLLED_BACK = text(
    """
    SELECT id::text FROM visual_ai.conversation_turns
    WHERE conversation_id = CAST(:conversation AS uuid) AND rolled_back
    """
)
_LATEST = text(
    """
    SELECT id::text FROM visual_ai.conversation_turns
    WHERE execution_id = CAST(:execution AS uuid) AND NOT rolled_back ORDER BY number DESC LIMIT 1
    """
)


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A turn that is to be made, and whose run is still to be started unless it has one."""

    id: str
    conversation_id: str
    dag_id: str
    user: str | None
    assistant_id: str | None = None
    strategy: str = "enqueue"
    metadata: Mapping[str, Any] | None = None
    request: Mapping[str, Any] | None = None
    execution_id: str | None = None
    dag_run_id: str | None = None
    state: str = "pending"
    after_seq: int | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """A turn whose task holds its conversation. `source` and `checkpoint` are what its states are to be copied from,
    `rolled_back` the turns whose states are to be deleted."""

    id: str
    source: str | None
    checkpoint: str | None
    rolled_back: tuple[str, ...]


class ConversationMovedOnError(RuntimeError):
    """Later turns have gone on from the state that this one left. A retry doesn't help."""


class ConversationDeletedError(RuntimeError):
    """The conversation is deleted. A retry doesn't help."""


class ConversationNotYoursError(RuntimeError):
    """The conversation belongs to another user or another DAG. A retry doesn't help."""


def add(connection: Connection, new: NewTurn) -> None:
    """Make a turn; it is the conversation's last."""
    connection.execute(
        _ADD,
        {
            "id": new.id,
            "conversation": new.conversation_id,
            "execution": new.execution_id,
            "dag": new.dag_id,
            "run": new.dag_run_id,
            "assistant": new.assistant_id,
            "user": new.user,
            "strategy": new.strategy,
            "state": new.state,
            "metadata": dumps(dict(new.metadata or {})),
            "request": dumps(dict(new.request or {})),
            "after": new.after_seq,
        },
    )


def announce(connection: Connection, new: NewTurn, *, alone: bool) -> bool:
    """Make a turn whose run is about to be started; if it is to be `alone`, only while no other one is under way.

    Returns whether it was made.
    """
    if alone:
        connection.execute(_LOCK, {"conversation": new.conversation_id})
        if any(turn["state"] != "paused" for turn in active(connection, new.conversation_id)):
            return False
    add(connection, new)
    return True


def begin(
    connection: Connection, turn: Turn, *, execution_id: str, dag_id: str, dag_run_id: str, user: str | None, graph: str
) -> Begun | None:
    """Begin a turn, or go on with it; None while another one is under way, upon which to ask again.

    A turn that nobody has announced is made. Raises `ConversationMovedOnError`, `ConversationDeletedError` and
    `ConversationNotYoursError`.
    """
    place = {"conversation": turn.conversation, "user": user, "dag": dag_id, "graph": graph}
    names = {name: turn.metadata[name] for name in ("graph_id", "assistant_id", "thread") if name in turn.metadata}
    connection.execute(_ENSURE, {**place, "names": dumps(names), "temporary": turn.temporary})
    row = first_row(connection.execute(_ONE, {"id": turn.id}))
    if row is None:
        assistant = turn.metadata.get("assistant_id")
        new = NewTurn(turn.id, turn.conversation, dag_id, user, assistant, execution_id=execution_id)
        add(connection, new)
        row = first_row(connection.execute(_ONE, {"id": turn.id}))
        assert row is not None  # noqa: S101  # it was just made
    if turn.claimed and (row["owner"] != user or row["latest_dag"] not in (None, dag_id)):
        raise ConversationNotYoursError(
            f"the conversation {turn.conversation} belongs to another user or another DAG; give it a name of its own"
        )
    if row["deleted_at"] is not None:
        raise ConversationDeletedError(f"the conversation {turn.conversation} is deleted")
    if row["passed"] or row["rolled_back"]:
        raise ConversationMovedOnError(
            f"the conversation {turn.conversation} has gone on since this turn; start a new one"
        )
    ahead = {"conversation": turn.conversation, "number": row["number"], "execution": execution_id}
    if connection.execute(_AHEAD, ahead).first() is not None:
        return None
    part = latest_part(connection, execution_id, turn.id)
    connection.execute(_BEGIN, {"id": part, "execution": execution_id, "run": dag_run_id})
    connection.execute(_SET_LATEST, place)
    rolled_back = tuple(connection.execute(_ROLLED_BACK, {"conversation": turn.conversation}).scalars())
    source = row["copied_from"]
    return Begun(part, str(source) if source else None, row["copied_checkpoint"], rolled_back)


def latest_part(connection: Connection, execution_id: str, turn_id: str) -> str:
    """The latest turn of a run: an answer to what it has asked is another turn of the same run. It is now running."""
    latest = str(connection.execute(_LATEST, {"execution": execution_id}).scalar() or turn_id)
    if latest != turn_id:
        change(connection, latest, "running")
    return latest


_SET_LATEST = text(
    "UPDATE visual_ai.conversations SET dag_id = :dag, graph_id = :graph WHERE id = CAST(:conversation AS uuid)"
)
_COPIED = text(
    """
    UPDATE visual_ai.conversations SET copied_from = NULL, copied_checkpoint = NULL
    WHERE id = CAST(:conversation AS uuid)
    """
)


def copied(connection: Connection, conversation_id: str) -> None:
    """The conversation has its own copies of the states that it began with."""
    connection.execute(_COPIED, {"conversation": conversation_id})


_CHANGE = text(
    """
    UPDATE visual_ai.conversation_turns
    SET state = :state, updated_at = clock_timestamp(), ended_at = CASE WHEN :ended THEN clock_timestamp() END
    WHERE id = CAST(:id AS uuid)
    """
)


def change(connection: Connection, turn_id: str, state: str) -> None:
    """Set the state of a turn."""
    connection.execute(_CHANGE, {"id": turn_id, "state": state, "ended": state in ENDED})


_CLOSE = text(
    """
    UPDATE visual_ai.conversation_turns SET ended_at = clock_timestamp(), updated_at = clock_timestamp()
    WHERE id = CAST(:id AS uuid)
    """
)


def close(connection: Connection, turn_id: str) -> None:
    """End a turn in the state that it has: another one goes on with its run."""
    connection.execute(_CLOSE, {"id": turn_id})


_OPEN = text(
    """
    SELECT id::text, conversation_id::text, execution_id::text FROM visual_ai.conversation_turns
    WHERE execution_id = ANY(CAST(:executions AS uuid[])) AND ended_at IS NULL
    ORDER BY conversation_id, number
    """
)
_STATES = {"success": "success", "failed": "error", "cancelled": "cancelled"}
_EVENTS = {"success": "completed", "error": "failed", "cancelled": "failed"}

CANCELLED = "the run was cancelled"
"""The error with which the events of a cancelled turn end."""


def end_with_run(connection: Connection, ended: Mapping[str, tuple[str, str | None]]) -> None:
    """End the turns of runs that have ended, by the ids of their executions: the run's state, and the reason in words.

    A turn that has come to its end by itself is over by then.
    """
    for row in all_rows(connection.execute(_OPEN, {"executions": list(ended)})) if ended else ():
        run_state, reason = ended[row["execution_id"]]
        state = _STATES[run_state]
        error = {"error": "RunFailed", "message": reason or "the run failed"} if state == "error" else None
        frames.append(connection, row["conversation_id"], row["id"], end_frames(state, error))
        change(connection, row["id"], state)


def end_frames(state: str, error: Mapping[str, Any] | None = None) -> list[Frame]:
    """The frames with which a turn ends in this state."""
    data: dict[str, Any] = {"event": _EVENTS[state]}
    if state == "cancelled":
        data["error"] = CANCELLED
    found = []
    if error is not None:
        found.append(Frame("error", (), dumps(dict(error))))
        data["error"] = error.get("message")
    return [*found, Frame(frames.END, (), dumps(data))]


_SHOWN = """
    SELECT t.id::text, t.conversation_id::text, t.execution_id::text, t.number, t.dag_id, t.dag_run_id,
        t.assistant_id::text, t.user_id, t.strategy, t.state, t.metadata, t.request, t.after_seq, t.rolled_back,
        t.created_at, t.updated_at, t.ended_at, e.state AS run_state, e.reason, shown.state AS shown_state
    FROM visual_ai.conversation_turns t LEFT JOIN visual_ai.workflow_executions e ON e.id = t.execution_id
    CROSS JOIN LATERAL (
        -- A run that has ended without a word has ended its turn.
        SELECT CASE WHEN t.ended_at IS NULL AND e.state = 'failed' THEN 'error'
                    WHEN t.ended_at IS NULL AND e.state = 'cancelled' THEN 'cancelled'
                    ELSE t.state END AS state
    ) shown
"""
_GET = text(f"{_SHOWN} WHERE t.conversation_id = CAST(:conversation AS uuid) AND t.id = CAST(:id AS uuid)")
_LIST = text(
    f"""
    {_SHOWN} WHERE t.conversation_id = CAST(:conversation AS uuid) AND NOT t.rolled_back
      AND (CAST(:states AS text[]) IS NULL OR shown.state = ANY(:states))
    ORDER BY t.number DESC LIMIT :limit OFFSET :offset
    """
)
_ACTIVE = text(
    f"""
    {_SHOWN} WHERE t.conversation_id = CAST(:conversation AS uuid) AND t.ended_at IS NULL
      AND coalesce(e.state IN ('queued', 'running', 'awaiting_input'),
        t.created_at > clock_timestamp() - make_interval(secs => {_STALE}))
    ORDER BY t.number
    """
)
_STARTED = text(
    """
    UPDATE visual_ai.conversation_turns SET execution_id = CAST(:execution AS uuid), dag_run_id = :run
    WHERE id = CAST(:id AS uuid) AND execution_id IS NULL
    """
)
_DELETE = text("DELETE FROM visual_ai.conversation_turns WHERE id = CAST(:id AS uuid)")
_ROLL_BACK = text("UPDATE visual_ai.conversation_turns SET rolled_back = true WHERE id = CAST(:id AS uuid)")


def get(connection: Connection, conversation_id: str, turn_id: str) -> Row | None:
    """A turn, with the state of its run."""
    return first_row(connection.execute(_GET, {"conversation": conversation_id, "id": turn_id}))


def list_page(
    connection: Connection, conversation_id: str, *, states: Sequence[str] | None, limit: int, offset: int
) -> list[Row]:
    """The turns of a conversation that count, newest first; with `states`, those in one of them."""
    shown = None if states is None else list(states)
    values = {"conversation": conversation_id, "states": shown, "limit": limit, "offset": offset}
    return all_rows(connection.execute(_LIST, values))


def active(connection: Connection, conversation_id: str) -> list[Row]:
    """The turns whose runs are under way, oldest first."""
    return all_rows(connection.execute(_ACTIVE, {"conversation": conversation_id}))


def started(connection: Connection, turn_id: str, execution_id: str, dag_run_id: str) -> None:
    """The turn's run is started."""
    connection.execute(_STARTED, {"id": turn_id, "execution": execution_id, "run": dag_run_id})


def delete(connection: Connection, turn_id: str) -> None:
    """Delete a turn."""
    connection.execute(_DELETE, {"id": turn_id})


def roll_back(connection: Connection, turn_id: str) -> None:
    """Have the states that a turn has written shown no more; the next turn deletes them."""
    connection.execute(_ROLL_BACK, {"id": turn_id})


_ASKED = text(
    """
    SELECT q.id::text, q.pause, q.kind FROM visual_ai.questions q
    WHERE q.execution_id = CAST(:execution AS uuid) AND q.thread_id = :thread
      AND q.answered_at IS NULL AND q.closed_at IS NULL
    ORDER BY q.asked_at, q.pause
    """
)


def asked(connection: Connection, conversation_id: str, execution_id: str) -> list[Row]:
    """What a turn's run waits for from people: the open questions, with LangGraph's ids of the pauses."""
    return all_rows(connection.execute(_ASKED, {"thread": conversation_id, "execution": execution_id}))
