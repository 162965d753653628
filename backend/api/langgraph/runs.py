"""Runs: `/threads/{thread_id}/runs`, and `/runs` for those that have no thread of their own."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from backend.api.deps import Reader, Services, Starter, Stopper
from backend.api.langgraph.bodies import MOST, RunBody, RunsCancel
from backend.api.langgraph.responses import last_event_id, streamed
from backend.core.problems import FieldError, Invalid
from backend.core.roles import Principal
from backend.db.conversations.conversations import Search
from backend.db.rows import Row
from backend.services.application import Application
from backend.services.langgraph.runs import run_json, status_of

router = APIRouter(tags=["runs"])

Status = Literal["pending", "running", "error", "success", "timeout", "interrupted"]

JSON = "application/json"


@router.post("/threads/{thread_id}/runs")
async def create(
    thread_id: UUID, body: RunBody, who: Starter, services: Services, response: Response
) -> dict[str, Any]:
    """Start a run in the background."""
    turn = await services.langgraph.runs.start(who, str(thread_id), body.request())
    response.headers["Content-Location"] = _path(turn)
    return run_json(turn)


@router.post("/threads/{thread_id}/runs/stream")
async def create_and_stream(
    thread_id: UUID, body: RunBody, request: Request, who: Starter, services: Services
) -> StreamingResponse:
    """Start a run and stream it."""
    return await _stream_new(services, who, request, str(thread_id), body)


@router.post("/threads/{thread_id}/runs/wait")
async def create_and_wait(
    thread_id: UUID, body: RunBody, request: Request, who: Starter, services: Services
) -> StreamingResponse:
    """Start a run and wait for the thread's values when it is over, or `{"__error__": …}`."""
    return await _wait_new(services, who, request, str(thread_id), body)


@router.post("/runs")
async def create_stateless(body: RunBody, who: Starter, services: Services) -> dict[str, Any]:
    """Start a run in the background, in a thread that is deleted later."""
    return run_json(await services.langgraph.runs.start(who, None, body.request()))


@router.post("/runs/stream")
async def stream_stateless(body: RunBody, request: Request, who: Starter, services: Services) -> StreamingResponse:
    """The same, and stream it."""
    return await _stream_new(services, who, request, None, body)


@router.post("/runs/wait")
async def wait_stateless(body: RunBody, request: Request, who: Starter, services: Services) -> StreamingResponse:
    """The same, and wait for its values."""
    return await _wait_new(services, who, request, None, body)


@router.post("/runs/batch")
async def create_batch(bodies: list[RunBody], who: Starter, services: Services) -> list[dict[str, Any]]:
    """Start several runs, each in a thread of its own."""
    if len(bodies) > 100:
        raise Invalid(
            "More than 100 runs.", errors=[FieldError("", "a batch has at most 100 runs; send several requests")]
        )
    return [run_json(await services.langgraph.runs.start(who, None, body.request())) for body in bodies]


@router.post("/runs/cancel", status_code=204)
async def cancel_many(
    body: RunsCancel,
    who: Stopper,
    services: Services,
    action: Annotated[Literal["interrupt", "rollback"], Query()] = "interrupt",
) -> None:
    """Cancel runs: those that are named, of a thread, or all of the caller's in a status."""
    if body.thread_id is None and body.status is None:
        detail = "name a thread_id with run_ids, or a status"
        raise Invalid(detail, errors=[FieldError("", detail)])
    threads = services.langgraph.conversations
    if body.thread_id is not None:
        rows = [await threads.get(who, str(body.thread_id), to_change=True)]
    else:
        wanted = Search({}, status="busy", limit=MOST)
        rows = [row for row in await threads.search(who, wanted) if row["user_id"] == who.username]
    named = None if body.run_ids is None else {str(one) for one in body.run_ids}
    for row in rows:
        for turn in await threads.active(str(row["id"])):
            fits = body.status in (None, "all", status_of(turn))
            if fits and (named is None or turn["id"] in named):
                await services.langgraph.runs.cancel(who, turn, roll_back=action == "rollback")


@router.get("/threads/{thread_id}/runs")
async def list_runs(
    thread_id: UUID,
    who: Reader,
    services: Services,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 10,
    offset: Annotated[int, Query(ge=0)] = 0,
    status: Annotated[Status | None, Query()] = None,
    select: Annotated[list[str] | None, Query()] = None,
) -> list[dict[str, Any]]:
    """The runs of a thread, newest first."""
    await services.langgraph.conversations.get(who, str(thread_id))
    rows = await services.langgraph.runs.list_page(str(thread_id), status=status, limit=limit, offset=offset)
    found = [run_json(row) for row in rows]
    return found if select is None else [{name: one[name] for name in select if name in one} for one in found]


@router.get("/threads/{thread_id}/runs/{run_id}")
async def get(thread_id: UUID, run_id: UUID, who: Reader, services: Services) -> dict[str, Any]:
    """A run. Its metadata name the run in Airflow, with its events, cost and page."""
    return run_json((await _found(services, who, thread_id, run_id))[1])


@router.delete("/threads/{thread_id}/runs/{run_id}", status_code=204)
async def delete(thread_id: UUID, run_id: UUID, who: Starter, services: Services) -> None:
    """Delete a run that is over. What it has done to the thread stays, and so does the run in Airflow."""
    await services.langgraph.conversations.get(who, str(thread_id), to_change=True)
    await services.langgraph.runs.delete((await _found(services, who, thread_id, run_id))[1])


@router.post("/threads/{thread_id}/runs/{run_id}/cancel", response_model=None)
async def cancel(
    thread_id: UUID,
    run_id: UUID,
    request: Request,
    who: Stopper,
    services: Services,
    wait: Annotated[bool, Query()] = False,
    action: Annotated[Literal["interrupt", "rollback"], Query()] = "interrupt",
) -> Response:
    """Cancel a run; with `rollback`, what it has done to the thread is undone. With `wait`, answers when it is over."""
    row = await services.langgraph.conversations.get(who, str(thread_id), to_change=True)
    turn = (await _found(services, who, thread_id, run_id))[1]
    await services.langgraph.runs.cancel(who, turn, roll_back=action == "rollback")
    if not wait:
        return Response(status_code=202, media_type=JSON, content=b"{}")
    if action == "rollback":
        return Response(status_code=204)
    chunks = services.langgraph.streams.result(who, row, turn)
    return streamed(request, services, who, chunks, media_type=JSON)


@router.get("/threads/{thread_id}/runs/{run_id}/join")
async def join(
    thread_id: UUID,
    run_id: UUID,
    request: Request,
    who: Reader,
    services: Services,
    cancel_on_disconnect: Annotated[bool, Query()] = False,
) -> StreamingResponse:
    """Wait until a run is over; answers with the thread's values then."""
    row, turn = await _found(services, who, thread_id, run_id)
    chunks = services.langgraph.streams.result(who, row, turn)
    leave = _cancelling(services, who, turn) if cancel_on_disconnect else None
    return streamed(request, services, who, chunks, media_type=JSON, location=_path(turn), on_disconnect=leave)


@router.get("/threads/{thread_id}/runs/{run_id}/stream")
async def join_stream(
    thread_id: UUID,
    run_id: UUID,
    request: Request,
    who: Reader,
    services: Services,
    stream_mode: Annotated[list[str] | None, Query()] = None,
    cancel_on_disconnect: Annotated[bool, Query()] = False,
    last: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> StreamingResponse:
    """The events of a run: those after `Last-Event-ID`, or all of them, and then as they happen."""
    row, turn = await _found(services, who, thread_id, run_id)
    modes = {part for one in stream_mode or () for part in one.split(",") if part} or None
    chunks = services.langgraph.streams.run(who, row, turn, after=last_event_id(last), modes=modes)
    leave = _cancelling(services, who, turn) if cancel_on_disconnect else None
    return streamed(request, services, who, chunks, location=_path(turn), on_disconnect=leave)


async def _stream_new(
    services: Application, who: Principal, request: Request, thread_id: str | None, body: RunBody
) -> StreamingResponse:
    services.streams.check_room(who)
    asked = body.request()
    turn = await services.langgraph.runs.start(who, thread_id, asked)
    row = await services.langgraph.conversations.get(who, turn["conversation_id"])
    chunks = services.langgraph.streams.run(who, row, turn, after=None, modes=set(asked.stream_mode))
    leave = _cancelling(services, who, turn) if body.on_disconnect == "cancel" else None
    return streamed(request, services, who, chunks, location=_path(turn), on_disconnect=leave)


async def _wait_new(
    services: Application, who: Principal, request: Request, thread_id: str | None, body: RunBody
) -> StreamingResponse:
    services.streams.check_room(who)
    turn = await services.langgraph.runs.start(who, thread_id, body.request())
    row = await services.langgraph.conversations.get(who, turn["conversation_id"])
    chunks = services.langgraph.streams.result(who, row, turn)
    leave = _cancelling(services, who, turn) if body.on_disconnect == "cancel" else None
    return streamed(request, services, who, chunks, media_type=JSON, location=_path(turn), on_disconnect=leave)


async def _found(services: Application, who: Principal, thread_id: UUID, run_id: UUID) -> tuple[Row, Row]:
    row = await services.langgraph.conversations.get(who, str(thread_id))
    return row, await services.langgraph.runs.get(str(thread_id), str(run_id))


def _cancelling(services: Application, who: Principal, turn: Row) -> Any:
    async def cancel_it() -> None:
        now = await services.langgraph.runs.get(turn["conversation_id"], turn["id"])
        await services.langgraph.runs.cancel(who, now, roll_back=False)

    return cancel_it


def _path(turn: Row) -> str:
    return f"/threads/{turn['conversation_id']}/runs/{turn['id']}"
