"""The preferences of users."""

import logging
from collections.abc import Iterable

from sqlalchemy import Connection, exists, func, select
from sqlalchemy.dialects.postgresql import insert

from backend.core.preferences import Preferences
from backend.db import notification_causes
from backend.db.tables import notification_causes as causes
from backend.db.tables import user_preferences as preferences

log = logging.getLogger(__name__)


def read(connection: Connection, user_id: str) -> Preferences:
    """The user's preferences, or the defaults if none are stored."""
    return read_many(connection, [user_id]).get(user_id, Preferences())


def read_many(connection: Connection, user_ids: Iterable[str]) -> dict[str, Preferences]:
    """The preferences of those users who have any. Invalid ones are logged and left out."""
    query = select(preferences.c.user_id, preferences.c.default_model, preferences.c.settings).where(
        preferences.c.user_id.in_(list(user_ids))
    )
    found: dict[str, Preferences] = {}
    for row in connection.execute(query):
        try:
            found[row.user_id] = Preferences.of_row(row.default_model, row.settings)
        except (AttributeError, KeyError, TypeError, ValueError):
            log.error("ignored the preferences of user %r, which were not written by this system", row.user_id)
    return found


def read_for_change(connection: Connection, user_id: str) -> Preferences:
    """The user's preferences, locked until the transaction ends."""
    connection.execute(insert(preferences).values(_values(user_id, Preferences())).on_conflict_do_nothing())
    connection.execute(select(preferences.c.user_id).where(preferences.c.user_id == user_id).with_for_update())
    return read(connection, user_id)


def write(connection: Connection, user_id: str, wanted: Preferences) -> None:
    """Replace the user's preferences."""
    values = _values(user_id, wanted)
    statement = insert(preferences).values(values)
    replaced = {**values, "updated_at": func.now()}
    connection.execute(statement.on_conflict_do_update(index_elements=["user_id"], set_=replaced))


def lock_users_with_causes(connection: Connection, *, limit: int) -> list[str]:
    """Lock users who have causes that are due until the transaction ends, skipping those who are locked already."""
    query = (
        select(preferences.c.user_id)
        .where(exists().where(causes.c.user_id == preferences.c.user_id, notification_causes.due()))
        .order_by(preferences.c.user_id)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    )
    return list(connection.execute(query).scalars())


def _values(user_id: str, wanted: Preferences) -> dict[str, object]:
    return {
        "user_id": user_id,
        "default_model": wanted.default_model,
        "settings": wanted.settings_json(),
        "notified_events": wanted.notified_events,
        "budget_shares": wanted.budget_shares,
    }
