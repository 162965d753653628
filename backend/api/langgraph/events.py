"""The newer protocol: commands to a thread, and its events by channels, over HTTP or a WebSocket."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, get_args
from uuid import UUID

from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from backend.api.deps import Authenticated, Reader, Services, may_connect
from backend.api.langgraph.bodies import Command, Strategy, Subscription
from backend.api.langgraph.responses import streamed
from backend.core.problems import Conflict, Forbidden, Invalid, NotFound, Problem, Unauthorized
from backend.core.roles import Principal
from backend.db.conversations.frames import StoredFrame
from backend.db.rows import Row
from backend.services.application import Application
from backend.services.langgraph.channels import Filter
from backend.services.langgraph.runs import RunRequest
from backend.services.langgraph.streams import HEARTBEAT, ends_run, event_json, hold_back

router = APIRouter(tags=["events"])

_CODES: tuple[tuple[type[Problem], str], ...] = (
    (Invalid, "invalid_argument"),
    (Forbidden, "permission_denied"),
    (Unauthorized, "permission_denied"),
    (NotFound, "no_such_run"),
    (Conflict, "invalid_argument"),
)

_POLICY_VIOLATION = 4000
"""What is added to an HTTP status that closes a WebSocket: a browser can't read that of a refused one."""


SUBSCRIPTIONS = 100
"""Of one connection."""


class CommandError(Exception):
    """A command can't be carried out. `code` is the protocol's word for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@router.post("/threads/{thread_id}/commands")
async def command(thread_id: UUID, body: Command, who: Authenticated, services: Services) -> dict[str, Any]:
    """Carry out a command: `run.start`, `input.respond` or `agent.getTree`."""
    return await _answered(services, who, str(thread_id), body)


@router.post("/threads/{thread_id}/stream/events")
async def events(
    thread_id: UUID, body: Subscription, request: Request, who: Reader, services: Services
) -> StreamingResponse:
    """The events of a thread, of all its runs, in channels; with `since`, those after it."""
    row = await services.langgraph.conversations.get(who, str(thread_id))
    wanted = Filter.of(body.channels, body.namespaces, body.depth)
    return streamed(request, services, who, _events(services, who, row, wanted, body.since))


@router.websocket("/threads/{thread_id}/stream/events")
async def socket(websocket: WebSocket, thread_id: UUID) -> None:
    """The same in a WebSocket, which takes commands as well: `subscription.subscribe` and `…unsubscribe`."""
    services: Application = websocket.app.state.application
    await websocket.accept()
    try:
        who = await may_connect(websocket, services)
        services.streams.check_room(who)
        with services.streams.counted(who), suppress(WebSocketDisconnect):
            async with services.streams.limits.counted(who.username):
                await _Socket(websocket, services, who, str(thread_id)).serve()
    except Problem as problem:
        await websocket.close(_POLICY_VIOLATION + problem.status, problem.detail.encode()[:120].decode(errors="ignore"))


@dataclass(slots=True)
class _Subscribed:
    """What a client wants, and the last frame that it has been sent or has no use for."""

    wanted: Filter
    after: int


class _Socket:
    """A client's WebSocket, with its subscriptions.

    All of them are served in the order of the frames, each of which is sent once: a client that heard of a run's end
    for one subscription would take what another one is sent afterwards for something that comes too late.
    """

    def __init__(self, websocket: WebSocket, services: Application, who: Principal, thread_id: str) -> None:
        self._websocket = websocket
        self._services = services
        self._who = who
        self._thread_id = thread_id
        self._subscribed: dict[str, _Subscribed] = {}
        self._following: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()

    async def serve(self) -> None:
        """Carry out commands until the client leaves. Raises `Problem` when its session is over."""
        try:
            while True:
                text = await self._websocket.receive_text()
                try:
                    asked = Command.model_validate_json(text)
                except ValidationError as error:
                    await self._send(_error(None, "invalid_argument", str(error.errors()[0]["msg"])))
                    continue
                await self._send(await self._carry_out(asked))
        finally:
            if self._following is not None:
                self._following.cancel()

    async def _carry_out(self, asked: Command) -> dict[str, Any]:
        self._who = await self._services.authenticator.recheck(self._who)
        params = asked.params
        if asked.method in ("subscription.subscribe", "subscription.reconnect"):
            try:
                wanted = Subscription.model_validate(params)
                chosen = Filter.of(wanted.channels, wanted.namespaces, wanted.depth)
                row = await self._services.langgraph.conversations.get(self._who, self._thread_id)
            except ValidationError as error:
                return _error(asked.id, "invalid_argument", str(error.errors()[0]["msg"]))
            except Problem as problem:
                return _error(asked.id, _code_of(problem), problem.detail)
            key = str(params.get("subscription_id") or uuid.uuid4())
            if len(self._subscribed) >= SUBSCRIPTIONS and key not in self._subscribed:
                return _error(asked.id, "invalid_argument", f"a connection has at most {SUBSCRIPTIONS} subscriptions")
            after = wanted.since
            if after is None:
                after = await self._services.langgraph.streams.beginning(row)
            self._subscribed[key] = _Subscribed(chosen, after)
            if self._following is not None:
                self._following.cancel()
            self._following = asyncio.create_task(self._follow(row))
            return _success(asked.id, {"subscription_id": key}, int(row["last_seq"]))
        if asked.method == "subscription.unsubscribe":
            if self._subscribed.pop(str(params.get("subscription_id")), None) is None:
                return _error(asked.id, "no_such_subscription", "there is no such subscription")
            return _success(asked.id, {}, 0)
        return await _answered(self._services, self._who, self._thread_id, asked)

    async def _follow(self, row: Row) -> None:
        start = min(one.after for one in self._subscribed.values())
        batches = self._services.langgraph.streams.frames(self._who, row, start)
        with suppress(WebSocketDisconnect, RuntimeError):
            async with aclosing(batches):
                async for batch in batches:
                    for frame in batch or ():
                        await self._pass_on(frame)
                    if any(one.wanted.is_everything for one in self._subscribed.values()) and any(
                        map(ends_run, batch or ())
                    ):
                        break
            await self._websocket.close(1012)  # the session is over, or this process shuts down: come back

    async def _pass_on(self, frame: StoredFrame) -> None:
        unseen = [one for one in self._subscribed.values() if one.after < frame.seq]
        if any(one.wanted.takes(frame) for one in unseen):
            await hold_back([frame])
            async with self._sending:
                await self._websocket.send_text(event_json(frame).decode())
        for one in unseen:
            one.after = frame.seq

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._sending:
            await self._websocket.send_text(json.dumps(message, default=str))


async def _events(
    services: Application, who: Principal, row: Row, wanted: Filter, since: int | None
) -> AsyncGenerator[bytes]:
    yield HEARTBEAT  # a client counts itself as subscribed once it has the headers
    chunks = services.langgraph.streams.events(who, row, wanted, since)
    async with aclosing(chunks):
        async for found in chunks:
            if not found:
                yield HEARTBEAT
                continue
            yield b"".join(
                b"event: %s\nid: %d\ndata: %s\n\n" % (frame.mode.encode(), frame.seq, text) for frame, text in found
            )


async def _answered(services: Application, who: Principal, thread_id: str, asked: Command) -> dict[str, Any]:
    try:
        result, seq = await _result(services, who, thread_id, asked)
    except CommandError as error:
        return _error(asked.id, error.code, str(error))
    except Problem as problem:
        return _error(asked.id, _code_of(problem), problem.detail)
    return _success(asked.id, result, seq)


async def _result(services: Application, who: Principal, thread_id: str, asked: Command) -> tuple[dict[str, Any], int]:
    params = asked.params
    if asked.method == "run.start":
        assistant = params.get("assistant_id")
        if not isinstance(assistant, str) or not assistant:
            raise CommandError("invalid_argument", "assistant_id is missing")
        request = RunRequest(
            assistant,
            input=params.get("input"),
            command=params.get("command"),
            config=_mapping(params, "config"),
            context=_mapping(params, "context"),
            metadata=_mapping(params, "metadata"),
            checkpoint=_checkpoint(params),
            multitask_strategy=_strategy(params),
            if_not_exists="create",
            protocol=2,
        )
        return await _start(services, who, thread_id, request)
    if asked.method == "input.respond":
        given = params.get("responses") or [params]
        if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
            raise CommandError("invalid_argument", "responses has to be a list of objects")
        resume: Any = {str(one["interrupt_id"]): one.get("response") for one in given if one.get("interrupt_id")}
        if not resume:
            raise CommandError("no_such_interrupt", "interrupt_id is missing")
        row = await services.langgraph.conversations.get(who, thread_id, to_change=True)
        if not any(turn["state"] == "paused" for turn in await services.langgraph.conversations.active(thread_id)):
            state = await services.langgraph.states.latest(row)
            if not {one["id"] for one in state["interrupts"]} & resume.keys():
                raise CommandError("no_such_interrupt", "the thread waits for no such answer")
        more = {name: params[name] for name in ("update", "goto") if params.get(name) is not None}
        command = {"resume": resume, **more}
        dag = row["dag_id"] or str(row["metadata"].get("graph_id"))
        return await _start(services, who, thread_id, RunRequest(dag, command=command, protocol=2))
    if asked.method == "agent.getTree":
        row = await services.langgraph.conversations.get(who, thread_id)
        name = params.get("assistant_id") or row["dag_id"]
        if name is None:
            raise CommandError("invalid_argument", "the thread has no graph yet")
        found = await services.langgraph.assistants.resolve(who, str(name))
        shown = await services.langgraph.assistants.shown(found.graph)
        return dict(shown.get("graph") or {"nodes": [], "edges": []}), int(row["last_seq"])
    if asked.method.startswith("subscription."):
        raise CommandError("not_supported", "subscriptions are for WebSockets; POST …/stream/events instead")
    raise CommandError("unknown_command", f"there is no command {asked.method!r}")


async def _start(
    services: Application, who: Principal, thread_id: str, request: RunRequest
) -> tuple[dict[str, Any], int]:
    turn = await services.langgraph.runs.start(who, thread_id, request)
    return {"run_id": turn["id"]}, int(turn["after_seq"] or 0)


def _mapping(params: dict[str, Any], name: str) -> dict[str, Any] | None:
    found = params.get(name)
    if found is not None and not isinstance(found, dict):
        raise CommandError("invalid_argument", f"{name} has to be an object")
    return found


def _strategy(params: dict[str, Any]) -> str:
    found = params.get("multitask_strategy") or "enqueue"
    known = get_args(Strategy)
    if found not in known:
        raise CommandError("invalid_argument", f"multitask_strategy has to be one of {', '.join(known)}")
    return str(found)


def _checkpoint(params: dict[str, Any]) -> dict[str, Any] | None:
    found = _mapping(params, "checkpoint")
    if found is None and params.get("checkpoint_id") is not None:
        return {"checkpoint_id": str(params["checkpoint_id"])}
    return found


def _code_of(problem: Problem) -> str:
    return next((code for kind, code in _CODES if isinstance(problem, kind)), "unknown_error")


def _success(command_id: int | str | None, result: dict[str, Any], seq: int) -> dict[str, Any]:
    return {"type": "success", "id": command_id, "result": result, "meta": {"applied_through_seq": seq}}


def _error(command_id: int | str | None, code: str, message: str) -> dict[str, Any]:
    return {"type": "error", "id": command_id, "error": code, "message": message}
