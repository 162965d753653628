"""`/workflows/{dag_id}/runs/{dag_run_id}`: cancel a run, or retry what failed in it."""

from fastapi import APIRouter, Response

from backend.api.addresses import run_urls
from backend.api.deps import Services, SignedIn
from backend.api.schemas.workflows import Accepted
from backend.db.rows import Row
from backend.services.application import Application

router = APIRouter(prefix="/workflows/{dag_id}/runs/{dag_run_id}", tags=["workflows"])


@router.post("/cancel", status_code=202)
async def cancel_run(dag_id: str, dag_run_id: str, who: SignedIn, services: Services, response: Response) -> Accepted:
    """Cancel a run: its agents abort their model calls, and nothing further starts. Safe to repeat."""
    return _accepted(await services.runs.cancel(who, dag_id, dag_run_id), services, response)


@router.post("/retry", status_code=202)
async def retry_run(dag_id: str, dag_run_id: str, who: SignedIn, services: Services, response: Response) -> Accepted:
    """Retry the failed tasks of a run that failed or was cancelled; agents continue from their checkpoints."""
    return _accepted(await services.runs.retry(who, dag_id, dag_run_id), services, response)


def _accepted(row: Row, services: Application, response: Response) -> Accepted:
    dag_id, dag_run_id = row["dag_id"], row["dag_run_id"]
    urls = run_urls(services, dag_id, dag_run_id)
    response.headers["Location"] = urls["status_url"]
    return Accepted(execution_id=str(row["id"]), dag_id=dag_id, dag_run_id=dag_run_id, state=row["state"], **urls)
