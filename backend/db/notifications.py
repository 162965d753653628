"""The queue of notifications: what is to be sent to whom, its attempts, and its outcome.

A notification is `pending` until it is `sent` or `dead` (given up). A worker claims one by moving `next_attempt_at` to
the end of its lease, so no transaction stays open while a receiver takes its time. Whatever a worker records later
applies only if nobody has claimed the notification again since: the number of the attempt tells.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, exists, func, literal, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from backend.core.jsonable import storable
from backend.core.redaction import redact_text
from backend.db.notification_causes import CHANNEL
from backend.db.rows import Row, all_rows, first_row
from backend.db.tables import notification_causes as causes
from backend.db.tables import notifications
from backend.db.tables import user_preferences as preferences

ERROR_LIMIT = 500
"""The maximum length of a stored error, in characters."""

Target = tuple[str, str]
"""A user and the name of one of their targets."""


@dataclass(frozen=True, slots=True)
class Due:
    """A claimed notification. `attempt` counts from 1."""

    id: str
    user_id: str
    target: str
    event: str
    payload: dict[str, Any]
    occurred_at: datetime
    attempt: int

    @property
    def to(self) -> Target:
        """Where it is sent."""
        return self.user_id, self.target


def add(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
    """Queue notifications and return how many are new: a target is notified of a cause once."""
    if not rows:
        return 0
    made = connection.execute(
        insert(notifications).values(list(rows)).on_conflict_do_nothing().returning(notifications.c.id)
    )
    return len(made.all())


# Walks along the index from target to target, and takes the first due notification of each: the cost depends on the
# number of targets, not on how many notifications are waiting for one that doesn't respond.
_CLAIM = text(
    """
    WITH RECURSIVE targets AS (
        (SELECT user_id, target FROM visual_ai.notifications
         WHERE state = 'pending' ORDER BY user_id, target LIMIT 1)
        UNION ALL
        SELECT following.* FROM targets t CROSS JOIN LATERAL (
            SELECT n.user_id, n.target FROM visual_ai.notifications n
            WHERE n.state = 'pending' AND (n.user_id, n.target) > (t.user_id, t.target)
            ORDER BY n.user_id, n.target LIMIT 1
        ) following
    ), named AS (
        SELECT * FROM unnest(CAST(:users AS text[]), CAST(:targets AS text[])) AS named (user_id, target)
    ), due AS (
        SELECT first.id, first.next_attempt_at FROM targets t CROSS JOIN LATERAL (
            SELECT n.id, n.next_attempt_at FROM visual_ai.notifications n
            WHERE n.state = 'pending' AND n.user_id = t.user_id AND n.target = t.target
              AND n.next_attempt_at <= now()
            ORDER BY n.next_attempt_at LIMIT 1
        ) first
        WHERE ((t.user_id, t.target) IN (SELECT * FROM named)) = :named_only
    ), chosen AS (
        SELECT n.id FROM visual_ai.notifications n JOIN due ON due.id = n.id
        WHERE n.state = 'pending' AND n.next_attempt_at <= now()
        ORDER BY due.next_attempt_at LIMIT :limit
        FOR UPDATE OF n SKIP LOCKED
    )
    UPDATE visual_ai.notifications n
    SET attempts = n.attempts + 1, next_attempt_at = clock_timestamp() + make_interval(secs => :lease)
    FROM chosen WHERE n.id = chosen.id
    RETURNING n.id::text, n.user_id, n.target, n.event, n.payload, n.occurred_at, n.attempts
    """
)


def claim(connection: Connection, named: Iterable[Target], *, named_only: bool, limit: int, lease: float) -> list[Due]:
    """Claim at most `limit` due notifications, one per target: only of the `named` targets, or only of all others.

    Nobody else can claim them for `lease` seconds, by when their outcome has to be recorded.
    """
    named = list(named)
    rows = connection.execute(
        _CLAIM,
        {
            "users": [user for user, _ in named],
            "targets": [target for _, target in named],
            "named_only": named_only,
            "limit": limit,
            "lease": lease,
        },
    )
    return [Due(*row) for row in rows]


def seconds_to_next(connection: Connection) -> float | None:
    """Seconds until the next notification becomes due; None if there is none."""
    now = func.now()  # with `clock_timestamp` the index could not be used
    query = select(func.extract("epoch", func.min(notifications.c.next_attempt_at) - now)).where(
        notifications.c.state == "pending", notifications.c.next_attempt_at > now
    )
    seconds = connection.execute(query).scalar_one()
    return None if seconds is None else max(0.0, float(seconds))


def sent(connection: Connection, notification_id: str, status: int) -> None:
    """Record that the receiver has accepted it."""
    connection.execute(
        update(notifications)
        .where(notifications.c.id == notification_id)
        .values(state="sent", finished_at=func.clock_timestamp(), last_status=status, last_error=None)
    )


def failed(
    connection: Connection, due: Due, *, error: str, status: int | None = None, wait: float | None = None
) -> None:
    """Record a failed attempt. The next one is due after `wait` seconds; None gives the notification up.

    Changes nothing if a later attempt was started, or if the notification was delivered.
    """
    now = func.clock_timestamp()
    outcome: dict[str, Any] = (
        {"state": "dead", "finished_at": now}
        if wait is None
        else {"next_attempt_at": now + func.make_interval(0, 0, 0, 0, 0, 0, wait)}
    )
    connection.execute(
        update(notifications)
        .where(
            notifications.c.id == due.id, notifications.c.state == "pending", notifications.c.attempts == due.attempt
        )
        .values(last_status=status, last_error=_short(error), **outcome)
    )


def release(connection: Connection, claimed: Iterable[Due]) -> None:
    """Undo a claim without an attempt, so that the notifications are due at once."""
    connection.execute(
        update(notifications)
        .where(
            notifications.c.state == "pending",
            tuple_(notifications.c.id, notifications.c.attempts).in_([(due.id, due.attempt) for due in claimed]),
        )
        .values(attempts=notifications.c.attempts - 1, next_attempt_at=func.clock_timestamp())
    )


def expire(connection: Connection, *, after: timedelta) -> int:
    """Give up the notifications that were queued longer ago than this, and return how many."""
    hours = after.total_seconds() / 3600
    expired = connection.execute(
        update(notifications)
        .where(notifications.c.state == "pending", notifications.c.queued_at < func.clock_timestamp() - after)
        .values(
            state="dead",
            finished_at=func.clock_timestamp(),
            last_error=func.concat_ws("; ", f"not delivered within {hours:g} hours", notifications.c.last_error),
        )
    )
    return expired.rowcount


def prune(connection: Connection, *, after: timedelta) -> int:
    """Delete notifications that were sent or given up longer ago than this, and return how many.

    Also deletes causes of users who no longer have preferences.
    """
    known = exists().where(preferences.c.user_id == causes.c.user_id)
    connection.execute(delete(causes).where(~known))
    deleted = connection.execute(
        delete(notifications).where(
            notifications.c.state != "pending", notifications.c.finished_at < func.clock_timestamp() - after
        )
    )
    return deleted.rowcount


def last_rate_limit(connection: Connection, user_id: str, target: str) -> datetime | None:
    """When the target was last notified of its rate limit threshold."""
    found: datetime | None = connection.execute(
        select(func.max(notifications.c.occurred_at)).where(
            notifications.c.user_id == user_id,
            notifications.c.target == target,
            notifications.c.event == "rate_limit_threshold",
        )
    ).scalar_one()
    return found


def list_page(
    connection: Connection,
    *,
    state: str | None,
    user_id: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Row]:
    """At most `limit` notifications, newest first, older than `before` (`queued_at`, `id`)."""
    query = select(notifications).order_by(notifications.c.queued_at.desc(), notifications.c.id.desc()).limit(limit)
    if state is not None:
        query = query.where(notifications.c.state == state)
    if user_id is not None:
        query = query.where(notifications.c.user_id == user_id)
    if before is not None:
        place = tuple_(literal(before[0]), literal(before[1], notifications.c.id.type))
        query = query.where(tuple_(notifications.c.queued_at, notifications.c.id) < place)
    return all_rows(connection.execute(query))


def get(connection: Connection, notification_id: str) -> Row | None:
    """The notification, if there is one."""
    return first_row(connection.execute(select(notifications).where(notifications.c.id == notification_id)))


def send_again(connection: Connection, notification_id: str) -> bool:
    """Queue a notification again, with all its attempts, if it was given up; return whether it was."""
    now = func.clock_timestamp()
    again = connection.execute(
        update(notifications)
        .where(notifications.c.id == notification_id, notifications.c.state == "dead")
        .values(state="pending", attempts=0, next_attempt_at=now, queued_at=now, finished_at=None)
    )
    if not again.rowcount:
        return False
    connection.execute(select(func.pg_notify(CHANNEL, "")))
    return True


def _short(error: str) -> str:
    return storable(redact_text(error, limit=ERROR_LIMIT))
