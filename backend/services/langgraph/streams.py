"""Streams of LangGraph's protocol: those of runs, by modes, and those of threads, by channels.

Whatever is streamed is stored first, so each stream can be resumed: `id` is a frame's place in its conversation.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import aclosing
from typing import Any

from sqlalchemy import Connection, text

from backend.core.jsonable import dumps
from backend.core.problems import Problem
from backend.core.roles import Principal
from backend.db.conversations.frames import END, StoredFrame
from backend.db.conversations.states import StateQuery
from backend.db.conversations.turns import CANCELLED
from backend.db.engine import Database
from backend.db.rows import Row
from backend.services.identity.authenticator import Authenticator
from backend.services.langgraph.channels import Filter
from backend.services.langgraph.feed import TurnFeed
from backend.services.langgraph.runs import TurnRuns, status_of
from backend.services.langgraph.states import States

HEARTBEAT = b": heartbeat\n\n"

IDLE = 5.0
"""Seconds without a frame after which a comment is sent, and the run's state is looked at."""

HEARD = 0.25
"""Seconds by which the end of a cancelled run is held back: a client that has cancelled it and hears so from another
connection before it has the answer takes it for a failure, and shows it as one."""

RECENT = 60.0
"""Seconds for which the events of a run that is over are sent to whoever begins to follow its thread."""

_OVER = frozenset({"completed", "failed", "interrupted"})
_NEVER = frozenset({"metadata", "error", "input.requested", END})


class TurnStreams:
    """Follows runs and threads for clients."""

    def __init__(
        self,
        database: Database,
        feed: TurnFeed,
        runs: TurnRuns,
        states: States,
        authenticator: Authenticator,
        check_interval: float,
    ) -> None:
        self._database = database
        self._feed = feed
        self._runs = runs
        self._states = states
        self._authenticator = authenticator
        self._check_interval = check_interval

    async def run(
        self, who: Principal, conversation: Row, turn: Row, *, after: int | None, modes: Collection[str] | None
    ) -> AsyncGenerator[bytes]:
        """The events of a run, from the beginning or after a frame, until it is over or waits for people; `modes` are
        those that the client wants, of those that the run streams."""
        begin = turn["after_seq"] if turn["after_seq"] is not None else conversation["last_seq"]
        yield _event("metadata", dumps({"run_id": turn["id"], "attempt": 1}))
        start = max(begin, after or 0)
        if conversation["pruned_seq"] > begin and status_of(turn) not in ("pending", "running"):
            for data in await self._last_values(conversation, turn):
                yield _event("values", data)
            return
        async with aclosing(self.frames(who, conversation, start)) as batches:
            async for batch in batches:
                if batch is None:
                    yield HEARTBEAT
                    if await self._is_over(turn):
                        return
                    continue
                chunk = []
                for frame in batch:
                    if frame.turn_id != turn["id"]:
                        continue
                    if frame.mode == END and not frame.namespace:
                        if ends_run(frame):
                            if turn["request"].get("plain"):
                                chunk += [
                                    _event("values", data) for data in await self._last_values(conversation, turn)
                                ]
                            yield b"".join(chunk)
                            return
                    elif frame.mode == "error" or _is_wanted(frame.mode, modes):
                        name = "|".join((frame.mode, *frame.namespace))
                        chunk.append(_event(name, frame.data, frame.seq))
                if chunk:
                    yield b"".join(chunk)

    async def thread(
        self, who: Principal, conversation: Row, *, after: int | None, modes: Collection[str]
    ) -> AsyncGenerator[bytes]:
        """The events of all runs of a thread from now on, or after a frame."""
        start = conversation["last_seq"] if after is None else after
        async with aclosing(self.frames(who, conversation, start)) as batches:
            async for batch in batches:
                if batch is None:
                    yield HEARTBEAT
                    continue
                chunk = []
                for frame in batch:
                    if frame.mode == "metadata" and {"run_modes", "lifecycle"} & set(modes):
                        chunk.append(_event("metadata", frame.data, frame.seq))
                    elif frame.mode == END and not frame.namespace and {"run_modes", "lifecycle"} & set(modes):
                        event = json.loads(frame.data)["event"]
                        if event in _OVER:
                            done = dumps({"run_id": frame.turn_id, "status": event})
                            chunk.append(_event("run_done", done, frame.seq))
                    elif frame.mode not in _NEVER and "run_modes" in modes:
                        chunk.append(_event("|".join((frame.mode, *frame.namespace)), frame.data, frame.seq))
                    elif frame.mode == "checkpoints" and "state_update" in modes:
                        chunk.append(_event("state_update", frame.data, frame.seq))
                if chunk:
                    yield b"".join(chunk)

    async def events(
        self, who: Principal, conversation: Row, wanted: Filter, since: int | None
    ) -> AsyncGenerator[list[tuple[StoredFrame, bytes]]]:
        """The events of a thread in the newer protocol, each with its frame; an empty list is a sign of life.

        A stream of everything ends when a run is over or waits for people, any other goes on with the next run.
        """
        start = since if since is not None else await self.beginning(conversation)
        async with aclosing(self.frames(who, conversation, start)) as batches:
            async for batch in batches:
                if batch is None:
                    yield []
                elif found := [(frame, event_json(frame)) for frame in batch if wanted.takes(frame)]:
                    await hold_back(frame for frame, _ in found)
                    yield found
                    if wanted.is_everything and any(map(ends_run, batch)):
                        return

    async def result(self, who: Principal, conversation: Row, turn: Row) -> AsyncGenerator[bytes]:
        """Wait until a run is over; the last chunk is the thread's values then, or the error, as JSON. Those before it
        are white space, which keeps the connection alive."""
        async with aclosing(self.run(who, conversation, turn, after=None, modes=())) as chunks:
            failure = None
            async for chunk in chunks:
                if b"event: error\n" in chunk:
                    failure = _data_of(chunk)
                yield b"\n"
        if failure is not None:
            yield dumps({"__error__": failure}).encode()
            return
        last = await self._last_values(conversation, turn)
        yield (last[0] if last else "{}").encode()

    async def frames(self, who: Principal, conversation: Row, start: int) -> AsyncGenerator[list[StoredFrame] | None]:
        """Frames after `start` for as long as the client's session lasts; None is a sign of life."""
        check_at = time.monotonic() + self._check_interval
        follow = self._feed.follow(str(conversation["id"]), conversation["last_seq"], start, IDLE)
        async with aclosing(follow) as batches:
            async for batch in batches:
                yield batch
                if time.monotonic() >= check_at:
                    check_at = time.monotonic() + self._check_interval
                    try:
                        await self._authenticator.recheck(who)
                    except Problem:
                        return

    async def beginning(self, conversation: Row) -> int:
        """From where a client follows that has seen nothing: from the run that is under way, or has just ended."""
        latest = await self._runs.list_page(str(conversation["id"]), status=None, limit=1, offset=0)
        if not latest or latest[0]["after_seq"] is None:
            return int(conversation["last_seq"])
        turn = latest[0]
        over = turn["ended_at"]
        if over is not None and time.time() - over.timestamp() > RECENT:
            return int(conversation["last_seq"])
        return int(turn["after_seq"])

    async def _is_over(self, turn: Row) -> bool:
        """Whether a run is over although nothing has said so in its stream."""
        now = await self._runs.get(turn["conversation_id"], turn["id"])
        return status_of(now) not in ("pending", "running")

    async def _last_values(self, conversation: Row, turn: Row) -> list[str]:
        """The values with which a run has ended, as JSON; none if there are none."""
        if turn["request"].get("plain"):
            output = await self._database.run_autocommit(_output, turn["id"])
            return [] if output is None else [dumps({"result": output})]
        found = await self._states.read(
            conversation, StateQuery(str(conversation["id"]), metadata={"run_id": turn["id"]})
        )
        state = found[0] if found else await self._states.latest(conversation)
        interrupts = {"__interrupt__": state["interrupts"]} if state["interrupts"] else {}
        return [dumps({**state["values"], **interrupts})]


_OUTPUT = text(
    """
    SELECT e.output_data FROM visual_ai.conversation_turns t
    JOIN visual_ai.workflow_executions e ON e.id = t.execution_id WHERE t.id = CAST(:id AS uuid)
    """
)


def _output(connection: Connection, turn_id: str) -> Any:
    return connection.execute(_OUTPUT, {"id": turn_id}).scalar()


async def hold_back(found: Iterable[StoredFrame]) -> None:
    """Wait before the end of a cancelled run is sent."""
    if any(frame.mode == END and CANCELLED in frame.data for frame in found):
        await asyncio.sleep(HEARD)


def ends_run(frame: StoredFrame) -> bool:
    """Whether a run is over with it, or waits for people."""
    return frame.mode == END and not frame.namespace and json.loads(frame.data)["event"] in _OVER


def _is_wanted(mode: str, modes: Collection[str] | None) -> bool:
    if mode in _NEVER or modes is None:
        return mode not in _NEVER
    if mode == "messages":
        return "messages-tuple" in modes
    return mode.partition("/")[0] in modes


def _event(name: str, data: str, seq: int | None = None) -> bytes:
    """A server-sent event."""
    end = "" if seq is None else f"id: {seq}\n"
    return f"event: {name}\ndata: {data}\n{end}\n".encode()


def _data_of(chunk: bytes) -> Mapping[str, Any]:
    lines = chunk.split(b"event: error\n", 1)[1].split(b"\n", 1)[0]
    found: Mapping[str, Any] = json.loads(lines.removeprefix(b"data: "))
    return found


def event_json(frame: StoredFrame) -> bytes:
    """A frame as an event of the newer protocol."""
    head = {
        "type": "event",
        "event_id": f"{frame.conversation_id}-{frame.seq}",
        "seq": frame.seq,
        "method": frame.mode,
        "params": {"namespace": list(frame.namespace), "timestamp": frame.at, "run_id": frame.turn_id},
    }
    return dumps(head).removesuffix("}}").encode() + b',"data":' + frame.data.encode() + b"}}"
