"""`/audit`: who did what, when, from where. For Admins."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from backend.api.deps import Administrator, Name, Services
from backend.api.schemas.audit import AuditEntry, AuditPageOut
from backend.core.audit import Action, Outcome
from backend.db.audit import AuditFilter

router = APIRouter(prefix="/audit", tags=["audit"])


@router.get("")
async def list_audit_entries(
    _: Administrator,
    services: Services,
    action: Action | None = None,
    user: Annotated[Name, Query(description="Who did it; of a sign-in that failed, the name that was given")] = None,
    outcome: Outcome | None = None,
    since: AwareDatetime | None = None,
    until: Annotated[AwareDatetime | None, Query(description="Entries before this time")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> AuditPageOut:
    """The audit log, newest first: sign-ins, refusals, changes of roles, tokens, runs, templates, preferences, limits.

    Entries contain no secrets and nothing of what runs are about. Nobody can change them here, and the backend's
    database role can't, either.
    """
    wanted = AuditFilter(action, user, outcome, since, until)
    page = await services.audit.list_page(wanted, cursor=cursor, limit=limit)
    return AuditPageOut(
        entries=[AuditEntry.model_validate(dict(row)) for row in page.rows], next_cursor=page.next_cursor
    )
