"""Liveness, readiness and Prometheus metrics, for operators."""

import secrets

from fastapi import APIRouter, Request, Response, status
from fastapi.concurrency import run_in_threadpool

from backend.api.deps import Services, is_local, user_of
from backend.api.metrics import CONTENT_TYPE, Metrics
from backend.core.problems import Forbidden
from backend.core.roles import Role
from backend.services.application import Application

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether the process responds, regardless of what it depends on."""
    return {"status": "alive"}


@router.get("/readyz", responses={503: {"description": "The database is out of reach or not migrated."}})
async def readyz(services: Services, response: Response) -> dict[str, str]:
    """Whether requests can be served: the database answers and its migrations are applied."""
    ready, checks = await services.health.ready()
    if not ready:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return {"status": "ready" if ready else "not ready", **checks}


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, services: Services) -> Response:
    """Metrics in the Prometheus text format.

    A scraper sends `VISUAL_AI_METRICS_TOKEN`, or the token of an Op or Admin. In development one on the same machine
    needs none.
    """
    if not await _may_scrape(request, services):
        raise Forbidden(
            "Metrics are for the roles Op and Admin, their service tokens that may read all DAGs, and for "
            "VISUAL_AI_METRICS_TOKEN."
        )
    await services.model_limits.refresh()
    await services.admission.refresh()
    collected: Metrics = request.app.state.metrics
    return Response(await run_in_threadpool(collected.render), media_type=CONTENT_TYPE)


async def _may_scrape(request: Request, services: Application) -> bool:
    token = services.settings.metrics_token
    given = request.headers.get("authorization", "").partition(" ")[2].strip()
    if token is not None and secrets.compare_digest(given.encode(), token.get_secret_value().encode()):
        return True
    if services.settings.development and is_local(request, services):
        return True
    who = await user_of(request, services)
    return who.role >= Role.OP and who.sees_all
