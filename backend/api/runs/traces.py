"""`…/traces/{trace_id}`: one agent, or one node of its graph, with what it was given and what it returned."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from backend.api.deps import Reader, Services
from backend.api.runs.values import VALUE_DOC, value_response
from backend.api.schemas.runs import TraceOut
from backend.db.runs import traces
from backend.services.runs.whole_values import Side

router = APIRouter(prefix="/workflow-status/{dag_id}/{dag_run_id}/traces/{trace_id}", tags=["status"])

TraceId = Annotated[UUID, Path(description="The `id` of an agent in the snapshot or in `…/agents`")]

_DOC: dict[int | str, dict[str, Any]] = {
    **VALUE_DOC,
    409: {"description": "Not available yet; ask again after `Retry-After`"},
    410: {"description": "Not kept, or not any more; `detail` says why"},
}


@router.get("")
async def get_trace(dag_id: str, dag_run_id: str, trace_id: TraceId, who: Reader, services: Services) -> TraceOut:
    """An agent (`node` is null) or a node, with its input and output, without secrets and image bytes.

    Up to about 16 KB of JSON they stand here as they are. In place of a larger one is
    `{"truncated": true, "bytes", "media_type", "excerpt", "url", "reason"}`: the size of the whole, the JSON text of an
    excerpt in which long texts and lists are shortened, and the address of the whole. If the whole isn't available,
    `bytes` is null and `reason` says why; the address then answers 409 or 410.
    """
    found = await services.traces.get(who, dag_id, dag_run_id, trace_id)
    times = {name: found.row[name] for name in ("started_at", "finished_at")}
    return TraceOut(**traces.payload(found.row), **times, input=found.input, output=found.output)


@router.get("/input", response_class=Response, responses=_DOC)
async def get_trace_input(
    request: Request, dag_id: str, dag_run_id: str, trace_id: TraceId, who: Reader, services: Services
) -> Response:
    """The whole input of an agent or node as JSON, without secrets and image bytes. Supports what `…/result` does.

    It is read from the checkpoints: 410 says why these don't have it, or not any more.
    """
    return await _value(request, dag_id, dag_run_id, trace_id, "input", who, services)


@router.get("/output", response_class=Response, responses=_DOC)
async def get_trace_output(
    request: Request, dag_id: str, dag_run_id: str, trace_id: TraceId, who: Reader, services: Services
) -> Response:
    """The whole output of an agent or node as JSON, without secrets and image bytes; `null` when it failed.

    A node's is what it wrote to its graph's channels, and is read from the checkpoints; an agent's is read from what
    its task returned. 410 says why it is not there, or not any more. Supports what `…/result` does.
    """
    return await _value(request, dag_id, dag_run_id, trace_id, "output", who, services)


async def _value(
    request: Request, dag_id: str, dag_run_id: str, trace_id: UUID, side: Side, who: Reader, services: Services
) -> Response:
    text = await services.traces.value(who, dag_id, dag_run_id, trace_id, side)
    return value_response(request, services, text)
