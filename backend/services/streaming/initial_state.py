"""Builds what a stream sends before it goes live.

A client connects in one of three ways, and each begins differently:

* Without a cursor: with the run's current state, sent as ordinary events (`workflow_update`, then a `task_update`,
  `agent_update` or `error` for each task, agent and error of its snapshot, which has the first page of a large run).
  Only the last of them has an `id`, so a client that loses the connection in between receives the whole state again.
* With a cursor: with the events of the log that follow it.
* With a cursor whose successors were pruned: with a `gap` that names them, then with the rest of the log.

In all cases the log follows up to the event after which the subscription delivers (`Subscription.start`). The
subscription must exist before anything is read here, so that nothing falls between the two.

Thousands of clients may connect to a run in the same second, for example after a restart. They share reads: the state
and each page of the log are read once and then kept for `KEEP_SECONDS`. A kept state that is a little old is no
problem, as what has changed since follows from the log, unless it says that the run is finished, because nothing
follows that.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from backend.core.states import TERMINAL_RUN_STATES
from backend.db.engine import Database
from backend.db.runs import events
from backend.db.runs.executions import Head
from backend.db.runs.run_payload import workflow_payload
from backend.services.runs.snapshot import Snapshot
from backend.services.runs.status import Status
from backend.services.streaming.feed import BATCH
from backend.services.streaming.sse import RETRY, RETRY_AFTER_END, Frame, encode, encode_fields, join
from backend.services.streaming.subscriptions import Subscription

T = TypeVar("T")

KEEP_SECONDS = 1.0
"""How long a state or a page of the log is kept for further clients after it was read."""

KEEP_BYTES = 16 * 2**20
"""Bytes of pages of the log that are kept at a time."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes to send. `cursor` is the last event they cover; with `last` the stream ends after them."""

    data: bytes
    cursor: int
    last: bool = False


@dataclass(frozen=True, slots=True)
class InitialState:
    """A run's state as a stream's first events. `cursor` is the last event of the log that it includes."""

    data: bytes
    cursor: int
    finished: bool

    def serves(self, head: Head) -> bool:
        """Whether a client may start with this state although the execution's `head` may be newer."""
        if self.cursor >= head.last_seq:
            return True
        return not self.finished and head.state not in TERMINAL_RUN_STATES


class InitialStates:
    """Reads initial states and pages of the log, shared between clients that connect at about the same time."""

    def __init__(self, database: Database, status: Status) -> None:
        self._database = database
        self._status = status
        self._states: _SharedReads[InitialState] = _SharedReads()
        self._pages: _SharedReads[list[Frame]] = _SharedReads(KEEP_BYTES, lambda page: sum(len(f.data) for f in page))

    async def chunks(self, head: Head, after: int | None, subscription: Subscription) -> AsyncGenerator[Chunk]:
        """All chunks up to the point from which the subscription continues; at least one.

        `after` is the client's cursor. Raises `NotFound` when the execution has been deleted, and SQLAlchemy's errors
        when the database is unreachable; the client may reconnect with its cursor.
        """
        if after is None:
            state = await self._state(head)
            yield Chunk(state.data, state.cursor, last=state.finished)
            if state.finished:
                return
            cursor = state.cursor
        elif head.pruned_seq > after:
            cursor = head.pruned_seq
            yield Chunk(RETRY + encode_fields("gap", {"from": after + 1, "to": cursor}, seq=cursor), cursor)
        else:
            cursor = after
            yield Chunk(RETRY, cursor)
        while cursor < subscription.start and (page := await self._page(subscription, cursor)):
            cursor = page[-1].seq
            last = page[-1].type == "end" and cursor >= subscription.start
            yield Chunk(join(page, last=last), cursor, last=last)
            if last:
                return
        # A client that has received everything of a finished run still needs an `end`, unless the run was retried.
        channel = subscription.channel
        if channel.finished and cursor >= channel.cursor:
            now = await self._status.head(head.dag_id, head.dag_run_id)
            if now.state in TERMINAL_RUN_STATES and now.last_seq <= cursor:
                yield Chunk(RETRY_AFTER_END + encode_fields("end", {"state": now.state}), cursor, last=True)

    async def _state(self, head: Head) -> InitialState:
        while True:
            state = await self._states.get(head.id, lambda: self._read_state(head), lambda kept: kept.serves(head))
            # A read that another client started earlier may show a finished run that has since been retried.
            if not state.finished or state.cursor >= head.last_seq:
                return state

    async def _read_state(self, head: Head) -> InitialState:
        # In a thread: with hundreds of agents, encoding takes longer than other streams should wait.
        return await asyncio.to_thread(_initial_state, await self._status.read(head))

    async def _page(self, subscription: Subscription, after: int) -> list[Frame]:
        page = subscription.channel.since(after)
        if page is None:
            execution_id = subscription.channel.head.id
            page = await self._pages.get((execution_id, after), lambda: self._read_page(execution_id, after))
        return page

    async def _read_page(self, execution_id: str, after: int) -> list[Frame]:
        found = await self._database.run_autocommit(events.read_after, execution_id, after, limit=BATCH)
        return [encode(event) for event in found]


class _SharedReads(Generic[T]):
    """Runs one read at a time for each key, and keeps the results for `KEEP_SECONDS` within a limit in bytes."""

    def __init__(self, limit: int = 0, size: Callable[[T], int] = lambda _: 0) -> None:
        self._tasks: dict[Hashable, asyncio.Task[T]] = {}
        self._limit = limit
        self._size = size
        self._bytes = 0

    async def get(
        self, key: Hashable, read: Callable[[], Awaitable[T]], usable: Callable[[T], bool] = lambda _: True
    ) -> T:
        """The result of the read of `key` that is in progress or kept and `usable`, or else of a new one.

        Raises what the read raised, to everyone who waited for it.
        """
        task = self._tasks.get(key)
        if task is None or (task.done() and not usable(task.result())):
            task = self._tasks[key] = asyncio.create_task(self._read(key, read))
            task.add_done_callback(_retrieve)
        return await asyncio.shield(task)

    async def _read(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        task = asyncio.current_task()
        size: int | None = None
        try:
            found = await read()
            size = self._size(found)
            return found
        finally:
            if size is None or self._bytes + size > self._limit:
                self._drop(key, task, 0)
            else:
                self._bytes += size
                asyncio.get_running_loop().call_later(KEEP_SECONDS, self._drop, key, task, size)

    def _drop(self, key: Hashable, task: asyncio.Task[Any] | None, size: int) -> None:
        self._bytes -= size
        if self._tasks.get(key) is task:
            del self._tasks[key]


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Retrieve the error of a read whose clients have all left, so that asyncio does not log it."""
    if not task.cancelled():
        task.exception()


def _initial_state(snapshot: Snapshot) -> InitialState:
    row = snapshot.row
    finished = row["state"] in TERMINAL_RUN_STATES
    cursor = int(row["last_seq"])
    # The last event in the log of a finished run is `end`, which is sent under its own id.
    state_seq = cursor - 1 if finished else cursor
    state: list[tuple[str, Any]] = [("workflow_update", workflow_payload(row, snapshot.result))]
    state += [("task_update", task) for task in snapshot.tasks.items if task["state"] is not None]
    state += [("agent_update", agent) for agent in snapshot.agents.items]
    state += [("error", error) for error in reversed(snapshot.errors.items)]
    state += [("question", question) for question in snapshot.questions]
    encoded = [encode_fields(kind, data) for kind, data in state[:-1]]
    encoded.append(encode_fields(*state[-1], seq=state_seq))
    if finished:
        encoded.append(RETRY_AFTER_END + encode_fields("end", {"state": row["state"]}, seq=cursor))
    return InitialState(RETRY + b"".join(encoded), cursor, finished)
