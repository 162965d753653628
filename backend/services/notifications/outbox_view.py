"""Lists queued, sent and undeliverable notifications for operators."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from backend.core.problems import Conflict, NotFound
from backend.core.roles import Principal
from backend.db import audit, notifications
from backend.db.engine import Database
from backend.db.rows import Row
from backend.services.runs.page_cursor import decode_cursor, encode_cursor

NOT_FOUND = "There is no such notification."


@dataclass(frozen=True, slots=True)
class NotificationPage:
    """Notifications, newest first, and the cursor of the next page."""

    rows: list[Row]
    next_cursor: str | None


class Notifications:
    """Lists notifications and queues undeliverable ones again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_page(
        self, *, state: str | None, user_id: str | None, cursor: str | None, limit: int
    ) -> NotificationPage:
        """A page, newest first. Raises `Invalid` for an unknown cursor."""
        rows = await self._database.run(
            notifications.list_page,
            state=state,
            user_id=user_id,
            before=decode_cursor(cursor) if cursor else None,
            limit=limit + 1,
        )
        last = rows[limit - 1] if len(rows) > limit else None
        return NotificationPage(rows[:limit], encode_cursor(last["queued_at"], str(last["id"])) if last else None)

    async def send_again(self, who: Principal, notification_id: str) -> Row:
        """Queue an undeliverable notification again.

        Raises `NotFound`, and `Conflict` if it was sent or is still pending.
        """
        try:
            wanted = str(UUID(notification_id))
        except ValueError:
            raise NotFound(NOT_FOUND) from None

        def send_again(connection: Connection) -> bool:
            again = notifications.send_again(connection, wanted)
            if again:
                audit.record(connection, who, "notification.resend", wanted)
            return again

        again = await self._database.run(send_again)
        row = await self._database.run(notifications.get, wanted)
        if row is None:
            raise NotFound(NOT_FOUND)
        if not again:
            raise Conflict(f"Only a notification that was given up can be sent again; this one is {row['state']}.")
        return row
