"""The states of a run's agents over time: the list of their checkpoints, and the state at each."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection

from backend.core.problems import NotFound
from backend.core.roles import Principal
from backend.core.states import TERMINAL_RUN_STATES
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.runs import checkpoints, executions, node_values, threads
from backend.db.runs.checkpoints import Checkpoint, TaskThreads
from backend.db.runs.node_values import NodeExecution
from backend.db.runs.run_payload import EXCERPT_CHARACTERS, WHOLE_BYTES, reference
from backend.db.runs.value_text import StoredText
from backend.services.runs.page_cursor import decode_text_cursor, encode_text_cursor
from backend.services.runs.status import Status, no_such_task
from backend.services.runs.traces import SMALL_BYTES
from backend.services.runs.values import Values, stored_text
from backend.services.runs.whole_values import ValueSource, make_text, make_text_in_process

RETENTION = "its checkpoints are deleted (VISUAL_AI_CHECKPOINT_RETENTION_DAYS)"
THINNED = "Only the last state of each agent is left (VISUAL_AI_CHECKPOINT_HISTORY_DAYS)."


@dataclass(frozen=True, slots=True)
class TaskPlace:
    """A task instance of a run."""

    dag_id: str
    dag_run_id: str
    task_id: str
    map_index: int

    @property
    def thread_id(self) -> str:
        """Its thread."""
        return threads.thread_of(self.dag_id, self.dag_run_id, self.task_id, self.map_index)

    def url(self, checkpoint_id: str, *more: str) -> str:
        """The address of a checkpoint, or of a part of it."""
        parts = (self.dag_id, "runs", self.dag_run_id, "tasks", self.task_id, "checkpoints", checkpoint_id, *more)
        mapped = f"?map_index={self.map_index}" if self.map_index >= 0 else ""
        return f"/workflows/{'/'.join(quote(part, safe='') for part in parts)}{mapped}"


@dataclass(frozen=True, slots=True)
class CheckpointPage:
    """Checkpoints as the API shows them, newest first. `note` says why there are none, or not all."""

    checkpoints: list[dict[str, Any]]
    next_cursor: str | None
    note: str | None


class Checkpoints:
    """Reads checkpoints with the caller's rights on their run."""

    def __init__(
        self, database_url: str, database: Database, large_database: Database, status: Status, values: Values
    ) -> None:
        self._database_url = database_url
        self._database = database
        self._large_database = large_database
        self._status = status
        self._values = values
        self._one_process = asyncio.Semaphore(1)

    async def list_page(
        self, who: Principal, place: TaskPlace, *, agent: str | None, item: int | None, cursor: str | None, limit: int
    ) -> CheckpointPage:
        """A page of a task's checkpoints, newest first. Raises as `threads_of` does, and `Invalid` for a malformed
        cursor."""
        after = decode_text_cursor(cursor) if cursor else None
        run, found = await self.threads_of(who, place)
        wanted = found.of(agent, item)
        rows = await self._database.run(checkpoints.read_page, str(run["id"]), wanted, after=after, limit=limit + 1)
        shown = rows[:limit]
        last = shown[-1].row if len(rows) > limit else None
        more = encode_text_cursor((last["checkpoint_id"], last["thread_id"], last["checkpoint_ns"])) if last else None
        note = THINNED if found.thinned and shown else None
        if not rows and after is None:
            note = why_none(run, found)
        return CheckpointPage([payload(place, found, one) for one in shown], more, note)

    async def threads_of(self, who: Principal, place: TaskPlace) -> tuple[Row, TaskThreads]:
        """The run's row, and the threads of one of its tasks. Raises as `Status.row` does, and `NotFound` for a task
        that the run does not have."""
        if "\x00" in place.task_id:  # PostgreSQL would reject the query
            raise NotFound(f"The run has no task {place.task_id!r}.")
        run = await self._status.row(who, place.dag_id, place.dag_run_id)
        key = (place.task_id, place.map_index)

        def read(connection: Connection) -> TaskThreads:
            found = checkpoints.find(connection, str(run["id"]), place.thread_id, *key)
            if not found.threads and not found.agents:
                tasks = executions.list_tasks(connection, str(run["id"]))
                if key not in {task.key for task in tasks}:
                    raise no_such_task(*key, tasks)
            return found

        return run, await self._database.run(read)

    async def get(self, who: Principal, place: TaskPlace, checkpoint_id: str) -> dict[str, Any]:
        """A checkpoint with the state in `values`: as it is up to 32 KB of JSON, and by reference beyond. Raises
        `NotFound`."""
        found, one = await self._find(who, place, checkpoint_id)
        text = await self._text(one)
        if text.size <= WHOLE_BYTES and text.whole is not None:
            state = json.loads(text.whole)
        else:
            first = b"".join([piece async for piece in self._values.read(text, 0, 4 * EXCERPT_CHARACTERS)])
            excerpt = first.decode(errors="ignore")[:EXCERPT_CHARACTERS]
            url = place.url(checkpoint_id, "values")
            state = reference(url, size=text.size, excerpt=excerpt, sha256=text.sha256)
        return {**payload(place, found, one), "values": state}

    async def state(self, who: Principal, place: TaskPlace, checkpoint_id: str) -> StoredText:
        """The whole state at a checkpoint. Raises `NotFound`."""
        _, one = await self._find(who, place, checkpoint_id)
        return await self._text(one)

    async def _find(self, who: Principal, place: TaskPlace, checkpoint_id: str) -> tuple[TaskThreads, Checkpoint]:
        run, found = await self.threads_of(who, place)
        return found, await self.read(run, found, checkpoint_id)

    async def read(self, run: Row, found: TaskThreads, checkpoint_id: str) -> Checkpoint:
        """A checkpoint of one of these threads. Raises `NotFound`, saying why it isn't there."""
        one = None
        if found.threads and "\x00" not in checkpoint_id:
            one = await self._database.run(checkpoints.read_one, str(run["id"]), found.threads, checkpoint_id)
        if one is None:
            reason = why_none(run, found) if not found.threads else THINNED if found.thinned else None
            raise NotFound(f"The task has no checkpoint {checkpoint_id!r}. {reason or ''}".strip())
        return one

    async def _text(self, one: Checkpoint) -> StoredText:
        place = (one.row["thread_id"], one.row["checkpoint_ns"], one.row["checkpoint_id"])
        at = NodeExecution(*place, int(one.row["bytes"]), None)
        source = ValueSource("input", [], None, execution=at)
        size = await self._database.run(node_values.state_size, at)
        if size <= SMALL_BYTES:
            made = await self._large_database.run(make_text, source)
        else:
            async with self._one_process:
                made = await make_text_in_process(self._database_url, source)
        if made.whole is not None:
            return stored_text(made.whole)
        return StoredText("", made.size, made.sha256)


def why_none(run: Row, found: TaskThreads) -> str:
    """Why a task instance has no checkpoints."""
    if found.kept_any:
        return f"The task has none any more: {RETENTION}."
    if run["state"] not in TERMINAL_RUN_STATES:
        return "The task has none yet."
    if found.agents:
        return "The task's agents ran without keeping checkpoints (checkpoint=False, or the database was away)."
    return "The task has no agents that keep checkpoints, or did not run."


def payload(place: TaskPlace, found: TaskThreads, one: Checkpoint) -> dict[str, Any]:
    """A checkpoint as the API shows it."""
    row, (agent, item, call) = one.row, found.place(one.row["thread_id"])
    return {
        "checkpoint_id": row["checkpoint_id"],
        "parent_checkpoint_id": row["parent_checkpoint_id"],
        "agent": agent,
        "item": item,
        "call": call,
        "namespace": row["checkpoint_ns"],
        "step": row["metadata"].get("step"),
        "source": row["metadata"].get("source"),
        "created_at": row["created_at"],
        "nodes": one.nodes,
        "next": one.next,
        "asks": one.asks,
        "bytes": int(row["bytes"]),
        "url": place.url(row["checkpoint_id"]),
    }
