"""The audit log. The backend's role can add to it and read it, and can't change what is in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Integer, cast, func, insert, select, tuple_

from backend.core.audit import Action, Entry, Outcome, entry_of
from backend.core.jsonable import storable
from backend.core.redaction import redact, redact_text
from backend.core.roles import Principal
from backend.db.rows import Row, all_rows
from backend.db.tables import audit_log as audit

_LONGEST = 600
"""Characters that are kept of a name."""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries to list; None applies to all. `since` is included, `until` is not."""

    action: Action | None = None
    user_id: str | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None


def record(
    connection: Connection, who: Principal, action: Action, object_name: str | None = None, **details: Any
) -> None:
    """Record what `who` does in this transaction: either both take effect, or neither does.

    `object_name` says what is acted on, and `details` are what else is worth knowing, as JSON. They are cleaned of
    what looks like a secret, but must contain none in the first place.
    """
    add(connection, [entry_of(who, action, object_name, **details)])


def add(connection: Connection, entries: Sequence[Entry]) -> None:
    """Record entries that were made before."""
    connection.execute(insert(audit).inline(), [_values(entry) for entry in entries])


def add_role_change(connection: Connection, entry: Entry) -> None:
    """Record that a user's rights have changed, unless another process already has: each notices by itself."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"audit_log role {entry.user_id}"))))
    latest = (
        select(audit.c.details["to"].astext)
        .where(audit.c.user_id == entry.user_id, audit.c.action == entry.action)
        .order_by(audit.c.occurred_at.desc(), audit.c.id.desc())
        .limit(1)
    )
    if connection.execute(latest).scalar_one_or_none() != entry.details["to"]:
        add(connection, [entry])


def list_entries(
    connection: Connection, wanted: AuditFilter, *, before: tuple[datetime, int] | None, limit: int
) -> list[Row]:
    """Entries, newest first, that come after the entry at `before`."""
    query = select(audit).order_by(audit.c.occurred_at.desc(), audit.c.id.desc()).limit(limit)
    for column, value in ((audit.c.action, wanted.action), (audit.c.user_id, wanted.user_id)):
        if value is not None:
            query = query.where(column == value)
    if wanted.outcome is not None:
        query = query.where(audit.c.outcome == wanted.outcome)
        if wanted.outcome != "done":  # so that the planner may use the partial indexes, whatever the parameter is
            query = query.where(audit.c.outcome != "done")
    if wanted.since is not None:
        query = query.where(audit.c.occurred_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(audit.c.occurred_at < wanted.until)
    if before is not None:
        query = query.where(tuple_(audit.c.occurred_at, audit.c.id) < tuple_(*before))
    return all_rows(connection.execute(query))


def prune(connection: Connection, *, days: int, limit: int) -> int:
    """Delete at most `limit` entries that are older than `days`; returns how many. Fewer than 90 days are refused."""
    deleted = func.visual_ai.prune_audit_log(cast(days, Integer), cast(limit, Integer))
    return int(connection.execute(select(deleted)).scalar_one())


def _values(entry: Entry) -> dict[str, Any]:
    return {
        "action": entry.action,
        "outcome": entry.outcome,
        "user_id": _name(entry.user_id),
        "role": entry.role,
        "credential": entry.credential,
        "address": entry.origin.address or None if entry.origin is not None else None,
        "object": _name(entry.object),
        "details": redact(dict(entry.details), limit=500, total=4_000),
        "request_id": entry.origin.request_id or None if entry.origin is not None else None,
    }


def _name(text: str | None) -> str | None:
    return storable(redact_text(text, limit=_LONGEST)) if text is not None else None
