"""Sessions that ended before their tokens expired: one by one, or all of a user."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from backend.db.tables import revoked_sessions as revoked
from backend.db.tables import session_cutoffs as cutoffs

_LONGEST_SESSION = timedelta(days=31)
"""`VISUAL_AI_TOKEN_LIFETIME` allows 30 days. A cut-off that is older concerns no token."""

_OVERLAP = timedelta(minutes=1)
"""How much of the past is read again: a row may be committed later than its timestamp says."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Sessions that have ended, as read at `read_at` by the clock of the database."""

    tokens: dict[str, float]
    """When each revoked token would have expired, in seconds since the epoch, by its id."""
    not_before: dict[str, float]
    """The time until which all tokens of a user are void, in seconds since the epoch."""
    read_at: datetime


def read_ended(connection: Connection, since: datetime | None) -> Ended:
    """What was added after `since`, or everything that still matters."""
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    tokens = select(revoked.c.token_id, revoked.c.expires_at).where(revoked.c.expires_at > now)
    users = select(cutoffs.c.user_id, cutoffs.c.not_before)
    oldest = now - _LONGEST_SESSION if since is None else since - _OVERLAP
    if since is not None:
        tokens = tokens.where(revoked.c.revoked_at > oldest)
    users = users.where(cutoffs.c.set_at > oldest)
    return Ended(
        {row.token_id: row.expires_at.timestamp() for row in connection.execute(tokens)},
        {row.user_id: row.not_before for row in connection.execute(users)},
        now,
    )


def revoke(connection: Connection, token_id: str, user_id: str, expires_at: float) -> bool:
    """End one session; returns whether it hadn't ended before. Repeating it changes nothing."""
    values = {"token_id": token_id, "user_id": user_id, "expires_at": datetime.fromtimestamp(expires_at, UTC)}
    return bool(connection.execute(insert(revoked).values(values).on_conflict_do_nothing()).rowcount)


def cut_off(connection: Connection, user_id: str, not_before: float, *, by: str) -> None:
    """End all sessions of a user that began until `not_before`."""
    statement = insert(cutoffs).values(user_id=user_id, not_before=not_before, set_by=by)
    later = {
        "not_before": func.greatest(cutoffs.c.not_before, not_before),
        "set_by": by,
        "set_at": func.clock_timestamp(),
    }
    connection.execute(statement.on_conflict_do_update(index_elements=["user_id"], set_=later))


def forget(connection: Connection) -> None:
    """Delete what no token can refer to any more."""
    now = func.clock_timestamp()
    connection.execute(delete(revoked).where(revoked.c.expires_at < now))
    connection.execute(delete(cutoffs).where(cutoffs.c.set_at < now - _LONGEST_SESSION))
