"""`/workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/checkpoints`: the states of a task's agents over time."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from backend.api.deps import Name, Reader, Services
from backend.api.runs.values import VALUE_DOC, value_response
from backend.api.schemas.checkpoints import CheckpointList, CheckpointOut, CheckpointState
from backend.services.runs.checkpoints import TaskPlace

router = APIRouter(prefix="/workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/checkpoints", tags=["workflows"])

_LARGEST = 2**31 - 1

MapIndex = Annotated[int, Query(ge=-1, le=_LARGEST, description="For a mapped task")]


@router.get("")
async def list_checkpoints(
    dag_id: str,
    dag_run_id: str,
    task_id: str,
    who: Reader,
    services: Services,
    map_index: MapIndex = -1,
    agent: Name = None,
    item: Annotated[int | None, Query(ge=0, le=_LARGEST, description="The item of a batch")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=4_000)] = None,
) -> CheckpointList:
    """The states of the task's agents between the steps of their graphs, newest first.

    They are what a retry resumes from and a run can be forked from. The list is empty, and `note` says why, if the task
    keeps none or they are deleted. Each agent of a team, each of its calls and each item of a batch has its own.
    """
    place = TaskPlace(dag_id, dag_run_id, task_id, map_index)
    page = await services.checkpoints.list_page(who, place, agent=agent, item=item, cursor=cursor, limit=limit)
    shown = [CheckpointOut(**one) for one in page.checkpoints]
    return CheckpointList(checkpoints=shown, next_cursor=page.next_cursor, note=page.note)


@router.get("/{checkpoint_id}")
async def get_checkpoint(
    dag_id: str,
    dag_run_id: str,
    task_id: str,
    checkpoint_id: str,
    who: Reader,
    services: Services,
    map_index: MapIndex = -1,
) -> CheckpointState:
    """A checkpoint with its state as JSON, without secrets and image bytes. A large state stands there by reference."""
    place = TaskPlace(dag_id, dag_run_id, task_id, map_index)
    return CheckpointState(**await services.checkpoints.get(who, place, checkpoint_id))


@router.get("/{checkpoint_id}/values", response_class=Response, responses=VALUE_DOC)
async def get_checkpoint_values(
    request: Request,
    dag_id: str,
    dag_run_id: str,
    task_id: str,
    checkpoint_id: str,
    who: Reader,
    services: Services,
    map_index: MapIndex = -1,
) -> Response:
    """The whole state as JSON. Supports what `…/result` does."""
    place = TaskPlace(dag_id, dag_run_id, task_id, map_index)
    return value_response(request, services, await services.checkpoints.state(who, place, checkpoint_id))
