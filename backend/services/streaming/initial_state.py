"""What a stream begins with, the present state or the log behind a cursor, read once for all who ask at a time."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from backend.core.states import TERMINAL_RUN_STATES
from backend.db.engine import Database
from backend.db.runs import events, executions
from backend.db.runs.executions import Head
from backend.services.runs.status import Snapshot, Status
from backend.services.streaming.feed import BATCH
from backend.services.streaming.sse import Frame, encode, encode_frame
from backend.services.streaming.subscriptions import FRESH, Channel, Present

KEPT_BYTES = 16 * 2**20
"""Bytes of the log that are kept as long for others with the same cursor."""

RETRY_AFTER_END = b"retry: 3600000\n"
"""An `EventSource` that nobody closes must not come back every few seconds after `end`."""


class Presence:
    """Reads present states and pages of the log; thousands who connect at once cost a few queries for each run."""

    def __init__(self, database: Database, status: Status) -> None:
        self._database = database
        self._status = status
        self._pages: dict[tuple[str, int], asyncio.Task[list[Frame]]] = {}
        self._kept_bytes = 0

    async def present(self, channel: Channel, head: Head) -> Present:
        """The present state. Raises `NotFound` when the execution is gone."""
        while True:
            if channel.present is not None and channel.present.serves(head):
                return channel.present
            if channel.reading is None:
                channel.reading = asyncio.create_task(self._read(channel, head))
                channel.reading.add_done_callback(_retrieve)
            found = await asyncio.shield(channel.reading)
            # One that somebody asked for earlier may be older than what is known of a run that was over.
            if not found.finished or found.cursor >= head.last_seq:
                return found

    async def backlog(self, channel: Channel, cursor: int, until: int) -> AsyncIterator[list[Frame]]:
        """What stands in the log behind `cursor` up to `until` at least, in pages."""
        while cursor < until:
            page = channel.since(cursor)
            if page is None:
                page = await self._page(channel.head.id, cursor)
            if not page:
                return
            yield page
            cursor = page[-1].seq

    async def _read(self, channel: Channel, head: Head) -> Present:
        try:
            began = time.monotonic()
            snapshot = await self._status.read(head)
            chunk, cursor, finished = _present_state(snapshot)
            channel.present = present = Present(chunk, cursor, finished, began)
            asyncio.get_running_loop().call_later(FRESH, _forget, channel, present)
            return present
        finally:
            channel.reading = None

    async def _page(self, execution_id: str, after: int) -> list[Frame]:
        key = (execution_id, after)
        task = self._pages.get(key)
        if task is None:
            task = self._pages[key] = asyncio.create_task(self._read_page(key))
            task.add_done_callback(_retrieve)
        return await asyncio.shield(task)

    async def _read_page(self, key: tuple[str, int]) -> list[Frame]:
        frames: list[Frame] | None = None
        try:
            found = await self._database.run_autocommit(events.read_after, *key, limit=BATCH)
            frames = [encode(event) for event in found]
            return frames
        finally:
            size = sum(len(frame.data) for frame in frames or ())
            if frames is None or self._kept_bytes + size > KEPT_BYTES:
                self._pages.pop(key, None)
            else:
                self._kept_bytes += size
                asyncio.get_running_loop().call_later(FRESH, self._drop, key, size)

    def _drop(self, key: tuple[str, int], size: int) -> None:
        self._pages.pop(key, None)
        self._kept_bytes -= size


def _forget(channel: Channel, present: Present) -> None:
    if channel.present is present:
        channel.present = None


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Who asked may be gone when it fails."""
    if not task.cancelled():
        task.exception()


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
        chunks.append(RETRY_AFTER_END + encode_frame("end", {"state": row["state"]}, seq=cursor))
    return b"".join(chunks), cursor, finished
