"""`/workflows/trigger`: start runs."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from backend.api.addresses import status_url, stream_url
from backend.api.deps import Services, Starter
from backend.api.schemas.workflows import (
    Accepted,
    AcceptedEntry,
    BatchAccepted,
    BatchBody,
    ProblemOut,
    RefusedEntry,
    RunOptions,
    TriggerBody,
)
from backend.core.problems import Problem
from backend.services.application import Application
from backend.services.triggering.request import TriggerRequest
from backend.services.triggering.trigger import Started

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
    """Start a run of a DAG, or of a template. Needs the role User or higher.

    A template gives what the request leaves out: `dag_id`, `model`, `budget` and, key by key, `input_data`.

    Send an `Idempotency-Key` when you may have to repeat the request: it never starts a second run.
    """
    request = _request(body, body.input_data)
    started = await services.triggers.trigger(who, request, idempotency_key)
    response.headers["Location"] = status_url(started.dag_id, started.dag_run_id)
    return Accepted(**_answer(started, services))


@router.post("/trigger/batch", status_code=202)
async def trigger_batch(
    body: BatchBody,
    who: Starter,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> BatchAccepted:
    """Start a run of a DAG, or of a template, for each input. Each has its own answer: the run or the problem.

    Once begun it is carried through, even if you go away. With an `Idempotency-Key` a repeated request starts only
    what was not started before. For thousands of inputs, one run with a batch task is far cheaper than as many runs.
    """
    requests = [_request(body, given) for given in body.inputs]
    outcomes = await services.batch_triggers.trigger(who, requests, idempotency_key)
    entries = [
        RefusedEntry(index=index, problem=ProblemOut(**outcome.body(), retry_after=outcome.retry_after))
        if isinstance(outcome, Problem)
        else AcceptedEntry(index=index, **_answer(outcome, services))
        for index, outcome in enumerate(outcomes)
    ]
    accepted = sum(isinstance(entry, AcceptedEntry) for entry in entries)
    return BatchAccepted(accepted=accepted, refused=len(entries) - accepted, entries=entries)


def _request(body: RunOptions, input_data: dict[str, Any]) -> TriggerRequest:
    return TriggerRequest(
        dag_id=body.dag_id or "",
        input_data=input_data,
        user_id=body.user_id,
        model=body.model,
        run_after=body.run_after,
        budget=body.budget_json(),
        template=body.template,
    )


def _answer(started: Started, services: Application) -> dict[str, str]:
    return {
        "execution_id": started.execution_id,
        "dag_id": started.dag_id,
        "dag_run_id": started.dag_run_id,
        "state": started.state,
        "status_url": status_url(started.dag_id, started.dag_run_id),
        "stream_url": stream_url(started.dag_id, started.dag_run_id),
        "airflow_url": services.status.airflow_url(started.dag_id, started.dag_run_id),
    }
