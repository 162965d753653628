"""Where runs stand: the snapshot of one and the list of many."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from backend.clients.airflow import AirflowClient, AirflowError, AirflowUnavailable
from backend.core.problems import NotFound
from backend.core.roles import Principal
from backend.core.settings import Settings
from backend.db import batch_items, errors, executions, observations, traces
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.traces import Place
from backend.services.airflow_runs import run_state
from backend.services.catalog import unreachable
from backend.services.page_cursor import decode_cursor, encode_cursor

NOT_FOUND = "There is no such run, or it is not yours."


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An execution as it stands: its row, tasks, agents and errors. `row["last_seq"]` is the cursor that follows it."""

    row: Row
    tasks: list[dict[str, Any]]
    agents: list[dict[str, Any]]
    errors: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Page:
    """Executions, newest first, and the cursor of the next page."""

    rows: list[Row]
    next_cursor: str | None


class Status:
    """Reads executions with the rights of whoever asks: a User sees only their own."""

    def __init__(self, settings: Settings, database: Database, airflow: AirflowClient) -> None:
        self._database = database
        self._airflow = airflow
        self._link_base = settings.airflow_link_base

    async def row(self, who: Principal, dag_id: str, dag_run_id: str) -> Row:
        """The execution's row. Raises `NotFound` also when the run belongs to somebody else, and `Unavailable` when
        only Airflow could know of it and does not answer."""
        if "\x00" in dag_id + dag_run_id:  # the database would refuse the query
            raise NotFound(NOT_FOUND)
        row = await self._database.run(executions.get, dag_id, dag_run_id)
        if row is None:
            row = await self._adopt(who, dag_id, dag_run_id)
        if not may_see(who, row):
            raise NotFound(NOT_FOUND)
        return row

    async def snapshot(self, who: Principal, dag_id: str, dag_run_id: str) -> Snapshot:
        """The execution as it stands. Raises `NotFound`."""
        row = await self.row(who, dag_id, dag_run_id)
        return await self._database.run(_read_snapshot, dag_id, dag_run_id, str(row["id"]))

    async def items(
        self, who: Principal, dag_id: str, dag_run_id: str, task_id: str, map_index: int, *, after: int, limit: int
    ) -> list[Row]:
        """Items of a batch task behind the position `after`, in order. Raises `NotFound`."""
        row = await self.row(who, dag_id, dag_run_id)
        place = Place(dag_id, dag_run_id, task_id, map_index, 0)
        return await self._database.run(batch_items.read_page, str(row["id"]), place, after=after, limit=limit)

    async def list_page(
        self,
        who: Principal,
        *,
        dag_id: str | None = None,
        states: list[str] | None = None,
        user_id: str | None = None,
        since: datetime | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        """A page of executions, newest first. Raises `Invalid` for a cursor that is none of ours."""
        rows = await self._database.run(
            executions.list_page,
            dag_id=dag_id,
            states=states or [],
            user_id=user_id,
            owner=None if who.sees_all else who.username,
            since=since,
            before=decode_cursor(cursor) if cursor else None,
            limit=limit + 1,
        )
        more = len(rows) > limit
        page = rows[:limit]
        last = page[-1] if more else None
        return Page(page, encode_cursor(last["queued_at"], str(last["id"])) if last else None)

    def airflow_url(self, dag_id: str, dag_run_id: str) -> str:
        """The run's page in Airflow."""
        return f"{self._link_base}/dags/{dag_id}/runs/{dag_run_id}"

    async def _adopt(self, who: Principal, dag_id: str, dag_run_id: str) -> Row:
        """A run that Airflow has and we have not seen yet is recorded when somebody first asks for it."""
        try:
            run = await self._airflow.dag_run(dag_id, dag_run_id, token=who.airflow_token)
        except AirflowUnavailable as error:
            raise unreachable() from error
        except AirflowError as error:
            raise NotFound(NOT_FOUND) from error
        await self._database.run(observations.observe, run_state(run))
        row = await self._database.run(executions.get, dag_id, dag_run_id)
        if row is None:
            raise NotFound(NOT_FOUND)
        return row


def may_see(who: Principal, row: Row) -> bool:
    """Whether the run is the user's own, or the user sees all."""
    return who.sees_all or who.username in (row["user_id"], row["triggered_by"])


def _read_snapshot(connection: Connection, dag_id: str, dag_run_id: str, execution_id: str) -> Snapshot:
    # The row first: its cursor must not be ahead of what is read after it.
    row = executions.get(connection, dag_id, dag_run_id)
    if row is None:
        raise NotFound(NOT_FOUND)
    return Snapshot(
        row,
        [task.payload() for task in executions.list_tasks(connection, execution_id)],
        [traces.payload(trace) for trace in traces.list_agents(connection, execution_id)],
        [errors.payload(error) for error in errors.list_for(connection, execution_id)],
    )
