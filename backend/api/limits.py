"""`/limits`: the limits that an operator sets."""

from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Path

from backend.api.deps import Administrator, Operator, Services, TokenReader
from backend.api.json_bodies import JsonRoute
from backend.api.schemas.limits import LimitBody, LimitList, LimitOut
from backend.core.limits import LimitUse

router = APIRouter(prefix="/limits", tags=["limits"], route_class=JsonRoute)

LimitId = Annotated[str, Path(max_length=100, description="A name of your choice: letters, digits and `. _ : @ -`")]


@router.get("")
async def list_limits(_: Operator, services: Services) -> LimitList:
    """All limits, with what is used of them. For the roles Op and Admin."""
    return LimitList(limits=[_out(use) for use in await services.limits.list_all()])


@router.get("/mine")
async def my_limits(who: TokenReader, services: Services) -> LimitList:
    """The limits that apply to you, with what is used of them and when they reset.

    One of a role or of everybody is shared: its use is that of all of them. Limits of teams apply by DAG, and are not
    among these.
    """
    return LimitList(limits=[_out(use) for use in await services.limits.mine(who)])


@router.put("/{limit_id}")
async def put_limit(limit_id: LimitId, body: LimitBody, who: Administrator, services: Services) -> LimitOut:
    """Set a limit: a new one, or in place of the one with this id. For the role Admin.

    The backend that answers knows it at once, others within a second, and agents that are running within five seconds.
    What was used in the period before counts. There is one limit for each subject, kind and period.
    """
    amount = Decimal(str(body.limit))
    return _out(await services.limits.put(who, limit_id, body.subject, body.kind, body.period, amount))


@router.delete("/{limit_id}")
async def delete_limit(limit_id: LimitId, who: Administrator, services: Services) -> LimitOut:
    """Remove a limit, which is returned. For the role Admin."""
    return _out(await services.limits.remove(who, limit_id))


def _out(use: LimitUse) -> LimitOut:
    limit = use.limit
    return LimitOut(
        id=limit.id,
        subject=str(limit.subject),
        kind=limit.kind,
        period=limit.period,
        limit=float(limit.amount),
        used=float(use.used) if use.used is not None else None,
        resets_at=use.resets_at,
    )
