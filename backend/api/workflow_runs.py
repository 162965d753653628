"""`/workflows/{dag_id}/runs/{dag_run_id}`: stop a run, or run again what failed."""

from fastapi import APIRouter, Response

from backend.api.addresses import status_url, stream_url
from backend.api.deps import Services, SignedIn
from backend.api.schemas.workflows import Accepted
from backend.db.rows import Row
from backend.services.application import Application

router = APIRouter(prefix="/workflows/{dag_id}/runs/{dag_run_id}", tags=["workflows"])


@router.post("/cancel", status_code=202)
async def cancel_run(dag_id: str, dag_run_id: str, who: SignedIn, services: Services, response: Response) -> Accepted:
    """Stop a run: its agents give up their model calls, nothing further starts. Safe to repeat."""
    return _accepted(await services.runs.cancel(who, dag_id, dag_run_id), services, response)


@router.post("/retry", status_code=202)
async def retry_run(dag_id: str, dag_run_id: str, who: SignedIn, services: Services, response: Response) -> Accepted:
    """Run again what failed of a run that failed or was cancelled; agents go on from their checkpoints."""
    return _accepted(await services.runs.retry(who, dag_id, dag_run_id), services, response)


def _accepted(row: Row, services: Application, response: Response) -> Accepted:
    dag_id, dag_run_id = row["dag_id"], row["dag_run_id"]
    location = status_url(dag_id, dag_run_id)
    response.headers["Location"] = location
    return Accepted(
        execution_id=str(row["id"]),
        dag_id=dag_id,
        dag_run_id=dag_run_id,
        state=row["state"],
        status_url=location,
        stream_url=stream_url(dag_id, dag_run_id),
        airflow_url=services.status.airflow_url(dag_id, dag_run_id),
    )
