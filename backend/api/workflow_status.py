"""`/workflow-status`: where runs stand, as a snapshot, a list and a stream."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import AwareDatetime
from sse_starlette import EventSourceResponse

from backend.api.addresses import status_url, stream_url
from backend.api.deps import Name, Reader, Services
from backend.api.event_stream import EventStream
from backend.api.schemas.workflows import (
    AgentOut,
    ErrorOut,
    ExecutionList,
    ExecutionOut,
    ItemList,
    ItemOut,
    SnapshotOut,
    TaskOut,
    Usage,
)
from backend.core.errors.category import Category
from backend.core.log_text import as_text
from backend.core.problems import FieldError, Invalid
from backend.db.runs.batch_items import item_json
from backend.services.application import Application

router = APIRouter(prefix="/workflow-status", tags=["status"])

State = Literal["queued", "running", "success", "failed", "cancelled", "awaiting_input"]

LARGEST = 2**31 - 1
"""The largest number that the databases keep in such a column."""

NDJSON = "application/x-ndjson"

STREAM_DOC = {
    200: {
        "description": "Server-sent events: workflow_update, task_update, agent_update, token, error, gap, end",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}

RESULT_DOC = {
    200: {"description": "The result", "content": {"application/json": {"schema": {}}}},
}
LOG_DOC = {
    200: {
        "description": "The log",
        "content": {name: {"schema": {"type": "string"}} for name in ("text/plain", NDJSON)},
        "headers": {"X-Try-Number": {"schema": {"type": "integer"}, "description": "Whose log it is"}},
    }
}


@router.get("")
async def list_executions(
    who: Reader,
    services: Services,
    dag_id: Name = None,
    state: Annotated[list[State] | None, Query()] = None,
    user_id: Name = None,
    since: AwareDatetime | None = None,
    agent: Name = None,
    error_category: Category | None = None,
    error_agent: Name = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> ExecutionList:
    """Runs, newest first. Give `next_cursor` as `cursor` for the next page. The role User sees only its own.

    `agent`: those in which an agent of this name worked. `error_category` and `error_agent`: those that met an error of
    this kind, in this agent, whether they got over it or not.
    """
    page = await services.status.list_page(
        who,
        dag_id=dag_id,
        states=list(state or []),
        user_id=user_id,
        since=since,
        agent=agent,
        error_category=error_category,
        error_agent=error_agent,
        cursor=cursor,
        limit=limit,
    )
    return ExecutionList(
        executions=[ExecutionOut(**_execution(row, services)) for row in page.rows],
        next_cursor=page.next_cursor,
    )


# Before the snapshot's route, which would take `stream` for a DAG.
@router.get("/stream/{dag_id}/{dag_run_id}", response_class=EventSourceResponse, responses=STREAM_DOC)  # type: ignore[arg-type]  # FastAPI types the keys as a union
async def stream_status(
    dag_id: str,
    dag_run_id: str,
    who: Reader,
    services: Services,
    last_event_id_header: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
    last_event_id: Annotated[str | None, Query()] = None,
) -> Response:
    """The run's events as they happen.

    Without a cursor the present state comes first. With `Last-Event-ID` (header or query) what follows that event
    comes, without loss. After `end` the server closes.
    """
    cursor = _cursor(last_event_id_header or last_event_id)
    return EventStream(await services.streams.open(who, dag_id, dag_run_id, cursor))


@router.get("/{dag_id}/{dag_run_id}")
async def get_snapshot(dag_id: str, dag_run_id: str, who: Reader, services: Services) -> SnapshotOut:
    """The run as it stands now."""
    snapshot = await services.status.snapshot(who, dag_id, dag_run_id)
    return SnapshotOut(
        **_execution(snapshot.row, services),
        input_data=snapshot.row["input_data"],
        tasks=[TaskOut(**task) for task in snapshot.tasks],
        agents=[AgentOut(**agent) for agent in snapshot.agents],
        errors=[ErrorOut(**error) for error in snapshot.errors],
        result=snapshot.row["output_data"],
        last_event_id=snapshot.row["last_seq"],
    )


@router.get("/{dag_id}/{dag_run_id}/items/{task_id}")
async def list_items(
    dag_id: str,
    dag_run_id: str,
    task_id: str,
    who: Reader,
    services: Services,
    map_index: Annotated[int, Query(ge=-1, le=LARGEST)] = -1,
    after: Annotated[int, Query(ge=-1, le=LARGEST, description="Items behind this position; -1: from the first")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> ItemList:
    """What became of a batch task's inputs, in order. Give `next_after` as `after` for the next page."""
    rows = await services.status.items(who, dag_id, dag_run_id, task_id, map_index, after=after, limit=limit + 1)
    page = [ItemOut(**item_json(row)) for row in rows[:limit]]
    return ItemList(items=page, next_after=page[-1].index if len(rows) > limit else None)


@router.get("/{dag_id}/{dag_run_id}/result", response_class=Response, responses=RESULT_DOC)  # type: ignore[arg-type]  # as above
async def get_result(
    dag_id: str,
    dag_run_id: str,
    who: Reader,
    services: Services,
    partial: Annotated[bool, Query(description="Also what a run that failed or was cancelled had returned")] = False,
) -> Response:
    """What the run's last agent task returned, whole and alone, as JSON; `null` when no agent returned anything.

    409 while the run is not over, with `Retry-After`, and, without `partial`, when it failed or was cancelled.
    """
    result = await services.status.result(who, dag_id, dag_run_id, partial=partial)
    return Response(result, media_type="application/json", headers={"Cache-Control": "no-store"})


@router.get("/{dag_id}/{dag_run_id}/tasks/{task_id}/logs", response_class=Response, responses=LOG_DOC)  # type: ignore[arg-type]  # as above
async def get_logs(
    request: Request,
    dag_id: str,
    dag_run_id: str,
    task_id: str,
    who: Reader,
    services: Services,
    try_number: Annotated[int | None, Query(ge=1, le=LARGEST, description="Default: the latest")] = None,
    map_index: Annotated[int, Query(ge=-1, le=LARGEST, description="Of a mapped task")] = -1,
    follow: Annotated[bool, Query(description="Go on until the try is over, also when it has not begun")] = False,
    after: Annotated[int, Query(ge=0, description="Leave out so many lines: those that you have")] = 0,
) -> StreamingResponse:
    """The log of a task's try, streamed from Airflow with your own rights there.

    Text, one line for each entry; with `Accept: application/x-ndjson` Airflow's entries as JSON objects, one a line,
    and with `follow` an empty line now and then that only keeps the connection. `X-Try-Number` tells the try. A line
    over 1 MiB is left out. A connection that ends in the middle of its body has lost the rest: repeat it with `after`.
    """
    log = await services.task_logs.open(
        who, dag_id, dag_run_id, task_id, map_index=map_index, try_number=try_number, follow=follow, after=after
    )
    as_json = NDJSON in request.headers.get("accept", "")
    return StreamingResponse(
        _json(log.lines) if as_json else _text(log.lines),
        media_type=NDJSON if as_json else "text/plain",
        headers={
            "Cache-Control": "no-store",
            "Vary": "Accept",
            "X-Accel-Buffering": "no",
            "X-Content-Type-Options": "nosniff",
            "X-Try-Number": str(log.try_number),
        },
    )


async def _json(pages: AsyncIterator[list[bytes]]) -> AsyncIterator[bytes]:
    async for lines in pages:
        yield b"\n".join([*lines, b""]) if lines else b"\n"


async def _text(pages: AsyncIterator[list[bytes]]) -> AsyncIterator[str]:
    async for lines in pages:
        if text := "\n".join(filter(None, map(as_text, lines))):
            yield text + "\n"


def _execution(row: Mapping[str, Any], services: Application) -> dict[str, Any]:
    dag_id, dag_run_id = row["dag_id"], row["dag_run_id"]
    kept = (
        "dag_id", "dag_run_id", "run_type", "user_id", "state", "progress", "tasks_total", "tasks_done", "attempt",
        "queued_at", "started_at", "finished_at", "template_name", "template_version", "trace_url",
    )  # fmt: skip
    return {
        **{name: row[name] for name in kept},
        "execution_id": str(row["id"]),
        "usage": Usage(input_tokens=row["input_tokens"], output_tokens=row["output_tokens"]),
        "cost_usd": float(row["cost_usd"]) if row["cost_usd"] is not None else None,
        "status_url": status_url(dag_id, dag_run_id),
        "stream_url": stream_url(dag_id, dag_run_id),
        "airflow_url": services.status.airflow_url(dag_id, dag_run_id),
    }


def _cursor(given: str | None) -> int | None:
    if given is None or not given.strip():
        return None
    if given.strip().isascii() and given.strip().isdigit() and len(given) < 19:
        return int(given)
    detail = "is not an event id of this stream; it is a whole number"
    raise Invalid(f"Last-Event-ID: {detail}", errors=[FieldError("?last_event_id", detail)])
