"""`/workflows/trigger`: trigger runs."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from backend.api.deps import Services, Starter
from backend.api.json_bodies import JsonRoute
from backend.api.schemas.runs import SnapshotOut
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
from backend.api.workflow_status import snapshot_response
from backend.core.large_values import in_thread
from backend.core.problems import Problem
from backend.services.application import Application
from backend.services.triggering.request import TriggerRequest
from backend.services.triggering.trigger import Started

router = APIRouter(prefix="/workflows", tags=["workflows"], route_class=JsonRoute)

IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=256, description="The same key and body always return the same run."),
]


MAX_WAIT = 300
"""Seconds that a request may wait for its run; proxies give up at some time."""


@router.post(
    "/trigger",
    status_code=202,
    response_model=Accepted,
    responses={200: {"model": SnapshotOut, "description": "With `wait`: the run has ended"}},
)
async def trigger_workflow(
    body: TriggerBody,
    who: Starter,
    services: Services,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    wait: Annotated[
        float | None,
        Query(gt=0, le=MAX_WAIT, description="Seconds to wait for the run's end: 200 with its snapshot if it ends"),
    ] = None,
) -> Any:
    """Start a run of a DAG or of a template. Needs the role User or higher.

    A template provides what the request omits: `dag_id`, `model`, `budget` and, key by key, `input_data`.

    Send an `Idempotency-Key` if you may have to repeat the request: the same key never starts a second run.

    With `wait` the response comes when the run has ended, as its snapshot with the `result`; after so many seconds it
    is 202 as usual. A request that waits counts as an open stream.
    """
    if wait is not None:
        services.streams.check_room(who)
    request = replace(_request(body, body.input_data), logical_date=body.logical_date)
    started = await services.triggers.trigger(who, request, idempotency_key)
    accepted = Accepted(**_fields(started, services))
    response.headers["Location"] = accepted.status_url
    run = (started.dag_id, started.dag_run_id)
    if wait is not None and await services.streams.has_ended(who, *run, within=wait):
        ended = await snapshot_response(who, *run, services)
        ended.headers["Location"] = accepted.status_url
        return ended
    return accepted


@router.post("/trigger/batch", status_code=202, response_model=BatchAccepted)
async def trigger_batch(
    body: BatchBody,
    who: Starter,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Start a run of a DAG or of a template for each input. Each has its own outcome: the run or the problem.

    The batch is completed even if you disconnect. With an `Idempotency-Key` a repeated request starts only the runs
    that are missing. For thousands of inputs, one run with a batch task is far cheaper than as many runs.
    """
    await services.batch_triggers.check_size(who, len(body.inputs))
    requests = [_request(body, input_data) for input_data in body.inputs]
    outcomes = await services.batch_triggers.trigger(who, requests, idempotency_key)
    # Entry by entry, a thousand would take the event loop a while.
    content = await in_thread(lambda: _batch_accepted(outcomes, services).model_dump_json())
    return Response(content, 202, media_type="application/json")


def _batch_accepted(outcomes: Sequence[Started | Problem], services: Application) -> BatchAccepted:
    entries = [
        RefusedEntry(index=index, problem=ProblemOut(**outcome.body(), retry_after=outcome.retry_after))
        if isinstance(outcome, Problem)
        else AcceptedEntry(index=index, **_fields(outcome, services))
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


def _fields(started: Started, services: Application) -> dict[str, str]:
    return {**asdict(started), **services.status.urls(started.dag_id, started.dag_run_id)}
