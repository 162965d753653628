"""Finds out why runs failed whose agents have recorded no error that decided it, and adds the missing error.

The reconciler calls this after each pass. A run is explained once per attempt, by whichever replica is first: the row
is written in a transaction that locks the execution and checks that nothing has explained it yet. Runs whose recorded
errors explain them cost Airflow nothing; each other one costs at most `CALLS_PER_RUN` calls. While Airflow is
unreachable its run stays unexplained, and a later pass tries again.
"""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection

from backend.clients.airflow import AirflowClient, AirflowError, AirflowRefused, AirflowUnavailable
from backend.clients.airflow_runs import CONF_TEXT
from backend.core.large_values import in_thread
from backend.db import notification_causes
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.runs import errors, observations, reasons
from backend.services.recording import explanations
from backend.services.recording.airflow_json import run_state
from backend.services.recording.explanations import Explanation, LogFindings
from backend.services.runs.log_lines import TaskLines

log = logging.getLogger(__name__)

SETTLED_AFTER = timedelta(seconds=1)
"""How long after a run's end it is explained. Until then the last errors of its tasks may still be on their way."""

WITHIN = timedelta(days=7)
"""How long after its end a run is explained at all."""

RUNS_PER_PASS = 10
CALLS_PER_RUN = 7
"""The run, the event log (twice), the failed tasks, a log, the DAG's details and the import errors."""

FAILED_TASKS = 20
"""How many failed tasks of a run are looked at."""

POSTPONED_SECONDS = 30.0
"""How long a run is left alone after Airflow did not answer."""

LOG_ATTEMPTS = 3
LOG_LIMIT = 4 * 2**20
"""Bytes of a log that are read. Airflow can return a log only from its beginning."""

_TIMEOUT = TypeAdapter(timedelta)


class Explainer:
    """Explains failed runs."""

    def __init__(self, airflow: AirflowClient, database: Database) -> None:
        self._airflow = airflow
        self._database = database
        self._postponed: dict[str, float] = {}
        """Executions for which Airflow gave no usable answer, and when to ask again, by the monotonic clock."""
        self._logs_missed: Counter[str] = Counter()
        """How often the log of an execution's task could not be read. Its worker may be gone for good."""

    async def explain(self) -> int:
        """Explain runs that ended lately without a known reason; returns how many are left.

        Raises `AirflowUnavailable` and `SQLAlchemyError`; a retry helps.
        """
        now = time.monotonic()
        self._postponed = {key: until for key, until in self._postponed.items() if until > now}
        limit = RUNS_PER_PASS + len(self._postponed)
        ended = await self._database.run(reasons.list_unexplained, after=SETTLED_AFTER, within=WITHIN, limit=limit)
        due = [row for row in ended if row["settled"] and row["id"] not in self._postponed][:RUNS_PER_PASS]
        return len(ended) - sum([await self._explain(row) for row in due])

    async def _explain(self, row: Row) -> bool:
        # An error of a task may have been recorded after the run's end.
        if await self._database.run(_take_recorded, row):
            return True
        try:
            found = await self._find(row)
        except AirflowUnavailable:
            # The next pass tries others first: it may be only this run that Airflow fails at.
            self._postponed[row["id"]] = time.monotonic() + POSTPONED_SECONDS
            raise
        except (AirflowRefused, AttributeError, LookupError, TypeError, ValueError):
            log.exception("run %s of %s could not be explained", row["dag_run_id"], row["dag_id"])
            found = explanations.unknown()
        self._logs_missed.pop(row["id"], None)
        if found is not None:
            await self._database.run(_write, row, found)
        return found is not None

    async def _find(self, row: Row) -> Explanation | None:
        """What ended the run; None when it has not failed after all, which is then recorded."""
        run = await self._run(row)
        if run is None:
            return explanations.deleted(row, await self._deletions(row))
        if row["state"] == "cancelled":
            return explanations.cancelled()
        if run["state"] != "failed":
            await self._database.run(observations.observe, await run_state(run), observed_at=row["now"])
            return None
        events = await self._events(row, since=run.get("queued_at") or run.get("start_date"))
        if found := explanations.run_set_failed(run, events):
            return found
        tasks = await self._airflow.failed_tasks(row["dag_id"], row["dag_run_id"], limit=FAILED_TASKS)
        if not tasks:
            return await self._without_failed_tasks(row, run)
        for task in tasks:
            explain = partial(explanations.task_ended, run, task, events)
            if found := await in_thread(explain) if CONF_TEXT in run else explain():
                return found
        return await self._from_log(row, tasks[0])

    async def _run(self, row: Row) -> dict[str, Any] | None:
        try:
            return await self._airflow.dag_run(row["dag_id"], row["dag_run_id"])
        except AirflowRefused as refused:
            if refused.status == 404:
                return None
            raise

    async def _events(self, row: Row, since: str | None) -> list[dict[str, Any]]:
        """What Airflow's event log has on the run. A change of many runs at once is logged without their ids."""
        own = await self._event_log(explanations.EVENTS, dag_id=row["dag_id"], run_id=row["dag_run_id"], since=since)
        return own + await self._event_log(explanations.BULK_CHANGES, since=since)

    async def _deletions(self, row: Row) -> list[dict[str, Any]]:
        """What the event log has on the deletion of a run, or of its DAG, which is logged without the run's id."""
        own = await self._event_log(explanations.DELETIONS, dag_id=row["dag_id"], since=row["queued_at"].isoformat())
        return own + await self._event_log(explanations.BULK_CHANGES, since=row["queued_at"].isoformat())

    async def _event_log(self, names: Sequence[str], **wanted: str | None) -> list[dict[str, Any]]:
        try:
            return await self._airflow.event_log(names, **wanted)
        except AirflowRefused as refused:
            # An Airflow that was set up by an earlier version does not let the backend read its event log.
            log.warning("Airflow's event log can't be read: %s", refused)
            return []

    async def _without_failed_tasks(self, row: Row, run: Mapping[str, Any]) -> Explanation:
        try:
            details = await self._airflow.dag_details(row["dag_id"])
            limit = _TIMEOUT.validate_python(details.get("dag_run_timeout"))
        except (AirflowRefused, ValidationError):  # the DAG is gone, or has no timeout
            return explanations.deadlocked()
        if run.get("start_date") and run.get("end_date"):
            took = datetime.fromisoformat(run["end_date"]) - datetime.fromisoformat(run["start_date"])
            if took >= limit:
                return explanations.timed_out(run, limit)
        return explanations.deadlocked()

    async def _from_log(self, row: Row, task: Mapping[str, Any]) -> Explanation:
        found = LogFindings()
        try:
            await self._read_log(row, task, found)
        except AirflowError as error:
            self._logs_missed[row["id"]] += 1
            if isinstance(error, AirflowUnavailable) and self._logs_missed[row["id"]] < LOG_ATTEMPTS:
                raise
            log.info("the log of %s can't be read: %s", task["task_id"], error)
        import_error = await self._import_error(row) if found.not_found == "dag" else None
        return explanations.task_failed(task, found, import_error)

    async def _read_log(self, row: Row, task: Mapping[str, Any], found: LogFindings) -> None:
        if not task["try_number"]:
            return
        async with self._airflow.task_log(
            row["dag_id"], row["dag_run_id"], task["task_id"], task["map_index"], task["try_number"], token=None
        ) as pieces:
            size = 0
            async for lines in TaskLines(pieces):
                for line in lines:
                    found.add(line)
                    size += len(line)
                if size > LOG_LIMIT:
                    return

    async def _import_error(self, row: Row) -> str | None:
        try:
            details = await self._airflow.dag_details(row["dag_id"])
            broken = await self._airflow.import_errors()
        except AirflowRefused:
            return None
        for one in broken:
            if one.get("filename") in (details.get("relative_fileloc"), details.get("fileloc")):
                trace = str(one.get("stack_trace") or "").strip()
                return trace.splitlines()[-1] if trace else None
        return None


def _take_recorded(connection: Connection, row: Row) -> bool:
    """Make the recorded error that decided the run's end its reason, if there is one."""
    if row["state"] != "failed" or not reasons.lock_unexplained(connection, row["id"], row["attempt"]):
        return False
    deciding = reasons.deciding_errors(connection, [row["id"]]).get(row["id"])
    if deciding is None:
        return False
    reasons.set_reason(connection, row["id"], reasons.words(deciding))
    notification_causes.announce(connection)
    return True


def _write(connection: Connection, row: Row, found: Explanation) -> None:
    """Write the reason and, for a failed run, the error that it lacks, unless another replica has done so.

    Nothing is appended to the event log, as nothing follows the end of a run.
    """
    if not reasons.lock_unexplained(connection, row["id"], row["attempt"]):
        return
    if row["state"] == "failed":
        errors.add_explanation(connection, row, **asdict(found))
    reasons.set_reason(connection, row["id"], found.message)
    notification_causes.announce(connection)
