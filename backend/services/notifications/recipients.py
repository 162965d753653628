"""Decides which of a user's targets are notified of what happened.

Causes are taken out of the database, and for each one a notification is queued per target that is subscribed to its
event. Thresholds belong to a target, so a cause may result in a notification for one target and not for another. Rate
limits are counted over all errors that are committed when their causes are taken, not over the causes: concurrent
transactions can't see each other's errors.

Each replica locks the users whose causes it takes, so that only one at a time decides for a user and nobody waits.
Duplicate causes end up as one notification, which is unique per target and cause.
"""

import logging
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, OperationalError

from backend.core.preferences import NotificationTarget, Preferences
from backend.db import notification_causes, notifications, preferences
from backend.db.rows import Row
from backend.db.runs import errors, executions

log = logging.getLogger(__name__)

USERS_AT_ONCE = 50
CAUSES_AT_ONCE = 500

New = dict[str, Any]


def fan_out(connection: Connection) -> int:
    """Take causes, queue their notifications, and return how many causes were taken."""
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
            raise  # the transaction is rolled back, and all causes are taken again
        except Exception:
            log.exception("dropped %s causes of user %r that could not be processed", len(causes), user_id)
    return len(taken)


def _notifications(
    connection: Connection, user_id: str, wanted: Preferences | None, causes: Sequence[Row]
) -> Iterator[New]:
    wanted = wanted or Preferences()
    rate_limits = [cause for cause in causes if cause["event"] == "rate_limit_threshold"]
    for cause in causes:
        if cause["event"] != "rate_limit_threshold":
            yield from _subscribed(connection, cause, wanted)
    if rate_limits:
        yield from _rate_limits(connection, user_id, wanted, rate_limits)


def _subscribed(connection: Connection, cause: Row, wanted: Preferences) -> Iterator[New]:
    payload = notification_causes.with_reason(connection, cause) if cause["event"] == "run_failed" else cause["payload"]
    if cause["target"] is not None:
        # Even if the user has no such target: the notification is then listed as undeliverable.
        yield _new(cause, cause["target"], cause["cause"], payload)
        return
    for target in wanted.targets:
        if not target.wants(cause["event"]):
            continue
        if cause["event"] != "budget_threshold":
            yield _new(cause, target.name, cause["cause"], payload)
        elif cause["payload"]["budget"]["share"] >= target.thresholds.budget_share:
            yield _budget(cause, target)


def _budget(cause: Row, target: NotificationTarget) -> New:
    share = target.thresholds.budget_share
    payload = {**cause["payload"], "budget": {**cause["payload"]["budget"], "share": share}}
    return _new(cause, target.name, f"{cause['cause']}:{share:g}", payload)


def _rate_limits(connection: Connection, user_id: str, wanted: Preferences, causes: Sequence[Row]) -> Iterator[New]:
    """One notification per target and time at which the target's threshold was reached."""
    since, latest = (pick(cause["occurred_at"] for cause in causes) for pick in (min, max))
    for target in wanted.targets:
        if not target.wants("rate_limit_threshold"):
            continue
        limit = target.thresholds
        within = timedelta(seconds=limit.rate_limit_within)
        notified = notifications.last_rate_limit(connection, user_id, target.name)
        if notified is not None and latest < notified + within:
            continue
        met = errors.rate_limits_since(connection, user_id, since - within)
        moments = threshold_reached(
            [moment for moment, _ in met],
            errors=limit.rate_limit_errors,
            within=within,
            since=since,
            notified=notified,
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


def threshold_reached(
    times: Sequence[datetime], *, errors: int, within: timedelta, since: datetime, notified: datetime | None
) -> list[tuple[datetime, int]]:
    """When, from `since` on, at least `errors` errors had occurred in the time `within` before, and how many.

    `times` are the times of the errors, ascending. Two results, or the first one and the last time that the user was
    `notified`, are at least `within` apart: if errors keep coming, that is one notification in each such period.
    """
    found: list[tuple[datetime, int]] = []
    for index, moment in enumerate(times):
        if moment < since or (notified is not None and moment < notified + within):
            continue
        count = index + 1 - bisect_right(times, moment - within)
        if count >= errors:
            found.append((moment, count))
            notified = moment
    return found


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
