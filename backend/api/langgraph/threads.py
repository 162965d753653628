"""`/threads`: conversations and their states."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from backend.api.deps import Reader, Services, Starter
from backend.api.langgraph.bodies import (
    CheckpointQuery,
    HistoryQuery,
    StateUpdate,
    ThreadCount,
    ThreadCreate,
    ThreadPatch,
    ThreadPrune,
    ThreadSearch,
)
from backend.api.langgraph.responses import last_event_id, streamed
from backend.core.problems import Conflict, FieldError, Invalid, NotFound
from backend.core.roles import Principal
from backend.db.conversations.conversations import Search
from backend.db.conversations.states import StateQuery
from backend.db.rows import Row
from backend.services.application import Application
from backend.services.langgraph.conversations import check_may_change, thread_json
from backend.services.langgraph.runs import RunRequest

router = APIRouter(prefix="/threads", tags=["threads"])


@router.post("")
async def create(body: ThreadCreate, who: Starter, services: Services) -> dict[str, Any]:
    """Make a thread. With `supersteps` it begins with the states that they make, of the graph in its metadata."""
    threads = services.langgraph.conversations
    row = await threads.create(
        who,
        conversation_id=str(body.thread_id) if body.thread_id else None,
        metadata=body.metadata,
        if_exists=body.if_exists,
        ttl=body.ttl,
    )
    if body.supersteps:
        graph = (body.metadata or {}).get("graph_id")
        if not isinstance(graph, str):
            detail = "names no graph_id, whose reducers the supersteps need"
            raise Invalid(f"/metadata: {detail}", errors=[FieldError("/metadata", detail)])
        steps = {"supersteps": [one.model_dump() for one in body.supersteps]}
        await _write(services, who, row, RunRequest(graph, update=steps))
    return await _shown(services, await threads.get(who, str(row["id"])))


@router.post("/search")
async def search(body: ThreadSearch, who: Reader, services: Services, response: Response) -> list[dict[str, Any]]:
    """The threads that the caller may see, newest first."""
    wanted = Search(
        body.metadata or {},
        None if body.ids is None else [str(one) for one in body.ids],
        body.status,
        body.sort_by or "created_at",
        body.sort_order != "asc",
        body.limit + 1,
        body.offset,
    )
    rows = await services.langgraph.conversations.search(who, wanted)
    if len(rows) > body.limit:
        response.headers["X-Pagination-Next"] = str(body.offset + body.limit)
    found = []
    for row in rows[: body.limit]:
        needs_state = body.values or body.extract or body.select is None or {"values", "interrupts"} & set(body.select)
        state = await services.langgraph.states.latest(row) if needs_state else None
        if body.values and not body.values.items() <= (state or {}).get("values", {}).items():
            continue
        one = thread_json(row, state, body.select)
        if body.extract:
            one["extracted"] = {name: _at(thread_json(row, state), path) for name, path in body.extract.items()}
        found.append(one)
    return found


@router.post("/count")
async def count(body: ThreadCount, who: Reader, services: Services) -> int:
    """How many threads there are that the caller may see."""
    wanted = Search(body.metadata or {}, None if body.ids is None else [str(one) for one in body.ids], body.status)
    return await services.langgraph.conversations.count(who, wanted)


@router.post("/prune")
async def prune(body: ThreadPrune, who: Starter, services: Services) -> dict[str, int]:
    """Delete threads, or all of their states but the latest."""
    threads, pruned = services.langgraph.conversations, 0
    found = [await threads.find(who, str(thread_id)) for thread_id in dict.fromkeys(body.thread_ids)]
    rows = [row for row in found if row is not None]
    for row in rows:  # all of them, before the first is changed
        check_may_change(who, row)
    for row in rows:
        thread_id = str(row["id"])
        if body.strategy == "keep_latest":
            pruned += await threads.keep_latest(who, thread_id)
        else:
            await _delete(services, who, thread_id)
            pruned += 1
    return {"pruned_count": pruned}


@router.get("/{thread_id}")
async def get(thread_id: UUID, who: Reader, services: Services) -> dict[str, Any]:
    """A thread, with its latest values."""
    return await _shown(services, await services.langgraph.conversations.get(who, str(thread_id)))


@router.patch("/{thread_id}")
async def update(thread_id: UUID, body: ThreadPatch, who: Starter, services: Services) -> dict[str, Any]:
    """Add to a thread's metadata, or set when it is deleted."""
    return await _shown(
        services, await services.langgraph.conversations.update(who, str(thread_id), body.metadata, body.ttl)
    )


@router.delete("/{thread_id}", status_code=204)
async def delete(thread_id: UUID, who: Starter, services: Services) -> None:
    """Delete a thread with all that was said in it. Its runs are cancelled; what they have cost stays on record."""
    await _delete(services, who, str(thread_id))


@router.post("/{thread_id}/copy")
async def copy(thread_id: UUID, who: Starter, services: Services) -> dict[str, Any]:
    """Make a thread that begins with the states of this one."""
    return await _shown(services, await services.langgraph.conversations.copy(who, str(thread_id)))


@router.get("/{thread_id}/state")
async def state(thread_id: UUID, who: Reader, services: Services) -> dict[str, Any]:
    """A thread's latest state."""
    row = await services.langgraph.conversations.get(who, str(thread_id))
    return await services.langgraph.states.latest(row)


@router.get("/{thread_id}/state/{checkpoint_id}")
async def state_at(thread_id: UUID, checkpoint_id: str, who: Reader, services: Services) -> dict[str, Any]:
    """A thread's state at a checkpoint."""
    return await _state_at(services, who, str(thread_id), checkpoint_id, "")


@router.post("/{thread_id}/state/checkpoint")
async def state_of(thread_id: UUID, body: CheckpointQuery, who: Reader, services: Services) -> dict[str, Any]:
    """The same, for a checkpoint that may be a subgraph's."""
    place = body.checkpoint
    return await _state_at(services, who, str(thread_id), place.get("checkpoint_id"), place.get("checkpoint_ns") or "")


@router.post("/{thread_id}/state")
async def write_state(thread_id: UUID, body: StateUpdate, who: Starter, services: Services) -> dict[str, Any]:
    """Write to a thread's state as a node would. The graph's own code does that, in a run in Airflow."""
    threads = services.langgraph.conversations
    row = await threads.get(who, str(thread_id), to_change=True)
    graph = row["dag_id"] or row["metadata"].get("graph_id")
    if graph is None:
        raise Conflict("The thread has no graph yet: run one in it first, or name graph_id in its metadata.")
    place = body.checkpoint or ({"checkpoint_id": body.checkpoint_id} if body.checkpoint_id else None)
    update = {"values": body.values, "as_node": body.as_node}
    await _write(services, who, row, RunRequest(graph, update=update, checkpoint=place))
    latest = await services.langgraph.states.latest(await threads.get(who, str(thread_id)))
    return {"checkpoint": latest["checkpoint"], "configurable": latest["checkpoint"]}


@router.post("/{thread_id}/history")
async def post_history(thread_id: UUID, body: HistoryQuery, who: Reader, services: Services) -> list[dict[str, Any]]:
    """A thread's states, newest first."""
    before = body.before
    if isinstance(before, dict):
        place = before.get("configurable") or before
        before = place.get("checkpoint_id")
    row = await services.langgraph.conversations.get(who, str(thread_id))
    return await services.langgraph.conversations.history(
        row,
        limit=body.limit,
        before=before,
        namespace=(body.checkpoint or {}).get("checkpoint_ns") or "",
        metadata=body.metadata,
    )


@router.get("/{thread_id}/history")
async def get_history(
    thread_id: UUID,
    who: Reader,
    services: Services,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 10,
    before: Annotated[str | None, Query()] = None,
) -> list[dict[str, Any]]:
    """The same as a plain request."""
    row = await services.langgraph.conversations.get(who, str(thread_id))
    return await services.langgraph.conversations.history(row, limit=limit, before=before, namespace="", metadata=None)


@router.get("/{thread_id}/stream")
async def stream(
    thread_id: UUID,
    request: Request,
    who: Reader,
    services: Services,
    stream_mode: Annotated[list[str] | None, Query()] = None,
    last: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> StreamingResponse:
    """The events of all runs of a thread, as they happen."""
    row = await services.langgraph.conversations.get(who, str(thread_id))
    modes = {part for one in stream_mode or () for part in one.split(",") if part} or {"run_modes"}
    after = 0 if last is not None and last.strip() == "-1" else last_event_id(last)
    chunks = services.langgraph.streams.thread(who, row, after=after, modes=modes)
    return streamed(request, services, who, chunks)


async def _shown(services: Application, row: Row) -> dict[str, Any]:
    return thread_json(row, await services.langgraph.states.latest(row))


async def _state_at(
    services: Application, who: Principal, thread_id: str, checkpoint_id: Any, namespace: str
) -> dict[str, Any]:
    row = await services.langgraph.conversations.get(who, thread_id)
    only = str(checkpoint_id) if checkpoint_id is not None else None
    found = await services.langgraph.states.read(row, StateQuery(thread_id, namespace, only=only))
    if not found:
        raise NotFound(f"The thread has no state {checkpoint_id}.")
    return found[0]


async def _write(services: Application, who: Principal, row: Row, asked: RunRequest) -> None:
    """Write to a thread's state, and wait until that is done. Raises what has prevented it."""
    key = str(row["id"])
    if any(turn["state"] != "paused" for turn in await services.langgraph.conversations.active(key)):
        raise Conflict("The thread is busy with a run; wait until it is over, or cancel it.")
    turn = await services.langgraph.runs.start(who, key, asked)
    async for _ in services.langgraph.streams.result(who, row, turn):
        pass
    ended = await services.langgraph.runs.get(key, turn["id"])
    if ended["run_state"] in ("failed", "cancelled") or ended["state"] == "error":
        detail = ended["reason"] or "the run that was to write it has failed"
        raise Invalid(f"/values: {detail}", errors=[FieldError("/values", detail)])


async def _delete(services: Application, who: Principal, thread_id: str) -> None:
    threads = services.langgraph.conversations
    await threads.get(who, thread_id, to_change=True)
    for turn in await threads.active(thread_id):
        await services.langgraph.runs.cancel(who, turn, roll_back=False)
    await threads.delete(thread_id)


def _at(value: Any, path: str) -> Any:
    """What stands at a path such as `values.messages[-1].content`; None if nothing does."""
    for step in path.replace("[", ".").replace("]", "").split("."):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return value
