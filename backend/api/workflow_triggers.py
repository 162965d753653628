"""`/workflows/trigger`: start runs."""

from typing import Annotated

from fastapi import APIRouter, Header, Response

from backend.api.addresses import status_url, stream_url
from backend.api.deps import Services, Starter
from backend.api.schemas.workflows import Accepted, TriggerBody
from backend.services.trigger import TriggerRequest

router = APIRouter(prefix="/workflows", tags=["workflows"])

IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=256, description="The same key and body always answer with the same run."),
]


@router.post("/trigger", status_code=202)
async def trigger_workflow(
    body: TriggerBody,
    who: Starter,
    services: Services,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Accepted:
    """Start a run of a DAG. Needs the role User or higher.

    Send an `Idempotency-Key` when you may have to repeat the request: it never starts a second run.
    """
    request = TriggerRequest(body.dag_id, body.input_data, body.user_id, body.model, body.run_after)
    started = await services.triggers.trigger(who, request, idempotency_key)
    location = status_url(started.dag_id, started.dag_run_id)
    response.headers["Location"] = location
    return Accepted(
        execution_id=started.execution_id,
        dag_id=started.dag_id,
        dag_run_id=started.dag_run_id,
        state=started.state,
        status_url=location,
        stream_url=stream_url(started.dag_id, started.dag_run_id),
        airflow_url=services.status.airflow_url(started.dag_id, started.dag_run_id),
    )
