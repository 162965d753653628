"""Makes what is recorded agree with Airflow, whoever started, changed or deleted a run."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from backend.clients.airflow import AirflowClient, AirflowError, AirflowRefused
from backend.core.settings import Settings
from backend.core.states import TERMINAL_RUN_STATES
from backend.db import executions, observations
from backend.db.address import plain_url
from backend.db.engine import Database
from backend.services.airflow_runs import run_state, task_state

log = logging.getLogger(__name__)

LOCK = 0x76_61_69_01
"""The advisory lock that one replica holds while it reconciles."""

LOOK_BACK = timedelta(minutes=10)
"""How far back the first pass looks for runs that came and went unseen."""

OVERLAP = timedelta(seconds=10)
"""Passes overlap: Airflow's transactions commit after the time they write."""

MISSING_PER_PASS = 50
IDLE_FACTOR = 2.5

Key = tuple[str, str]


class Reconciler:
    """Compares Airflow's runs with ours every few seconds; one replica at a time does.

    A pass costs two list calls, one more for each 50 active runs, and writes only for runs that changed.
    """

    def __init__(self, settings: Settings, airflow: AirflowClient, database: Database) -> None:
        self._conninfo = plain_url(settings.database_url)
        self._interval = settings.reconcile_interval
        self._airflow = airflow
        self._database = database
        self._since: datetime | None = None
        self._seen: dict[Key, tuple[int, bool]] = {}
        self._ok = False
        self._reason = "not started"
        self.leading = False

    def state(self) -> tuple[bool, str]:
        """Whether the last pass went well (or another replica leads), and if not why."""
        return self._ok, self._reason

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reconcile until the context ends."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            try:
                await self._lead()
            except (psycopg.Error, OSError) as error:
                self._fail(f"the database is out of reach ({type(error).__name__})")
            except Exception as error:
                self._fail(f"a pass failed ({type(error).__name__})")
                log.exception("the reconciler failed")
            self.leading = False
            await asyncio.sleep(self._interval)

    async def _lead(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, application_name="visual_ai_reconciler", connect_timeout=5
        ) as connection:
            while not await _taken(connection):
                self._ok, self._reason = True, "another replica reconciles"
                await asyncio.sleep(self._interval)
            self.leading = True
            self._since = None
            self._seen.clear()
            while True:
                active = 0
                try:
                    active = await self.reconcile()
                    self._ok, self._reason = True, ""
                except AirflowError as error:
                    self._fail(str(error))
                except SQLAlchemyError as error:
                    self._fail(f"the database is out of reach ({type(error).__name__})")
                await asyncio.sleep(self._interval if active else self._interval * IDLE_FACTOR)
                await connection.execute("SELECT 1")  # the lock goes with the connection

    def _fail(self, reason: str) -> None:
        if self._ok:
            log.warning("reconciling: %s", reason)
        self._ok, self._reason = False, reason

    async def reconcile(self) -> int:
        """One pass; gives the number of active runs. Raises `AirflowError` or `SQLAlchemyError`; a retry helps."""
        began = datetime.now(UTC)
        observed_at = await self._database.run(executions.clock)
        ours = await self._database.run(executions.list_active)
        running = {_key(run): run for run in await self._airflow.active_runs()}
        changed = {_key(run): run for run in await self._airflow.runs_updated_since(self._since or began - LOOK_BACK)}
        runs = {**running, **changed}
        missing = [key for row in ours if (key := (row["dag_id"], row["dag_run_id"])) not in runs]
        for key in missing[:MISSING_PER_PASS]:
            runs[key] = await self._find(key)
        stored = await self._database.run(executions.states_of, list(runs))
        wanted = [key for key, run in runs.items() if key in running or _differs(run, stored.get(key))]
        tasks: dict[Key, list[Mapping[str, Any]]] = {key: [] for key in wanted}
        for task in await self._airflow.task_instances(key for key in wanted if runs[key].get("found", True)):
            tasks[task["dag_id"], task["dag_run_id"]].append(task)
        for key in wanted:
            await self._write(key, runs[key], tasks[key], stored.get(key), observed_at)
        for key in self._seen.keys() - running.keys():
            del self._seen[key]
        self._since = began - OVERLAP
        return len(running)

    async def _find(self, key: Key) -> dict[str, Any]:
        try:
            return await self._airflow.dag_run(*key)
        except AirflowRefused as refused:
            if refused.status != 404:
                raise
        # Deleted in Airflow: it will not go on.
        now = datetime.now(UTC).isoformat()
        return {"dag_id": key[0], "dag_run_id": key[1], "state": "cancelled", "end_date": now, "found": False}

    async def _write(
        self,
        key: Key,
        run: Mapping[str, Any],
        tasks: list[Mapping[str, Any]],
        stored: str | None,
        observed_at: datetime,
    ) -> None:
        states = [task_state(task) for task in tasks]
        print_of_it = hash((run["state"], stored, tuple((*task.key, task.state, task.try_number) for task in states)))
        known, settled = self._seen.get(key, (None, False))
        if settled and known == print_of_it:
            return
        try:
            await self._database.run(observations.observe, run_state(run), states, observed_at=observed_at)
        except (OperationalError, InterfaceError):
            raise  # the database's fault, not this run's
        except (DBAPIError, LookupError, TypeError, ValueError):
            log.exception("run %s of %s could not be recorded", key[1], key[0])
            known = print_of_it  # not again until it changes
        # What was noticed during the first pass that saw it may have stood above it: only a second one settles it.
        self._seen[key] = (print_of_it, known == print_of_it)


async def _taken(connection: psycopg.AsyncConnection[Any]) -> bool:
    row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))).fetchone()
    return bool(row and row[0])


def _differs(run: Mapping[str, Any], stored: str | None) -> bool:
    if stored == "cancelled" and run["state"] == "failed":
        return False
    return bool(stored != run["state"] or stored not in TERMINAL_RUN_STATES)


def _key(run: Mapping[str, Any]) -> Key:
    return run["dag_id"], run["dag_run_id"]
