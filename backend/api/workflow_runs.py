"""`/workflows/{dag_id}/runs/{dag_run_id}`: cancel a run, retry what failed in it, or fork it."""

from dataclasses import asdict

from fastapi import APIRouter, Response

from backend.api.deps import Services, Starter, Stopper
from backend.api.json_bodies import JsonRoute
from backend.api.schemas.checkpoints import ForkBody, TaskForkBody
from backend.api.schemas.workflows import Accepted
from backend.api.workflow_triggers import IdempotencyKey
from backend.db.rows import Row
from backend.services.application import Application
from backend.services.runs.checkpoints import TaskPlace
from backend.services.triggering.fork import ForkRequest

router = APIRouter(prefix="/workflows/{dag_id}/runs/{dag_run_id}", tags=["workflows"], route_class=JsonRoute)


@router.post("/cancel", status_code=202)
async def cancel_run(dag_id: str, dag_run_id: str, who: Stopper, services: Services, response: Response) -> Accepted:
    """Cancel a run: its agents abort their model calls, and nothing further starts. Safe to repeat."""
    return _accepted(await services.runs.cancel(who, dag_id, dag_run_id), services, response)


@router.post("/retry", status_code=202)
async def retry_run(dag_id: str, dag_run_id: str, who: Stopper, services: Services, response: Response) -> Accepted:
    """Retry the failed tasks of a run that failed or was cancelled; agents continue from their checkpoints."""
    return _accepted(await services.runs.retry(who, dag_id, dag_run_id), services, response)


@router.post("/tasks/{task_id}/fork", status_code=202)
async def fork_task(
    dag_id: str,
    dag_run_id: str,
    task_id: str,
    body: ForkBody,
    who: Starter,
    services: Services,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Accepted:
    """Start a new run of the DAG in which an agent of this task goes on from a state that it had in this run.

    What was paid for before that state is not paid for again. The new run has this run's input unless `input_data`
    replaces it. Agents that are asked the same as here and don't depend on this one return what they returned here;
    everything else runs as usual. It is checked like a trigger, and a repeated `Idempotency-Key` finds the same run.
    """
    return await _forked(dag_id, dag_run_id, task_id, body, who, services, response, idempotency_key)


@router.post("/fork", status_code=202)
async def fork_run(
    dag_id: str,
    dag_run_id: str,
    body: TaskForkBody,
    who: Starter,
    services: Services,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Accepted:
    """The same, with the task in the body."""
    return await _forked(dag_id, dag_run_id, body.task_id, body, who, services, response, idempotency_key)


async def _forked(
    dag_id: str,
    dag_run_id: str,
    task_id: str,
    body: ForkBody,
    who: Starter,
    services: Application,
    response: Response,
    key: str | None,
) -> Accepted:
    place = TaskPlace(dag_id, dag_run_id, task_id, body.map_index)
    given = {name: getattr(body, name) for name in ForkBody.model_fields if name != "map_index"}
    started = await services.forks.fork(who, ForkRequest(place, **given), key)
    accepted = Accepted(**asdict(started), **services.status.urls(started.dag_id, started.dag_run_id))
    response.headers["Location"] = accepted.status_url
    return accepted


def _accepted(row: Row, services: Application, response: Response) -> Accepted:
    dag_id, dag_run_id = row["dag_id"], row["dag_run_id"]
    urls = services.status.urls(dag_id, dag_run_id)
    response.headers["Location"] = urls["status_url"]
    return Accepted(execution_id=str(row["id"]), dag_id=dag_id, dag_run_id=dag_run_id, state=row["state"], **urls)
