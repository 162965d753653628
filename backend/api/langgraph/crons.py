"""Crons: runs that Airflow starts when they are due."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Response

from backend.api.deps import Reader, Services, Starter
from backend.api.langgraph.bodies import CronBody, CronPatch, CronSearch
from backend.core.roles import Principal
from backend.services.application import Application

router = APIRouter(tags=["crons"])


@router.post("/runs/crons")
async def create(body: CronBody, who: Starter, services: Services) -> dict[str, Any]:
    """Start runs by a schedule, each in a thread of its own."""
    return await _create(services, who, None, body)


@router.post("/threads/{thread_id}/runs/crons")
async def create_for_thread(thread_id: UUID, body: CronBody, who: Starter, services: Services) -> dict[str, Any]:
    """Start runs by a schedule, all in one thread."""
    return await _create(services, who, str(thread_id), body)


@router.post("/runs/crons/search")
async def search(body: CronSearch, who: Reader, services: Services, response: Response) -> list[dict[str, Any]]:
    """The crons that the caller may see."""
    crons = services.langgraph.crons
    wanted = await crons.filter(who, **body.filter())
    found = await crons.search(
        who,
        wanted,
        sort_by=body.sort_by,
        descending=body.sort_order != "asc",
        limit=body.limit + 1,
        offset=body.offset,
    )
    if len(found) > body.limit:
        response.headers["X-Pagination-Next"] = str(body.offset + body.limit)
    names = None if body.select is None else ("cron_id", *body.select)
    shown = found[: body.limit]
    return shown if names is None else [{name: one[name] for name in names if name in one} for one in shown]


@router.post("/runs/crons/count")
async def count(body: CronSearch, who: Reader, services: Services) -> int:
    """How many crons there are that the caller may see."""
    crons = services.langgraph.crons
    return await crons.count(who, await crons.filter(who, **body.filter()))


@router.get("/runs/crons/{cron_id}")
async def get(cron_id: UUID, who: Reader, services: Services) -> dict[str, Any]:
    """A cron."""
    return await services.langgraph.crons.get(who, str(cron_id))


@router.patch("/runs/crons/{cron_id}")
async def update(cron_id: UUID, body: CronPatch, who: Starter, services: Services) -> dict[str, Any]:
    """Change a cron; what is left out stays as it is."""
    return await services.langgraph.crons.update(who, str(cron_id), body.changes())


@router.delete("/runs/crons/{cron_id}", status_code=204)
async def delete(cron_id: UUID, who: Starter, services: Services) -> None:
    """Delete a cron."""
    await services.langgraph.crons.delete(who, str(cron_id))


async def _create(services: Application, who: Principal, thread_id: str | None, body: CronBody) -> dict[str, Any]:
    return await services.langgraph.crons.create(
        who,
        body.request(),
        thread_id=thread_id,
        schedule=body.schedule,
        timezone=body.timezone,
        end_time=body.end_time,
        enabled=body.enabled is not False,
    )
