"""Causes of notifications: what happened that a user wants to be notified of.

A cause is written in the transaction that observes the event, and only if a target of the user is subscribed to it. The
writers are tasks, triggers and the scheduler; they need no right to read this table and wait for nobody. There is no
unique key: a cause may be written twice. The backend takes causes out again and makes notifications of them
(`services/notifications/recipients.py`), where duplicates are dropped. Why a run failed may be found out only after its
end (`services/recording/explainer.py`), so such a cause waits for that, for up to `REASON_WAIT`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, literal, not_, select, text
from sqlalchemy.orm import aliased

from backend.core.jsonable import dumps, storable
from backend.core.preferences import NotificationEvent
from backend.core.redaction import redact_text
from backend.db.rows import Row, all_rows, first_row
from backend.db.runs import reasons
from backend.db.tables import notification_causes as causes
from backend.db.tables import user_preferences as preferences
from backend.db.tables import workflow_errors as errors
from backend.db.tables import workflow_executions as executions

CHANNEL = "visual_ai_notifications"
"""The PostgreSQL channel that announces new causes and notifications; its payload is empty."""

MESSAGE_LIMIT = 1_000
"""The maximum length of the text of an error or an alert, in characters."""

REASON_WAIT = timedelta(seconds=60)
"""How long the notification of a failed run waits until it is known why it failed."""

_PUT = text(
    """
    WITH made AS (
        INSERT INTO visual_ai.notification_causes (
            user_id, execution_id, event, cause, target, payload, occurred_at)
        SELECT p.user_id, e.id, :event, :cause, CAST(:target AS text), CAST(:payload AS jsonb),
            coalesce(CAST(:occurred_at AS timestamptz), clock_timestamp())
        FROM visual_ai.workflow_executions e
        JOIN visual_ai.user_preferences p ON p.user_id = coalesce(CAST(:user_id AS text), e.user_id)
        WHERE e.id = :execution_id AND (:event = ANY (p.notified_events) OR CAST(:target AS text) IS NOT NULL)
        RETURNING 1
    )
    SELECT pg_notify(:channel, '') FROM made
    """
)


def run_failed(connection: Connection, execution: Mapping[str, Any]) -> None:
    """The run of this row has failed. One notification per attempt at the run."""
    if not _wanted(connection, execution["user_id"], "run_failed"):
        return
    payload = {**about_run(execution), **_why(connection, execution)}
    _put(connection, execution["id"], "run_failed", f"run_failed:{execution['attempt']}", payload)


def with_reason(connection: Connection, cause: Row) -> dict[str, Any]:
    """The payload of a `run_failed` cause with what is known by now about why the run failed."""
    payload = dict(cause["payload"])
    execution = _execution(connection, cause["execution_id"])
    if execution is None or (execution["state"], execution["attempt"]) != ("failed", payload["attempt"]):
        return payload  # it has been retried
    return {**payload, **_why(connection, execution)}


def budget_passed(connection: Connection, execution_id: str, use: Mapping[str, Any]) -> None:
    """A share of a budget was used. One notification per limit and share.

    `use` has the `scope` (`run` or `task`), `task_id`, `map_index`, the name of the `limit`, how much is `allowed` and
    `used`, and the `share` that was reached.
    """
    execution = _execution(connection, execution_id)
    if execution is None:
        return
    cause = ":".join(str(use[name]) for name in ("scope", "task_id", "map_index", "limit", "allowed"))
    payload = {**about_run(execution), "budget": dict(use)}
    _put(connection, execution_id, "budget_threshold", f"budget:{cause}", payload)


def rate_limited(connection: Connection, execution_id: str, at: datetime) -> None:
    """A `rate_limit` error was recorded. Whether the threshold is reached is decided when the cause is taken, from all
    errors that are committed by then."""
    _put(connection, execution_id, "rate_limit_threshold", "rate_limit", {}, occurred_at=at)


def alert(
    connection: Connection,
    execution_id: str,
    *,
    user_id: str | None,
    target: str | None,
    cause: str,
    message: str,
    place: Mapping[str, Any],
    failed: bool,
    error: Mapping[str, Any] | None,
) -> bool:
    """A DAG notifies its user, or the given one. Returns whether that user has a target for it.

    `place` is where the alert comes from. If something `failed` and `error` is None, the last error recorded there is
    used. With a `target`, only that one is notified, whatever it is subscribed to.
    """
    execution = _execution(connection, execution_id)
    if execution is None:
        return False
    if error is not None:
        error = {**error, "message": _short(str(error["message"]))}
    elif failed:
        error = _cause_of_failure(connection, execution, task_id=place.get("task_id"))
    payload = {**about_run(execution), "alert": {**place, "message": _short(message)}, "error": error}
    unique = f"alert:{execution['attempt']}:{cause}"
    return _put(connection, execution_id, "alert", unique, payload, user_id=user_id, target=target)


def asked(connection: Connection, question: Row) -> None:
    """The question of this row is for its assignees; without any, for the user of its run."""
    execution = _execution(connection, question["execution_id"])
    if execution is None:
        return
    names = ("task_id", "map_index", "agent", "kind", "subject", "expires_at")
    about = {"question_id": str(question["id"]), **{name: question[name] for name in names}}
    payload = {**about_run(execution), "question": about}
    for user_id in question["assignees"] or [None]:
        # Each time that it is asked or handed on, somebody has to know of it.
        _put(connection, question["execution_id"], "question", f"question:{uuid4()}", payload, user_id=user_id)


def budget_shares(connection: Connection, execution_id: str) -> list[float]:
    """The shares of budgets at which the user of the run wants to be notified, ascending."""
    query = (
        select(preferences.c.budget_shares)
        .join(executions, executions.c.user_id == preferences.c.user_id)
        .where(executions.c.id == execution_id, literal("budget_threshold") == preferences.c.notified_events.any_())
    )
    return sorted(connection.execute(query).scalar_one_or_none() or ())


def due(cause: Any = causes) -> ColumnElement[bool]:
    """The condition that a cause need not wait any longer."""
    unexplained = exists().where(
        executions.c.id == cause.c.execution_id, executions.c.state == "failed", executions.c.reason.is_(None)
    )
    return not_(
        and_(cause.c.event == "run_failed", cause.c.occurred_at > func.clock_timestamp() - REASON_WAIT, unexplained)
    )


def take(connection: Connection, users: Sequence[str], *, limit: int) -> list[Row]:
    """Delete and return at most `limit` causes of these users that are due, oldest first."""
    chosen = aliased(causes)
    wanted = select(chosen.c.id).where(chosen.c.user_id.in_(users), due(chosen))
    oldest = wanted.order_by(chosen.c.occurred_at).limit(limit)
    taken = all_rows(connection.execute(delete(causes).where(causes.c.id.in_(oldest)).returning(causes)))
    return sorted(taken, key=lambda row: row["occurred_at"])


def about_run(execution: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the payload that describes the run."""
    cost = execution["cost_usd"]
    return {
        "execution_id": str(execution["id"]),
        "dag_id": execution["dag_id"],
        "dag_run_id": execution["dag_run_id"],
        "state": execution["state"],
        "attempt": execution["attempt"],
        "usage": {"input_tokens": execution["input_tokens"], "output_tokens": execution["output_tokens"]},
        "cost_usd": float(cost) if cost is not None else None,
    }


def announce(connection: Connection) -> None:
    """Have the backend look at the causes again: the reason of a failed run is known now."""
    connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})


def _execution(connection: Connection, execution_id: str) -> Row | None:
    """What the functions above need of an execution: its input and output may be large."""
    names = (
        "id", "dag_id", "dag_run_id", "user_id", "state", "attempt", "started_at", "input_tokens", "output_tokens",
        "cost_usd", "reason",
    )  # fmt: skip
    query = select(*(executions.c[name] for name in names)).where(executions.c.id == execution_id)
    return first_row(connection.execute(query))


def _wanted(connection: Connection, user_id: str | None, event: NotificationEvent) -> bool:
    if user_id is None:
        return False
    query = select(preferences.c.user_id).where(
        preferences.c.user_id == user_id, literal(event) == preferences.c.notified_events.any_()
    )
    return connection.execute(query).first() is not None


def _why(connection: Connection, execution: Mapping[str, Any]) -> dict[str, Any]:
    """Why the run of this row failed, as far as that is known."""
    deciding = reasons.deciding_errors(connection, [str(execution["id"])]).get(str(execution["id"]))
    error = _reported(deciding) if deciding is not None else _cause_of_failure(connection, execution)
    return {"reason": execution["reason"], "error": error}


def _cause_of_failure(
    connection: Connection, execution: Mapping[str, Any], *, task_id: str | None = None
) -> dict[str, Any] | None:
    """The error that most likely made the run or the task fail: of this attempt, the last that ended something."""
    conditions = [errors.c.execution_id == execution["id"], errors.c.recovered.is_(False)]
    if execution["attempt"] > 1 and execution["started_at"] is not None:
        conditions.append(errors.c.occurred_at >= execution["started_at"])
    if task_id is not None:
        conditions.append(errors.c.task_id == task_id)
    query = select(errors).where(*conditions).order_by((errors.c.action == "fail").desc(), errors.c.occurred_at.desc())
    error = first_row(connection.execute(query.limit(1)))
    return None if error is None else _reported(error)


def _reported(error: Row) -> dict[str, Any]:
    kept = ("category", "exception_type", "task_id", "map_index", "try_number", "model")
    return {
        **{name: error[name] for name in kept},
        "agent": error["agent_name"],
        "message": _short(error["message"]),  # redacted when it was recorded
    }


def _short(message: str) -> str:
    return storable(redact_text(message, limit=MESSAGE_LIMIT))


def _put(
    connection: Connection,
    execution_id: str,
    event: NotificationEvent,
    cause: str,
    payload: Mapping[str, Any],
    *,
    user_id: str | None = None,
    target: str | None = None,
    occurred_at: datetime | None = None,
) -> bool:
    values = {
        "execution_id": execution_id,
        "event": event,
        "cause": storable(cause),
        "payload": dumps(payload),
        "user_id": user_id,
        "target": target,
        "occurred_at": occurred_at,
        "channel": CHANNEL,
    }
    return connection.execute(_PUT, values).first() is not None
