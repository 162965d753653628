"""Liveness, readiness and Prometheus metrics, for operators."""

from fastapi import APIRouter, Request, Response, status
from fastapi.concurrency import run_in_threadpool

from backend.api.deps import Services, is_local, user_of
from backend.api.metrics import CONTENT_TYPE, Metrics
from backend.core.problems import Forbidden
from backend.core.roles import Role

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

    A scraper on the same machine needs no token. Any other, including one behind a proxy, needs the token of an Op or
    Admin.
    """
    if not is_local(request, services) and user_of(request, services).role < Role.OP:
        raise Forbidden("Metrics are for the roles Op and Admin.")
    await services.model_limits.refresh()
    collected: Metrics = request.app.state.metrics
    return Response(await run_in_threadpool(collected.render), media_type=CONTENT_TYPE)
