"""`/workflow-status`: the state of runs, as a list, a snapshot, a stream, and their results and logs."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import AwareDatetime
from sse_starlette import EventSourceResponse

from backend.api.addresses import run_urls
from backend.api.deps import Name, Reader, Services, wants_head
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
from backend.core.problems import FieldError, Invalid, NotFound
from backend.core.states import TERMINAL_RUN_STATES
from backend.db.runs.batch_items import item_json
from backend.services.application import Application

router = APIRouter(prefix="/workflow-status", tags=["status"])

State = Literal["queued", "running", "success", "failed", "cancelled", "awaiting_input"]

LARGEST = 2**31 - 1
"""The largest value of an integer column."""

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
        "headers": {"X-Try-Number": {"schema": {"type": "integer"}, "description": "The try that the log belongs to"}},
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
    """Runs, newest first. Pass `next_cursor` as `cursor` for the next page. The role User sees only its own runs.

    `agent`: runs in which an agent of this name worked. `error_category` and `error_agent`: runs that met an error of
    this category or in this agent, whether they recovered from it or not.
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


# Before the route of the snapshot, which would take `stream` for a DAG.
@router.get("/stream/{dag_id}/{dag_run_id}", response_class=EventSourceResponse, responses=STREAM_DOC)  # type: ignore[arg-type]  # FastAPI types the keys as a union
async def stream_status(
    request: Request,
    dag_id: str,
    dag_run_id: str,
    who: Reader,
    services: Services,
    last_event_id_header: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
    last_event_id: Annotated[str | None, Query()] = None,
) -> Response:
    """The run's events as they happen.

    Without a cursor the stream starts with the run's current state. With `Last-Event-ID` (header or query) it resumes
    after that event, without loss. The server closes the stream after `end`.
    """
    cursor = _cursor(last_event_id_header or last_event_id)
    try:
        stream = await services.streams.open(who, dag_id, dag_run_id, cursor)
    except NotFound:
        if dag_run_id == "result":  # of a run of the DAG `stream`, whose path reads like this one
            return await get_result("stream", dag_id, who, services)
        raise
    if wants_head(request):
        return Response(media_type="text/event-stream")
    return EventStream(stream)


@router.get("/{dag_id}/{dag_run_id}")
async def get_snapshot(dag_id: str, dag_run_id: str, who: Reader, services: Services) -> SnapshotOut:
    """The run's current state."""
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
    after: Annotated[int, Query(ge=-1, le=LARGEST, description="Items after this position; -1: from the first")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> ItemList:
    """The outcome of each of a batch task's inputs, in order. Pass `next_after` as `after` for the next page."""
    rows = await services.status.items(who, dag_id, dag_run_id, task_id, map_index, after=after, limit=limit + 1)
    page = [ItemOut(**item_json(row)) for row in rows[:limit]]
    return ItemList(items=page, next_after=page[-1].index if len(rows) > limit else None)


@router.get("/{dag_id}/{dag_run_id}/result", response_class=Response, responses=RESULT_DOC)  # type: ignore[arg-type]  # as above
async def get_result(
    dag_id: str,
    dag_run_id: str,
    who: Reader,
    services: Services,
    partial: Annotated[bool, Query(description="Also the result that a failed or cancelled run had by then")] = False,
) -> Response:
    """The complete result of the run's last agent task, as JSON; `null` when no agent returned anything.

    409 with `Retry-After` while the run has not finished, and 409 when it failed or was cancelled, unless `partial` is
    set.
    """
    result = await services.status.result(who, dag_id, dag_run_id, partial=partial)
    return Response(result, media_type="application/json")


@router.get("/{dag_id}/{dag_run_id}/tasks/{task_id}/logs", response_class=Response, responses=LOG_DOC)  # type: ignore[arg-type]  # as above
async def get_logs(
    request: Request,
    dag_id: str,
    dag_run_id: str,
    task_id: str,
    who: Reader,
    services: Services,
    try_number: Annotated[int | None, Query(ge=1, le=LARGEST, description="Default: the latest")] = None,
    map_index: Annotated[int, Query(ge=-1, le=LARGEST, description="For a mapped task")] = -1,
    follow: Annotated[bool, Query(description="Continue until the try ends, even if it has not started")] = False,
    after: Annotated[int, Query(ge=0, description="Skip this many lines, which you already have")] = 0,
) -> Response:
    """The log of a task's try, streamed from Airflow with your own rights there.

    The log is text with one line per entry or, with `Accept: application/x-ndjson`, Airflow's entries as JSON objects,
    one per line; with `follow` an empty line from time to time keeps the connection open. `X-Try-Number` says which try
    it is. Lines over 1 MiB are omitted. If the connection ends before the body does, repeat the request with `after`.
    """
    log = await services.task_logs.open(
        who, dag_id, dag_run_id, task_id, map_index=map_index, try_number=try_number, follow=follow, after=after
    )
    as_json = NDJSON in request.headers.get("accept", "")
    if wants_head(request):
        await log.lines.aclose()
        return Response(headers={"X-Try-Number": str(log.try_number)}, media_type=NDJSON if as_json else "text/plain")
    return StreamingResponse(
        _json(log.lines) if as_json else _text(log.lines),
        media_type=NDJSON if as_json else "text/plain",
        headers={
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
        text = "\n".join(filter(None, map(as_text, lines)))
        if text or not lines:
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
        "reason": row["reason"] if row["state"] in TERMINAL_RUN_STATES else row["waits_for"],
        "usage": Usage(input_tokens=row["input_tokens"], output_tokens=row["output_tokens"]),
        "cost_usd": float(row["cost_usd"]) if row["cost_usd"] is not None else None,
        **run_urls(services, dag_id, dag_run_id),
    }


def _cursor(text: str | None) -> int | None:
    if text is None or not text.strip():
        return None
    if text.strip().isascii() and text.strip().isdigit() and len(text) < 19:
        return int(text)
    detail = "is not an event id of this stream, which is an integer"
    raise Invalid(f"Last-Event-ID: {detail}", errors=[FieldError("?last_event_id", detail)])
