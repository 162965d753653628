"""From causes to notifications: which of the user's targets are told of what happened."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, OperationalError

from backend.core.notifications.rate_threshold import passed_at
from backend.core.preferences import NotificationTarget, Preferences
from backend.db import notification_causes, notifications, preferences
from backend.db.rows import Row
from backend.db.runs import errors, executions

log = logging.getLogger(__name__)

USERS_AT_ONCE = 50
CAUSES_AT_ONCE = 500

New = dict[str, Any]


def fan_out(connection: Connection) -> int:
    """Take causes and queue a notification for each target that wants to be told; gives how many causes were taken.

    Each replica takes those of other users, so that what a user is told of is decided by one at a time.
    """
    users = preferences.lock_users_with_causes(connection, limit=USERS_AT_ONCE)
    if not users:
        return 0
    by_user: dict[str, list[Row]] = defaultdict(list)
    taken = notification_causes.take(connection, users, limit=CAUSES_AT_ONCE)
    for cause in taken:
        by_user[cause["user_id"]].append(cause)
    known = preferences.read_many(connection, by_user)
    for user_id, causes in by_user.items():
        try:
            with connection.begin_nested():
                notifications.add(connection, list(_notifications(connection, user_id, known.get(user_id), causes)))
        except (OperationalError, InterfaceError):
            raise  # the database's fault: all are taken again
        except Exception:
            log.exception("%s causes of the user %r could not be understood and are dropped", len(causes), user_id)
    return len(taken)


def _notifications(
    connection: Connection, user_id: str, wanted: Preferences | None, causes: Sequence[Row]
) -> Iterator[New]:
    wanted = wanted or Preferences()
    rate_limits = [cause for cause in causes if cause["event"] == "rate_limit_threshold"]
    for cause in causes:
        if cause["event"] != "rate_limit_threshold":
            yield from _told(cause, wanted)
    if rate_limits:
        yield from _rate_limits(connection, user_id, wanted, rate_limits)


def _told(cause: Row, wanted: Preferences) -> Iterator[New]:
    if cause["target"] is not None:
        # Also when the user has none of that name: then it shows among what could not be delivered.
        yield _new(cause, cause["target"], cause["cause"], cause["payload"])
        return
    for target in wanted.targets:
        if not target.wants(cause["event"]):
            continue
        if cause["event"] != "budget_threshold":
            yield _new(cause, target.name, cause["cause"], cause["payload"])
        elif cause["payload"]["budget"]["share"] >= target.thresholds.budget_share:
            yield _budget(cause, target)


def _budget(cause: Row, target: NotificationTarget) -> New:
    share = target.thresholds.budget_share
    payload = {**cause["payload"], "budget": {**cause["payload"]["budget"], "share": share}}
    return _new(cause, target.name, f"{cause['cause']}:{share:g}", payload)


def _rate_limits(connection: Connection, user_id: str, wanted: Preferences, causes: Sequence[Row]) -> Iterator[New]:
    """What the user's errors amount to. They are counted as they are committed, whatever the order of their causes."""
    since, latest = (pick(cause["occurred_at"] for cause in causes) for pick in (min, max))
    for target in wanted.targets:
        if not target.wants("rate_limit_threshold"):
            continue
        limit = target.thresholds
        within = timedelta(seconds=limit.rate_limit_within)
        told = notifications.last_rate_limit(connection, user_id, target.name)
        if told is not None and latest < told + within:
            continue
        met = errors.rate_limits_since(connection, user_id, since - within)
        moments = passed_at(
            [moment for moment, _ in met],
            errors=limit.rate_limit_errors,
            within=within,
            since=since,
            told=told,
        )
        runs = dict(met)
        for moment, count in moments:
            execution_id = runs[moment]
            about = notification_causes.about_run(executions.read(connection, execution_id))
            use = {"errors": count, "within": limit.rate_limit_within, "threshold": limit.rate_limit_errors}
            yield {
                "user_id": user_id,
                "target": target.name,
                "execution_id": execution_id,
                "event": "rate_limit_threshold",
                "cause": f"rate_limit:{moment.isoformat()}",
                "payload": {**about, "rate_limit": use},
                "occurred_at": moment,
            }


def _new(cause: Row, target: str, unique: str, payload: Mapping[str, Any]) -> New:
    return {
        "user_id": cause["user_id"],
        "target": target,
        "execution_id": cause["execution_id"],
        "event": cause["event"],
        "cause": unique,
        "payload": dict(payload),
        "occurred_at": cause["occurred_at"],
    }
