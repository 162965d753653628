"""What a run returned, what it was started with, and what items of a batch returned, whole, as JSON."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from backend.api.deps import Reader, Services
from backend.api.partial_content import json_response
from backend.db.runs.results import LAST_INDEX
from backend.db.runs.value_text import StoredText
from backend.services.application import Application

router = APIRouter(prefix="/workflow-status", tags=["status"])

_JSON: dict[str, Any] = {"content": {"application/json": {"schema": {}}}}
VALUE_DOC: dict[int | str, dict[str, Any]] = {
    200: {"description": "The value", **_JSON},
    206: {"description": "The part that `Range` asks for", **_JSON},
    304: {"description": "`If-None-Match` names the present value"},
    416: {"description": "`Range` begins after the end"},
}


@router.get("/{dag_id}/{dag_run_id}/result", response_class=Response, responses=VALUE_DOC)
async def get_result(
    request: Request,
    dag_id: str,
    dag_run_id: str,
    who: Reader,
    services: Services,
    partial: Annotated[bool, Query(description="Also the result that a failed or cancelled run had by then")] = False,
    after: Annotated[
        int, Query(ge=-1, lt=LAST_INDEX, description="Of a mapped task: results after this map index")
    ] = -1,
    limit: Annotated[
        int | None, Query(ge=1, le=10_000, description="Of a mapped task: results of at most this many instances")
    ] = None,
) -> Response:
    """The complete result of the run's last agent task, as JSON; `null` when no agent returned anything.

    If that task is mapped, the result is a list by map index, with `null` for an instance that returned nothing. It is
    the whole list without `limit`; with it, `Link: <…>; rel="next"` has the address of the next page.

    409 with `Retry-After` while the run has not finished, and 409 when it failed or was cancelled, unless `partial` is
    set. Supports HEAD, `If-None-Match`, `Range` and `If-Range`.
    """
    text, found = await services.values.result(who, dag_id, dag_run_id, partial=partial, after=after, limit=limit)
    headers = {}
    if found.last is not None:
        headers["X-Total-Count"] = str(found.last + 1)
        if limit is not None and after + limit < found.last:
            run = f"{quote(dag_id, safe='')}/{quote(dag_run_id, safe='')}"
            query = f"after={after + limit}&limit={limit}{'&partial=true' if partial else ''}"
            headers["Link"] = f'</workflow-status/{run}/result?{query}>; rel="next"'
    return value_response(request, services, text, headers)


@router.get("/{dag_id}/{dag_run_id}/input", response_class=Response, responses=VALUE_DOC)
async def get_input(request: Request, dag_id: str, dag_run_id: str, who: Reader, services: Services) -> Response:
    """The complete `input_data` of the run, as JSON, without secrets and image bytes. Supports what `…/result` does."""
    return value_response(request, services, await services.values.input(who, dag_id, dag_run_id))


@router.get("/{dag_id}/{dag_run_id}/items/{task_id}/{index}/output", response_class=Response, responses=VALUE_DOC)
async def get_item_output(
    request: Request,
    dag_id: str,
    dag_run_id: str,
    task_id: str,
    index: Annotated[int, Path(ge=0, le=LAST_INDEX)],
    who: Reader,
    services: Services,
    map_index: Annotated[int, Query(ge=-1, le=LAST_INDEX)] = -1,
) -> Response:
    """The complete output of an item of a batch task, as JSON. Supports what `…/result` does."""
    text = await services.values.item_output(who, dag_id, dag_run_id, task_id, map_index, index)
    return value_response(request, services, text)


def value_response(
    request: Request, services: Application, text: StoredText, headers: Mapping[str, str] | None = None
) -> Response:
    """The response with a text, or the part of it that the request asks for."""
    return json_response(
        request,
        size=text.size,
        tag=text.sha256,
        read=lambda start, stop: services.values.read(text, start, stop),
        headers=headers or {},
    )
