"""`/workflow-status`: the state of runs, as a list, a snapshot, a stream, and their tasks, agents, errors and logs."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import AwareDatetime
from sse_starlette import EventSourceResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from backend.api.deps import Name, Reader, Services, wants_head
from backend.api.event_stream import EventStream
from backend.api.schemas.runs import (
    AgentList,
    AgentOut,
    ErrorList,
    ErrorOut,
    ExecutionList,
    ExecutionOut,
    ForkedFrom,
    ItemList,
    ItemOut,
    OpenQuestion,
    SnapshotOut,
    TaskList,
    TaskOut,
    Usage,
)
from backend.core.errors.category import Category
from backend.core.log_text import as_text
from backend.core.problems import FieldError, Invalid, NotFound, Unavailable
from backend.core.roles import Principal
from backend.core.states import TERMINAL_RUN_STATES
from backend.db.runs.pages import RowFilter
from backend.services.application import Application
from backend.services.runs.snapshot import Snapshot

WAITS_FOR_PEOPLE = "It waits for people to answer: its questions, or Airflow's required actions."

router = APIRouter(prefix="/workflow-status", tags=["status"])

State = Literal["queued", "running", "success", "failed", "cancelled", "awaiting_input"]

LARGEST = 2**31 - 1
"""The largest value of an integer column."""

MapIndex = Annotated[int | None, Query(ge=-1, le=LARGEST)]
PageLimit = Annotated[int, Query(ge=1, le=200)]
PageCursor = Annotated[str | None, Query(max_length=2_000)]

NDJSON = "application/x-ndjson"

STREAM_DOC = {
    200: {
        "description": "Server-sent events: workflow_update, task_update, agent_update, token, error, gap, end",
        "content": {"text/event-stream": {}},
    }
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
    forked_from: Name = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> ExecutionList:
    """Runs, newest first. Pass `next_cursor` as `cursor` for the next page. The role User sees only its own runs.

    `agent`: runs in which an agent of this name worked. `error_category` and `error_agent`: runs that met an error of
    this category or in this agent, whether they recovered from it or not. `forked_from`: forks of the run with this id.
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
        forked_from=forked_from,
        cursor=cursor,
        limit=limit,
    )
    return ExecutionList(
        executions=[ExecutionOut(**execution_fields(row, services)) for row in page.rows],
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
    except (NotFound, Unavailable):
        # It reads like the path of a run of a DAG named `stream`: `/stream/<run>/tasks`.
        path = f"{router.prefix}/{{dag_id}}/{{dag_run_id}}/{dag_run_id}"
        for route in request.app.routes:
            if isinstance(route, Route) and route.path == path:
                return _Forwarded(route, {"dag_id": "stream", "dag_run_id": dag_id})
        raise
    if wants_head(request):
        return Response(media_type="text/event-stream")
    return EventStream(stream)


class _Forwarded(Response):
    """The response of another route."""

    def __init__(self, route: Route, path_params: dict[str, str]) -> None:
        super().__init__()
        self._route, self._path_params = route, path_params

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._route.handle({**scope, "path_params": self._path_params}, receive, send)


@router.get("/{dag_id}/{dag_run_id}", response_model=SnapshotOut)
async def get_snapshot(dag_id: str, dag_run_id: str, who: Reader, services: Services) -> Response:
    """The run's current state. A large input or result stands there by reference (`truncated`)."""
    return await snapshot_response(who, dag_id, dag_run_id, services)


async def snapshot_response(who: Principal, dag_id: str, dag_run_id: str, services: Application) -> Response:
    snapshot = await services.status.snapshot(who, dag_id, dag_run_id)
    # In a thread: with hundreds of agents it takes longer than other requests should wait.
    body = await asyncio.to_thread(_snapshot_json, snapshot, execution_fields(snapshot.row, services))
    return Response(body, media_type="application/json")


def _snapshot_json(snapshot: Snapshot, execution: dict[str, Any]) -> bytes:
    whole = SnapshotOut.model_construct(
        **execution,
        input_data=snapshot.input_data,
        tasks=[TaskOut.model_construct(**task) for task in snapshot.tasks.items],
        tasks_next=snapshot.tasks.next_cursor,
        agents=[AgentOut.model_construct(**agent) for agent in snapshot.agents.items],
        agents_total=snapshot.agents.total,
        agents_next=snapshot.agents.next_cursor,
        errors=[ErrorOut.model_construct(**error) for error in snapshot.errors.items],
        errors_total=snapshot.errors.total,
        errors_next=snapshot.errors.next_cursor,
        questions=[_open_question(asked) for asked in snapshot.questions],
        mapped_tasks=snapshot.mapped,
        result=snapshot.result,
        last_event_id=snapshot.row["last_seq"],
    )
    return whole.__pydantic_serializer__.to_json(whole)


def _open_question(asked: dict[str, Any]) -> OpenQuestion:
    shown: dict[str, Any] = {name: asked[name] for name in OpenQuestion.model_fields if name in asked}
    return OpenQuestion.model_construct(**shown)


@router.get("/{dag_id}/{dag_run_id}/tasks")
async def list_tasks(
    dag_id: str,
    dag_run_id: str,
    who: Reader,
    services: Services,
    task_id: Name = None,
    map_index: MapIndex = None,
    state: Annotated[str | None, Query(max_length=40, pattern=r"^[a-z_]+$")] = None,
    limit: PageLimit = 200,
    cursor: PageCursor = None,
) -> TaskList:
    """The run's task instances: failed and active ones, queued ones, then the rest, each by task and map index."""
    wanted = RowFilter(task_id, map_index, state)
    page = await services.status.page(who, dag_id, dag_run_id, "tasks", wanted, cursor=cursor, limit=limit)
    tasks = [TaskOut(**task) for task in page.items]
    return TaskList(tasks=tasks, total=page.total, next_cursor=page.next_cursor)


@router.get("/{dag_id}/{dag_run_id}/agents")
async def list_agents(
    dag_id: str,
    dag_run_id: str,
    who: Reader,
    services: Services,
    task_id: Name = None,
    map_index: MapIndex = None,
    state: Annotated[str | None, Query(max_length=40, pattern=r"^[a-z_]+$")] = None,
    limit: PageLimit = 200,
    cursor: PageCursor = None,
) -> AgentList:
    """The run's agents, newest first, then the nodes of their graphs, newest first."""
    wanted = RowFilter(task_id, map_index, state)
    page = await services.status.page(who, dag_id, dag_run_id, "agents", wanted, cursor=cursor, limit=limit)
    agents = [AgentOut(**agent) for agent in page.items]
    return AgentList(agents=agents, total=page.total, next_cursor=page.next_cursor)


@router.get("/{dag_id}/{dag_run_id}/errors")
async def list_errors(
    dag_id: str,
    dag_run_id: str,
    who: Reader,
    services: Services,
    task_id: Name = None,
    map_index: MapIndex = None,
    limit: PageLimit = 100,
    cursor: PageCursor = None,
) -> ErrorList:
    """The run's errors, newest first."""
    wanted = RowFilter(task_id, map_index)
    page = await services.status.page(who, dag_id, dag_run_id, "errors", wanted, cursor=cursor, limit=limit)
    errors = [ErrorOut(**error) for error in page.items]
    return ErrorList(errors=errors, total=page.total, next_cursor=page.next_cursor)


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
    """The outcome of each of a batch task's inputs, in order. Pass `next_after` as `after` for the next page.

    A page has at most about 256 KB, and at least one item. A large `output` stands there by reference (`truncated`).
    """
    page = await services.status.items(who, dag_id, dag_run_id, task_id, map_index, after=after, limit=limit)
    return ItemList(items=[ItemOut(**item) for item in page.items], next_after=page.next_after)


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


def execution_fields(row: Mapping[str, Any], services: Application) -> dict[str, Any]:
    """The fields of `ExecutionOut`, from an execution's row."""
    dag_id, dag_run_id = row["dag_id"], row["dag_run_id"]
    kept = (
        "dag_id", "dag_run_id", "run_type", "user_id", "state", "progress", "tasks_total", "tasks_done", "attempt",
        "queued_at", "started_at", "finished_at", "template_name", "template_version", "trace_url",
    )  # fmt: skip
    return {
        **{name: row[name] for name in kept},
        "execution_id": str(row["id"]),
        "forked_from": ForkedFrom(dag_id=dag_id, **row["forked_from"]) if row["forked_from"] else None,
        "reason": _reason(row),
        "usage": Usage(input_tokens=row["input_tokens"], output_tokens=row["output_tokens"]),
        "cost_usd": float(row["cost_usd"]) if row["cost_usd"] is not None else None,
        **services.status.urls(dag_id, dag_run_id),
    }


def _reason(row: Mapping[str, Any]) -> str | None:
    """Why a run has ended as it has, or doesn't go on."""
    if row["state"] == "awaiting_input":
        return WAITS_FOR_PEOPLE
    found: str | None = row["reason"] if row["state"] in TERMINAL_RUN_STATES else row["waits_for"]
    return found


def _cursor(text: str | None) -> int | None:
    if text is None or not text.strip():
        return None
    if text.strip().isascii() and text.strip().isdigit() and len(text) < 19:
        return int(text)
    detail = "is not an event id of this stream, which is an integer"
    raise Invalid(f"Last-Event-ID: {detail}", errors=[FieldError("?last_event_id", detail)])
