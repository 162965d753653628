"""Makes what is recorded agree with Airflow, whoever started, changed or deleted a run."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from backend.clients.airflow import AirflowClient, AirflowError, AirflowRefused
from backend.core.settings import Settings
from backend.core.states import TERMINAL_RUN_STATES, TaskState
from backend.db.address import plain_url
from backend.db.engine import Database
from backend.db.runs import executions, observations
from backend.services.background import in_background
from backend.services.recording.airflow_json import run_state, task_state

log = logging.getLogger(__name__)

LOCK = 0x76_61_69_01
"""The advisory lock that one replica holds while it reconciles."""

LOOK_BACK = timedelta(minutes=10)
"""How far back the first pass looks for runs that came and went unseen."""

OVERLAP = timedelta(seconds=10)
"""Passes overlap: Airflow's transactions commit after the time they write."""

MISSING_PER_PASS = 50
IDLE_FACTOR = 2.5

FULL_READING = timedelta(seconds=30)
"""How often all task instances of active runs are read, and not only those that changed."""

QUICK_FACTOR = 0.25
LATELY = 10.0
"""Seconds for which passes are quicker after one has found what nobody had told: the listener may be off or lost."""

LOCK_SETTINGS = {
    "idle_session_timeout": "60s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""A leader that hangs or whose machine is gone loses the lock: PostgreSQL ends its session."""

Key = tuple[str, str]


class _Seen:
    """What passes have read of an active run, and what of it was read twice."""

    __slots__ = ("_tasks", "run", "stored", "twice")

    def __init__(self) -> None:
        self.run: str | None = None
        self.stored: str | None = None
        self.twice = False
        self._tasks: dict[tuple[str, int], tuple[str | None, int, bool]] = {}

    def settled(self, task: TaskState) -> bool:
        """Whether the task's state was written twice."""
        return self._tasks.get(task.key) == (task.state, task.try_number, True)

    def note(self, run: str, stored: str | None, tasks: Iterable[TaskState]) -> None:
        """These were written."""
        self.twice = (self.run, self.stored) == (run, stored)
        self.run, self.stored = run, stored
        for task in tasks:
            again = self._tasks.get(task.key, (None, -1, False))[:2] == (task.state, task.try_number)
            self._tasks[task.key] = (task.state, task.try_number, again)


class Reconciler:
    """Compares Airflow's runs with ours every few seconds; one replica at a time does.

    A pass costs three list calls, whatever runs there were: the active runs, the runs and the task instances that
    changed. Runs that are new or changed their state cost one more for each 50. It writes only what changed.
    """

    def __init__(self, settings: Settings, airflow: AirflowClient, database: Database) -> None:
        self._conninfo = plain_url(settings.database_url)
        self._interval = settings.reconcile_interval
        self._airflow = airflow
        self._database = database
        self._since: datetime | None = None
        self._all_read: datetime | None = None
        self._seen: dict[Key, _Seen] = {}
        self._found_at = -LATELY
        self._ok = False
        self._reason = "not started"
        self.leading = False

    def state(self) -> tuple[bool, str]:
        """Whether the last pass went well (or another replica leads), and if not why."""
        return self._ok, self._reason

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reconcile until the context ends."""
        async with in_background(self._run()):
            yield

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
            self._conninfo,
            autocommit=True,
            application_name="visual_ai_reconciler",
            connect_timeout=5,
        ) as connection:
            await connection.execute(
                # Those that this version of PostgreSQL has.
                "SELECT set_config(name, %s::jsonb ->> name, false) FROM pg_settings WHERE name = ANY(%s)",
                [json.dumps(LOCK_SETTINGS), list(LOCK_SETTINGS)],
            )
            while not await _taken(connection):
                self._ok, self._reason = True, "another replica reconciles"
                await asyncio.sleep(self._interval)
            self.leading = True
            self._since = self._all_read = None
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
                await self._pause(active)
                await connection.execute("SELECT 1")  # the lock goes with the connection

    async def _pause(self, active: int) -> None:
        """Wait for the next pass: not long after one has found something, longer when nothing runs."""
        if time.monotonic() - self._found_at < LATELY:
            await asyncio.sleep(self._interval * QUICK_FACTOR)
            return
        await asyncio.sleep(self._interval)
        # Our own database costs little to ask: what was started from here is looked at soon.
        if not active and not await self._database.run_autocommit(executions.list_active):
            await asyncio.sleep(self._interval * (IDLE_FACTOR - 1))

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
        tasks = await self._tasks(wanted, runs, stored, began)
        for key in wanted:
            await self._write(key, runs[key], tasks.get(key, []), stored.get(key), observed_at)
        for key in self._seen.keys() - running.keys():
            del self._seen[key]
        self._since = began - OVERLAP
        return len(running)

    async def _tasks(
        self, wanted: list[Key], runs: Mapping[Key, Mapping[str, Any]], stored: Mapping[Key, str], began: datetime
    ) -> dict[Key, list[Mapping[str, Any]]]:
        """Task instances of the runs: of those that are known only what changed, which is one call for all of them."""
        everything = self._all_read is None or began - self._all_read >= FULL_READING
        known = set() if everything else {key for key in wanted if self._agrees(key, runs[key], stored.get(key))}
        anew = [key for key in wanted if key not in known and runs[key].get("found", True)]
        found = await self._airflow.task_instances(anew)
        if known and self._since is not None:
            # The oldest bounds what Airflow has to look through: runs of long ago are older.
            oldest = min((str(after) for key in known if (after := runs[key].get("run_after"))), default=None)
            changed = await self._airflow.tasks_updated_since(self._since, run_after=oldest)
            found += [task for task in changed if _key(task) in known]
        if everything:
            self._all_read = began
        tasks: dict[Key, list[Mapping[str, Any]]] = {}
        for task in found:
            tasks.setdefault(_key(task), []).append(task)
        return tasks

    def _agrees(self, key: Key, run: Mapping[str, Any], stored: str | None) -> bool:
        """Whether the run is one that a pass before has read, and nothing has happened to it as a whole."""
        seen = self._seen.get(key)
        return seen is not None and seen.run == run["state"] == stored

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
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = _Seen()
        states = [task_state(task) for task in tasks]
        fresh = [task for task in states if not seen.settled(task)]
        if not fresh and seen.run == run["state"] and seen.stored == stored and seen.twice:
            return
        try:
            news = await self._database.run(observations.observe_news, run_state(run), fresh, observed_at=observed_at)
        except (OperationalError, InterfaceError):
            raise  # the database's fault, not this run's
        except (DBAPIError, LookupError, TypeError, ValueError):
            log.exception("run %s of %s could not be recorded", key[1], key[0])
            news = False
        if news:
            self._found_at = time.monotonic()
        # What was noticed during the first pass that saw it may have stood above it: only a second one settles it.
        seen.note(run["state"], stored, fresh)


async def _taken(connection: psycopg.AsyncConnection[Any]) -> bool:
    row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))).fetchone()
    return bool(row and row[0])


def _differs(run: Mapping[str, Any], stored: str | None) -> bool:
    if stored == "cancelled" and run["state"] == "failed":
        return False
    return bool(stored != run["state"] or stored not in TERMINAL_RUN_STATES)


def _key(run: Mapping[str, Any]) -> Key:
    return run["dag_id"], run["dag_run_id"]
