"""The reconciler: makes the recorded state agree with Airflow, whoever started, changed or deleted a run.

Airflow is the source of truth about runs and task instances. The listener reports changes quickly, but may be switched
off, drop a notice or die with its process, and nobody reports runs that are deleted or whose state is set by hand. The
reconciler therefore reads Airflow's own lists every few seconds and records what differs. A reading replaces everything
that was recorded before it began (`observed_at`), and nothing that is newer.

One replica at a time reconciles: it holds a PostgreSQL advisory lock on a connection of its own, and another replica
takes over when that connection ends.

A pass reads the active runs, the runs that changed since the last pass, and their task instances. So that cost follows
what happens and not what is active, it reads all task instances only of runs that are new or have changed state, and
every `FULL_READING` of all; of the others it reads those that changed. Two effects of Airflow's timestamps have to be
allowed for:

* `updated_at` is set before its transaction commits, so passes overlap by `OVERLAP`.
* What the listener records during a pass may be newer than what the pass read, and is then not replaced. Only a state
  that two passes have read and written is settled; from then on the pass skips it (`_RunHistory`).
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

from backend.clients.airflow import AirflowClient, AirflowError, AirflowRefused
from backend.core.scheduling.dag_ids import is_schedule_dag
from backend.core.settings import Settings
from backend.core.states import TERMINAL_RUN_STATES, TaskState
from backend.db.address import plain_url
from backend.db.engine import Database
from backend.db.runs import executions, leftovers, observations
from backend.services.background import in_background, retrieve
from backend.services.recording.airflow_json import known_run_state, run_state, task_state
from backend.services.recording.explainer import Explainer
from backend.services.recording.record_restorer import RecordRestorer
from backend.services.recording.result_restorer import ResultRestorer
from backend.services.recording.stalls import Stalls

log = logging.getLogger(__name__)

LOCK = 0x76_61_69_01
"""The advisory lock that one replica holds while it reconciles."""

LOOK_BACK = timedelta(minutes=10)
"""How far back a new leader's first pass looks for runs that started and finished unrecorded."""

OVERLAP = timedelta(seconds=10)
"""How much passes overlap: Airflow's transactions commit later than the time they write."""

MISSING_PER_PASS = 50
"""Runs that are recorded as active but not among Airflow's that one pass looks up, each with a call of its own."""

IDLE_FACTOR = 2.5
"""How much longer the pause between two passes is while nothing runs."""

FULL_READING = timedelta(seconds=30)
"""How often all task instances of active runs are read, not only those that changed."""

STALLS_SECONDS = 15.0
"""How often runs that stand still, and lost records of ended ones, are looked for."""

QUICK_FACTOR = 0.25
"""How much shorter the pause is after a pass has found something unreported."""

QUICK_SECONDS = 10.0
"""How long it stays shorter: the listener may be switched off or broken."""

LOCK_SETTINGS = {
    "idle_session_timeout": "60s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""With these PostgreSQL ends the session of a leader that hangs or is unreachable, which releases the lock."""

PING_SECONDS = 15.0
"""How often a leader's session shows during a pass that it is alive: with a thousand new runs a pass takes minutes."""

PASS_SECONDS = 900.0
"""How long a pass may take before its leader counts as hanging."""

Key = tuple[str, str]


class _RunHistory:
    """What earlier passes have read and written of an active run."""

    __slots__ = ("_tasks", "run", "settled", "stored")

    def __init__(self) -> None:
        self.run: str | None = None
        """The run's state in Airflow."""
        self.stored: str | None = None
        """The state that was recorded before."""
        self.settled = False
        """Two passes have written the same states of the run."""
        self._tasks: dict[tuple[str, int], tuple[str | None, int, bool]] = {}

    def task_settled(self, task: TaskState) -> bool:
        """Whether two passes have written this state of the task."""
        return self._tasks.get(task.key) == (task.state, task.try_number, True)

    def add(self, run: str, stored: str | None, tasks: Iterable[TaskState]) -> None:
        """Add what a pass has written."""
        self.settled = (self.run, self.stored) == (run, stored)
        self.run, self.stored = run, stored
        for task in tasks:
            again = self._tasks.get(task.key, (None, -1, False))[:2] == (task.state, task.try_number)
            self._tasks[task.key] = (task.state, task.try_number, again)


class Reconciler:
    """Compares Airflow's runs with the recorded ones every few seconds, while this replica holds the lock.

    A pass costs three list calls: the active runs, and the runs and task instances that changed. Runs that are new or
    have changed state cost one more call per 50. Only changes are written. After a pass, failed runs whose records
    don't say why are explained (`explainer.py`), and what did not arrive is restored (`result_restorer.py`,
    `record_restorer.py`).
    """

    def __init__(
        self, settings: Settings, airflow: AirflowClient, database: Database, large_database: Database
    ) -> None:
        self._conninfo = plain_url(settings.database_url)
        self._interval = settings.reconcile_interval
        self._airflow = airflow
        self._database = database
        self._large_database = large_database
        self._explainer = Explainer(airflow, database)
        self.results = ResultRestorer(airflow, database)
        self.records = RecordRestorer(airflow, database)
        self._stalls = Stalls(airflow, database)
        self._since: datetime | None = None
        self._last_full_reading: datetime | None = None
        self._history: dict[Key, _RunHistory] = {}
        self._found_at = -QUICK_SECONDS
        self._stalls_at = -STALLS_SECONDS
        self._ok = False
        self._reason = "not started"
        self.leading = False

    def state(self) -> tuple[bool, str]:
        """Whether the last pass succeeded or another replica reconciles, and if not, why."""
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
            except TimeoutError:
                self._fail(f"a pass took longer than {PASS_SECONDS:g} s")
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
                # Only those that this version of PostgreSQL knows.
                "SELECT set_config(name, %s::jsonb ->> name, false) FROM pg_settings WHERE name = ANY(%s)",
                [json.dumps(LOCK_SETTINGS), list(LOCK_SETTINGS)],
            )
            while not await _taken(connection):
                self._ok, self._reason = True, "another replica reconciles"
                await asyncio.sleep(self._interval)
            self.leading = True
            self._since = self._last_full_reading = None
            self._history.clear()
            while True:
                async with _alive(connection), asyncio.timeout(PASS_SECONDS):
                    active = await self._pass()
                await self._pause(active)
                await connection.execute("SELECT 1")  # without the connection the lock is lost

    async def _pass(self) -> int:
        active = 0
        try:
            active = await self.reconcile()
            self._ok, self._reason = True, ""
            active += await self._complete()
        except AirflowError as error:
            self._fail(str(error))
        except SQLAlchemyError as error:
            self._fail(f"the database is out of reach ({type(error).__name__})")
        return active

    async def _complete(self) -> int:
        """Explain failed runs and restore missing results; returns how many runs are left to explain. What Airflow
        can't say now is no fault of the pass."""
        try:
            left = await self._explainer.explain()
            await self.results.restore()
            if time.monotonic() - self._stalls_at >= STALLS_SECONDS:
                self._stalls_at = time.monotonic()
                await self.records.restore()
                await self._stalls.explain()
        except AirflowError as error:
            log.info("records of ended runs can't be completed now: %s", error)
            return 1
        return left

    async def _pause(self, active: int) -> None:
        """Wait for the next pass: briefly after one has found something, longer while nothing runs."""
        if time.monotonic() - self._found_at < QUICK_SECONDS:
            await asyncio.sleep(self._interval * QUICK_FACTOR)
            return
        await asyncio.sleep(self._interval)
        # A query of our own is cheap, and runs that were triggered here should not wait.
        if not active and not await self._database.run_autocommit(executions.list_active):
            await asyncio.sleep(self._interval * (IDLE_FACTOR - 1))

    def _fail(self, reason: str) -> None:
        if self._ok:
            log.warning("reconciling: %s", reason)
        self._ok, self._reason = False, reason

    async def reconcile(self) -> int:
        """Make one pass; returns the number of active runs. Raises `AirflowError` and `SQLAlchemyError`; retry it."""
        began = datetime.now(UTC)
        observed_at = await self._database.run(executions.clock)
        ours = await self._database.run(executions.list_active)
        running = _of_workflows(await self._airflow.active_runs())
        changed = _of_workflows(await self._airflow.runs_updated_since(self._since or began - LOOK_BACK))
        runs = {**running, **changed}
        missing = [key for row in ours if (key := (row["dag_id"], row["dag_run_id"])) not in runs]
        for key in missing[:MISSING_PER_PASS]:
            runs[key] = await self._find(key)
        stored = await self._database.run(executions.states_of, list(runs))
        to_write = [key for key, run in runs.items() if key in running or _differs(run, stored.get(key))]
        tasks = await self._tasks(to_write, runs, stored, began)
        for key in to_write:
            await self._write(key, runs[key], tasks.get(key, []), stored.get(key), observed_at)
        for key in self._history.keys() - running.keys():
            del self._history[key]
        self._since = began - OVERLAP
        return len(running)

    async def _tasks(
        self, keys: list[Key], runs: Mapping[Key, Mapping[str, Any]], stored: Mapping[Key, str], began: datetime
    ) -> dict[Key, list[Mapping[str, Any]]]:
        """The task instances of these runs. Of unchanged runs only those that changed, with one call for all runs."""
        full = self._last_full_reading is None or began - self._last_full_reading >= FULL_READING
        known = set() if full else {key for key in keys if self._unchanged(key, runs[key], stored.get(key))}
        found = await self._airflow.task_instances(
            key for key in keys if key not in known and runs[key].get("found", True)
        )
        if known and self._since is not None:
            # The oldest run limits what Airflow has to search.
            oldest = min((str(after) for key in known if (after := runs[key].get("run_after"))), default=None)
            changed = await self._airflow.tasks_updated_since(self._since, run_after=oldest)
            found += [task for task in changed if _key(task) in known]
        if full:
            self._last_full_reading = began
            await self._close_left()
        self.records.saw(found)
        tasks: dict[Key, list[Mapping[str, Any]]] = {}
        for task in found:
            tasks.setdefault(_key(task), []).append(task)
        return tasks

    async def _close_left(self) -> None:
        """Close the agents that nobody else will."""
        for execution_id in await self._database.run(leftovers.find):
            log.warning(
                "closed %s agents of execution %s whose end was not recorded",
                await self._database.run(leftovers.close, execution_id),
                execution_id,
            )

    def _unchanged(self, key: Key, run: Mapping[str, Any], stored: str | None) -> bool:
        """Whether an earlier pass has read the run, and its state has not changed since."""
        history = self._history.get(key)
        if stored == "awaiting_input":
            stored = "running"  # as Airflow calls it
        return history is not None and history.run == run["state"] == stored

    async def _find(self, key: Key) -> dict[str, Any]:
        try:
            return await self._airflow.dag_run(*key)
        except AirflowRefused as refused:
            if refused.status != 404:
                raise
        # Deleted in Airflow: it will not continue.
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
        history = self._history.setdefault(key, _RunHistory())
        new = [state for task in tasks if not history.task_settled(state := task_state(task))]
        if not new and history.settled and (history.run, history.stored) == (run["state"], stored):
            return
        # Only a run that is new here needs its input, which may be large.
        observed = known_run_state(run) if stored is not None else await run_state(run)
        try:
            database = self._database if observed.input_json is None else self._large_database
            changed = await database.run(observations.observe_news, observed, new, observed_at=observed_at)
        except (OperationalError, InterfaceError):
            raise  # a fault of the database, not of this run
        except (DBAPIError, LookupError, TypeError, ValueError):
            log.exception("run %s of %s could not be recorded", key[1], key[0])
            changed = False
        if changed:
            self._found_at = time.monotonic()
        history.add(run["state"], stored, new)


@asynccontextmanager
async def _alive(connection: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """Keep a session from being idle until the context ends. What fails then fails again at its next use."""
    over = asyncio.Event()

    async def ping() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), PING_SECONDS)
                return
            await connection.execute("SELECT 1")

    pings = asyncio.create_task(ping())
    pings.add_done_callback(retrieve)
    try:
        yield
    finally:
        over.set()
        await asyncio.wait([pings])


async def _taken(connection: psycopg.AsyncConnection[Any]) -> bool:
    row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))).fetchone()
    return bool(row and row[0])


def _differs(run: Mapping[str, Any], stored: str | None) -> bool:
    if stored == "cancelled" and run["state"] == "failed":
        return False
    return bool(stored != run["state"] or stored not in TERMINAL_RUN_STATES)


def _key(run: Mapping[str, Any]) -> Key:
    return run["dag_id"], run["dag_run_id"]


def _of_workflows(runs: Iterable[Mapping[str, Any]]) -> dict[Key, Mapping[str, Any]]:
    """Runs by their keys, without those of the DAGs that only start scheduled runs."""
    return {_key(run): run for run in runs if not is_schedule_dag(run["dag_id"])}
