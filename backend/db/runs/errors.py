"""Errors: one row each, with the action that was taken."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert

from backend.core.jsonable import storable
from backend.core.process_secrets import process_secrets
from backend.core.redaction import hide, redact, redact_text
from backend.db import notification_causes
from backend.db.rows import Row, one_row
from backend.db.runs.reasons import EXPLAINED
from backend.db.runs.traces import Place, label, short_name
from backend.db.tables import workflow_errors as errors
from backend.db.tables import workflow_executions as executions

MESSAGE_LIMIT = 4_000
PASSING = ("retry", "fallback", "repair", "reschedule", "task_retry")
"""Actions that lead to another attempt."""


def add(
    connection: Connection,
    execution_id: str,
    place: Place,
    *,
    category: str,
    exception_type: str,
    message: str,
    action: str,
    attempt: int = 1,
    retry_in: float | None = None,
    model: str | None = None,
    node: str | None = None,
    context: Mapping[str, Any] | None = None,
    error_id: str | None = None,
) -> dict[str, Any]:
    """Record the error of one attempt without secrets and picture bytes; returns the data of its `error` event.

    `retry_in` is in seconds. An `error_id` (a UUID) is the one to pass to `recover` later.
    """
    row = _insert(
        connection,
        message,
        context,
        **({} if error_id is None else {"id": error_id}),
        execution_id=execution_id,
        dag_id=place.dag_id,
        dag_run_id=place.dag_run_id,
        task_id=place.task_id,
        map_index=place.map_index,
        try_number=place.try_number,
        agent_name=place.agent,
        item_index=place.item,
        model=model,
        node=node,
        category=category,
        exception_type=exception_type,
        action=action,
        attempt=attempt,
        retry_in=retry_in,
    )
    if category == "rate_limit":
        notification_causes.rate_limited(connection, execution_id, row["occurred_at"])
    return payload(row)


def add_explanation(
    connection: Connection,
    execution: Mapping[str, Any],
    *,
    category: str,
    exception_type: str,
    message: str,
    task_id: str | None,
    map_index: int,
    try_number: int | None,
    context: Mapping[str, Any],
) -> None:
    """Record why the run of this row failed, which none of its agents could: an error of a task, or of the whole run.

    There is no event of it, as nothing follows the end of a run.
    """
    _insert(
        connection,
        message,
        {**context, EXPLAINED: True},
        execution_id=execution["id"],
        dag_id=execution["dag_id"],
        dag_run_id=execution["dag_run_id"],
        task_id=task_id,
        map_index=map_index,
        try_number=try_number,
        category=category,
        exception_type=exception_type,
        action="fail",
        attempt=try_number or 1,
    )


def _insert(connection: Connection, message: str, context: Mapping[str, Any] | None, **values: Any) -> Row:
    names = {name: short_name(values[name]) for name in ("exception_type", "model", "node") if values.get(name)}
    safe = {
        **names,
        "message": storable(redact_text(hide(message, process_secrets()), limit=MESSAGE_LIMIT)),
        "context": redact(hide(dict(context or {}), process_secrets()), limit=1_000),
    }
    return one_row(connection.execute(insert(errors).values(**{**values, **safe}, recovered=False).returning(errors)))


def recover(connection: Connection, error_ids: Sequence[str]) -> None:
    """Mark errors as recovered: a later attempt succeeded."""
    connection.execute(update(errors).where(errors.c.id.in_(error_ids)).values(recovered=True))


def recover_earlier(connection: Connection, execution_id: str, place: Place) -> None:
    """Mark the errors that ended the agent in other tries as recovered: it has succeeded."""
    connection.execute(
        update(errors)
        .where(
            errors.c.execution_id == execution_id,
            errors.c.task_id == place.task_id,
            errors.c.map_index == place.map_index,
            errors.c.agent_name == place.agent,
            errors.c.item_index.is_not_distinct_from(place.item),
            errors.c.action.in_(PASSING),
            errors.c.recovered.is_(False),
        )
        .values(recovered=True)
    )


def rate_limits_since(connection: Connection, user_id: str, since: datetime) -> list[tuple[datetime, str]]:
    """The times, in order, at which the user's runs have met rate limits since then, with the executions."""
    query = (
        select(errors.c.occurred_at, errors.c.execution_id)
        .join(executions, executions.c.id == errors.c.execution_id)
        .where(executions.c.user_id == user_id, errors.c.category == "rate_limit", errors.c.occurred_at > since)
        .order_by(errors.c.occurred_at)
    )
    return [(row[0], row[1]) for row in connection.execute(query)]


_REPORTED = (
    "task_id", "map_index", "try_number", "model", "node", "attempt", "category", "exception_type", "message", "action",
    "retry_in", "recovered", "context", "occurred_at",
)  # fmt: skip


def payload(error: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: error[name] for name in _REPORTED},
        "agent": label(error["agent_name"], error["item_index"]),
    }
