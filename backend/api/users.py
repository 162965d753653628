"""`/users/me`: who the request's token stands for."""

from datetime import UTC, datetime

from fastapi import APIRouter, Response

from backend.api.deps import SignedIn
from backend.api.schemas.auth import Me

router = APIRouter(prefix="/users", tags=["auth"])


@router.get("/me")
async def get_me(who: SignedIn, response: Response) -> Me:
    """Who you are. A page that was loaded again, and holds the cookie only, asks this."""
    response.headers["Cache-Control"] = "no-store"
    expires_at = datetime.fromtimestamp(who.expires_at, UTC) if who.expires_at is not None else None
    return Me(user_id=who.username, role=who.role.label, expires_at=expires_at)
