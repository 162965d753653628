"""`/notifications`: notifications to users' webhooks, and whether they were delivered. For Op and Admin."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from backend.api.deps import Name, Operator, Services
from backend.api.schemas.preferences import NotificationList, NotificationOut
from backend.db.rows import Row

router = APIRouter(prefix="/notifications", tags=["notifications"])


@router.get("")
async def list_notifications(
    _: Operator,
    services: Services,
    state: Literal["pending", "sent", "dead"] | None = None,
    user_id: Name = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> NotificationList:
    """Notifications, newest first. `state=dead`: those that could not be delivered. Needs the role Op or Admin."""
    page = await services.notifications.list_page(state=state, user_id=user_id, cursor=cursor, limit=limit)
    return NotificationList(notifications=[_out(row) for row in page.rows], next_cursor=page.next_cursor)


@router.post("/{notification_id}/resend", status_code=202)
async def resend_notification(notification_id: str, who: Operator, services: Services) -> NotificationOut:
    """Resend a notification that could not be delivered, under the same id and with a full set of attempts.

    It is sent to the target's current address. Needs the role Op or Admin.
    """
    return _out(await services.notifications.send_again(who, notification_id))


def _out(row: Row) -> NotificationOut:
    return NotificationOut(
        id=str(row["id"]),
        user_id=row["user_id"],
        target=row["target"],
        event=row["event"],
        state=row["state"],
        attempts=row["attempts"],
        status=row["last_status"],
        error=row["last_error"],
        occurred_at=row["occurred_at"],
        queued_at=row["queued_at"],
        next_attempt_at=row["next_attempt_at"] if row["state"] == "pending" else None,
        finished_at=row["finished_at"],
        payload=row["payload"],
    )
