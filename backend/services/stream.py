"""Streams of server-sent events: the present state, or what follows a cursor, and then everything as it happens."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from backend.core.events import Event
from backend.core.problems import TooManyRequests
from backend.core.roles import Principal
from backend.core.settings import Settings
from backend.core.states import TERMINAL_RUN_STATES
from backend.db import events, executions
from backend.db.engine import Database
from backend.services.feed import BATCH, EventFeed, Subscription, encode, encode_frame
from backend.services.status import Snapshot, Status

log = logging.getLogger(__name__)

# How long a client waits before it reconnects, in milliseconds. These lines go in front of an event's own.
_RETRY = b"retry: 2000\n"
# An `EventSource` that nobody closes must not come back every few seconds after `end`.
_RETRY_AFTER_END = b"retry: 3600000\n"


class Streams:
    """Opens streams. Each costs two or three queries to begin with and nothing while it waits."""

    def __init__(self, settings: Settings, database: Database, feed: EventFeed, status: Status) -> None:
        self._database = database
        self._feed = feed
        self._status = status
        self._limit = settings.streams_per_user
        self._heartbeat = settings.stream_heartbeat
        self._open: Counter[str] = Counter()

    @property
    def open_streams(self) -> int:
        """How many streams are being served."""
        return self._open.total()

    async def open(self, who: Principal, dag_id: str, dag_run_id: str, after: int | None) -> AsyncIterator[bytes]:
        """The frames of a stream. Raises `NotFound` or `TooManyRequests` before the first one is asked for."""
        row = await self._status.row(who, dag_id, dag_run_id)
        if self._open[who.username] >= self._limit:
            raise TooManyRequests(f"More than {self._limit} open streams.", retry_after=30)
        if after is not None and after > row["last_seq"]:
            after = None  # a cursor of another database: begin anew
        return self._frames(who, row, after)

    async def _frames(self, who: Principal, row: Mapping[str, Any], after: int | None) -> AsyncIterator[bytes]:
        execution_id = str(row["id"])
        with self._counted(who.username), self._feed.subscribe(execution_id, row["last_seq"]) as subscription:
            if after is None:
                snapshot = await self._status.snapshot(who, row["dag_id"], row["dag_run_id"])
                chunk, cursor, finished = _present_state(snapshot)
                yield _RETRY + chunk
                if finished:
                    return
            else:
                cursor = max(after, row["pruned_seq"])
                if cursor > after:
                    yield encode_frame("gap", {"from": after + 1, "to": cursor}, seq=cursor)
            last_type = ""
            async for page in self._backlog(execution_id, cursor):
                cursor, last_type = page[-1].seq, page[-1].type
                yield b"".join(_RETRY_AFTER_END * (event.type == "end") + encode(event).data for event in page)
            if last_type == "end":
                return
            if row["state"] in TERMINAL_RUN_STATES and (over := await self._over(row)):
                yield _RETRY_AFTER_END + encode_frame("end", {"state": over})
                return
            async for chunk in self._live(who, execution_id, cursor, subscription):
                yield chunk

    async def _live(
        self, who: Principal, execution_id: str, cursor: int, subscription: Subscription
    ) -> AsyncIterator[bytes]:
        while who.expires_at is None or time.time() < who.expires_at:
            try:
                async with asyncio.timeout(self._heartbeat):
                    frames = await subscription.take()
            except TimeoutError:
                # One line, no blank one: some parsers would take that for an empty event.
                yield b": keep-alive\n"
                continue
            if not frames:  # too slow: it resumes by its cursor
                return
            fresh = [frame for frame in frames if frame.seq > cursor]
            if not fresh:
                continue
            if fresh[0].seq != cursor + 1:
                log.error("stream of %s: %s follows %s", execution_id, fresh[0].seq, cursor)
                return  # the client resumes by its cursor and gets what is missing
            cursor = fresh[-1].seq
            ended = fresh[-1].type == "end"
            yield b"".join(frame.data for frame in fresh[:-1]) + _RETRY_AFTER_END * ended + fresh[-1].data
            if ended:
                return

    async def _backlog(self, execution_id: str, cursor: int) -> AsyncIterator[list[Event]]:
        """What stands in the log after the cursor, a page at a time."""
        while True:
            page = await self._database.run(events.read_after, execution_id, cursor, limit=BATCH)
            if page:
                yield page
                cursor = page[-1].seq
            if len(page) < BATCH:
                return

    async def _over(self, row: Mapping[str, Any]) -> str | None:
        """The state in which the run is over, or None when it was cleared and goes on."""
        now = await self._database.run(executions.get, row["dag_id"], row["dag_run_id"])
        state = str(now["state"]) if now else str(row["state"])
        return state if state in TERMINAL_RUN_STATES else None

    @contextmanager
    def _counted(self, username: str) -> Iterator[None]:
        self._open[username] += 1
        try:
            yield
        finally:
            self._open[username] -= 1
            if not self._open[username]:
                del self._open[username]


def _present_state(snapshot: Snapshot) -> tuple[bytes, int, bool]:
    """The present state as events, the cursor after it, and whether nothing will follow.

    Only the last event of it carries an id: a client that loses the connection before gets all of it again.
    """
    row = snapshot.row
    finished = row["state"] in TERMINAL_RUN_STATES
    cursor = int(row["last_seq"])
    # On a finished run the log's last event is `end`, which is sent under its own id.
    state_seq = cursor - 1 if finished else cursor
    present: list[tuple[str, Any]] = [("workflow_update", executions.workflow_payload(row))]
    present += [("task_update", task) for task in snapshot.tasks if task["state"] is not None]
    present += [("agent_update", agent) for agent in snapshot.agents]
    present += [("error", error) for error in reversed(snapshot.errors)]
    chunks = [encode_frame(kind, data) for kind, data in present[:-1]]
    chunks.append(encode_frame(*present[-1], seq=state_seq))
    if finished:
        chunks.append(_RETRY_AFTER_END + encode_frame("end", {"state": row["state"]}, seq=cursor))
    return b"".join(chunks), cursor, finished
