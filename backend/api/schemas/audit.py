"""Bodies of the audit log."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from backend.core.audit import Action, Outcome


class AuditEntry(BaseModel):
    """One act. Entries never change."""

    id: int
    occurred_at: datetime
    action: Action
    outcome: Outcome = Field(description="`refused`: not permitted, or not yet; `failed`: a wrong password or token")
    user_id: str | None = Field(description="Who did it; of a sign-in that failed, the name that was given")
    role: str | None = Field(description="The user's role at the time")
    credential: str | None = Field(description="The beginning of the session's id, or the service token's prefix")
    address: str | None = Field(description="The client's address, as a trusted proxy reports it")
    object: str | None = Field(description="What was acted on: a run, template, token, user, or request")
    details: dict[str, Any]
    request_id: str | None = Field(description="The `X-Request-ID` of the response")


class AuditPageOut(BaseModel):
    """Entries, newest first. Pass `next_cursor` as `cursor` for the next page."""

    entries: list[AuditEntry]
    next_cursor: str | None
