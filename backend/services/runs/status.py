"""Reads the state of runs: the snapshot of one run, and the list of many."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from backend.clients.airflow import AirflowClient, AirflowError, AirflowUnavailable
from backend.core.errors.category import Category
from backend.core.problems import NotFound
from backend.core.roles import Principal
from backend.core.settings import Settings
from backend.core.states import TERMINAL_RUN_STATES, TaskState
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.runs import batch_items, executions, observations
from backend.db.runs.batch_items import ItemPage
from backend.db.runs.executions import Head
from backend.db.runs.pages import RowFilter
from backend.db.runs.traces import Place
from backend.services.recording.airflow_json import run_state
from backend.services.runs.page_cursor import decode_cursor, encode_cursor
from backend.services.runs.snapshot import (
    NOT_FOUND,
    Listed,
    ListKind,
    Snapshot,
    decode_list_cursor,
    read_list,
    read_snapshot,
)
from backend.services.triggering.catalog import unreachable

NAMED_TASKS = 20
"""Task names that an error about an unknown task lists at most."""


@dataclass(frozen=True, slots=True)
class Page:
    """Executions, newest first, and the cursor of the next page."""

    rows: list[Row]
    next_cursor: str | None


class Status:
    """Reads executions with the caller's rights: of the DAGs that they may read, a User sees only their own runs."""

    def __init__(self, settings: Settings, database: Database, airflow: AirflowClient) -> None:
        self._database = database
        self._heads = _HeadLookup(database)
        self._airflow = airflow
        self._link_base = settings.airflow_link_base

    async def row(self, who: Principal, dag_id: str, dag_run_id: str, *, to_stop: bool = False) -> Row:
        """The execution's row without its input and output. With `to_stop` whoever may stop the run gets it, too.

        Raises `NotFound`, also when the user may not see the run, and `Unavailable` when the run is not recorded and
        Airflow, which may have it, does not answer.
        """
        if "\x00" in dag_id + dag_run_id:  # PostgreSQL would reject the query
            raise NotFound(NOT_FOUND)
        row = await self._database.run(executions.find, dag_id, dag_run_id)
        if row is None:
            row = await self._adopt(who, dag_id, dag_run_id)
        if not (may_see(who, row) or (to_stop and who.may_stop(dag_id, row["user_id"], row["triggered_by"]))):
            raise NotFound(NOT_FOUND)
        return row

    async def snapshot(self, who: Principal, dag_id: str, dag_run_id: str) -> Snapshot:
        """The execution's current state. Raises as `row` does."""
        row = await self.row(who, dag_id, dag_run_id)
        return await self._database.run(read_snapshot, dag_id, dag_run_id, str(row["id"]))

    async def find(self, who: Principal, dag_id: str, dag_run_id: str) -> Head:
        """The head of an execution: what a stream needs of it. Raises as `row` does, except that the caller has to
        check whether the user may see it."""
        if "\x00" in dag_id + dag_run_id:
            raise NotFound(NOT_FOUND)
        head = await self._heads.get(dag_id, dag_run_id)
        if head is None:
            await self._adopt(who, dag_id, dag_run_id)
            return await self.head(dag_id, dag_run_id)
        return head

    async def head(self, dag_id: str, dag_run_id: str) -> Head:
        """The head of a recorded execution. Raises `NotFound`."""
        head = await self._heads.get(dag_id, dag_run_id)
        if head is None:
            raise NotFound(NOT_FOUND)
        return head

    async def read(self, head: Head) -> Snapshot:
        """The execution's current state, without a check of rights. Raises `NotFound` when it has been deleted."""
        return await self._database.run(read_snapshot, head.dag_id, head.dag_run_id, head.id)

    async def page(
        self,
        who: Principal,
        dag_id: str,
        dag_run_id: str,
        kind: ListKind,
        wanted: RowFilter,
        *,
        cursor: str | None,
        limit: int,
    ) -> Listed:
        """A page of the run's tasks, agents or errors. Raises as `row` does, and `Invalid` for a malformed cursor."""
        after = decode_list_cursor(kind, cursor) if cursor else None
        row = await self.row(who, dag_id, dag_run_id)
        return await self._database.run(read_list, str(row["id"]), kind, wanted, after, limit)

    async def items(
        self, who: Principal, dag_id: str, dag_run_id: str, task_id: str, map_index: int, *, after: int, limit: int
    ) -> ItemPage:
        """Items of a batch task after the position `after`, in order.

        Raises `NotFound`, also for a task that a finished run did not have.
        """
        row = await self.row(who, dag_id, dag_run_id)
        if "\x00" in task_id:  # PostgreSQL would reject the query
            raise NotFound(f"The run has no task {task_id!r}.")
        place = Place(dag_id, dag_run_id, task_id, map_index, 0)
        found = await self._database.run(batch_items.read_shown, str(row["id"]), place, after=after, limit=limit)
        if not found.items and row["state"] in TERMINAL_RUN_STATES:
            tasks = await self._database.run(executions.list_tasks, str(row["id"]))
            if (task_id, map_index) not in {task.key for task in tasks}:
                raise no_such_task(task_id, map_index, tasks)
        return found

    async def list_page(
        self,
        who: Principal,
        *,
        dag_id: str | None = None,
        states: list[str] | None = None,
        user_id: str | None = None,
        since: datetime | None = None,
        agent: str | None = None,
        error_category: Category | None = None,
        error_agent: str | None = None,
        forked_from: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """A page of executions, newest first. Raises `Invalid` for a malformed cursor."""
        rows = await self._database.run(
            executions.list_page,
            dag_id=dag_id,
            states=states or [],
            user_id=user_id,
            visible=who.visible,
            since=since,
            agent=agent,
            error_category=error_category,
            error_agent=error_agent,
            forked_from=forked_from,
            before=decode_cursor(cursor) if cursor else None,
            limit=limit + 1,
        )
        more = len(rows) > limit
        page = rows[:limit]
        last = page[-1] if more else None
        return Page(page, encode_cursor(last["queued_at"], str(last["id"])) if last else None)

    def urls(self, dag_id: str, dag_run_id: str) -> dict[str, str]:
        """The run's snapshot and stream, relative to this service, and its page in Airflow."""
        run = f"{quote(dag_id, safe='')}/{quote(dag_run_id, safe='')}"
        return {
            "status_url": f"/workflow-status/{run}",
            "stream_url": f"/workflow-status/stream/{run}",
            "airflow_url": self.airflow_url(dag_id, dag_run_id),
        }

    def airflow_url(self, dag_id: str, dag_run_id: str) -> str:
        """The run's page in Airflow."""
        return f"{self._link_base}/dags/{dag_id}/runs/{dag_run_id}"

    async def _adopt(self, who: Principal, dag_id: str, dag_run_id: str) -> Row:
        """Record a run that Airflow has and nobody has recorded yet. Raises `NotFound` and `Unavailable`."""
        try:
            # With the service account for those to whom Airflow shows no runs: it may be their own.
            run = await self._airflow.dag_run(dag_id, dag_run_id, token=who.token_for(own=True))
        except AirflowUnavailable as error:
            raise unreachable() from error
        except AirflowError as error:
            raise NotFound(NOT_FOUND) from error
        await self._database.run(observations.observe, await run_state(run))
        row = await self._database.run(executions.find, dag_id, dag_run_id)
        if row is None:
            raise NotFound(NOT_FOUND)
        return row


def no_such_task(task_id: str, map_index: int, tasks: Sequence[TaskState]) -> NotFound:
    """The problem for a task instance that is not among the run's `tasks`; it names those that are."""
    indexes = sorted(task.map_index for task in tasks if task.task_id == task_id)
    if not indexes:
        names = list(dict.fromkeys(task.task_id for task in tasks))
        more = ", …" if len(names) > NAMED_TASKS else ""
        known = f"; it has {', '.join(names[:NAMED_TASKS])}{more}" if names else ""
        return NotFound(f"The run has no task {task_id!r}{known}.")
    if map_index < 0:
        return NotFound(f"The task {task_id!r} is mapped: add map_index, {indexes[0]} to {indexes[-1]}.")
    if indexes == [-1]:
        return NotFound(f"The task {task_id!r} is not mapped: omit map_index.")
    return NotFound(f"The task {task_id!r} has no map_index {map_index}; it has {indexes[0]} to {indexes[-1]}.")


def may_see(who: Principal, row: Row) -> bool:
    """Whether the user may see the run: they may read its DAG, and the run is their own or their role sees all."""
    return who.may_see(row["dag_id"], row["user_id"], row["triggered_by"])


def check_may_see(who: Principal, head: Head) -> None:
    """Raises `NotFound` when the user may not see the run."""
    if not who.may_see(head.dag_id, head.user_id, head.triggered_by):
        raise NotFound(NOT_FOUND)


class _HeadLookup:
    """Reads heads of executions, one query at a time.

    Calls that arrive while a query runs share the next one, so a caller always gets what was read after it asked, and
    thousands of clients that connect at once cost a few queries.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[tuple[str, str], asyncio.Future[Head | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def get(self, dag_id: str, dag_run_id: str) -> Head | None:
        """The run's head, if it is recorded. Raises SQLAlchemy's errors; a retry may help."""
        key = (dag_id, dag_run_id)
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        return await asyncio.shield(future)

    async def _read(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                try:
                    found = await self._database.run_autocommit(executions.heads, list(waiting))
                except Exception as error:
                    for future in waiting.values():
                        future.set_exception(error)
                        future.exception()  # the caller may have gone: mark it as retrieved
                else:
                    for key, future in waiting.items():
                        future.set_result(found.get(key))
        finally:
            self._reading = None
