"""Cancels runs, and retries what failed in them."""

from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection

from backend.clients.airflow import AirflowClient, AirflowRefused, AirflowUnavailable
from backend.core.audit import Action
from backend.core.problems import Conflict, Forbidden
from backend.core.roles import NO_DAGS, Principal
from backend.core.states import FAILED_TASK_STATES, TERMINAL_RUN_STATES, TaskState
from backend.db import audit
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.runs import executions, observations
from backend.db.runs.executions import RunState
from backend.services.limits.admission import Admission
from backend.services.recording.airflow_json import known_run_state, task_state
from backend.services.runs.status import Status
from backend.services.triggering.catalog import refusal, unreachable

T = TypeVar("T")

_FAILED: frozenset[str | None] = frozenset(FAILED_TASK_STATES)
# When a run is stopped, Airflow skips the tasks that had not started.
_NOT_REACHED: frozenset[str | None] = frozenset({"skipped", None})


class Runs:
    """Changes runs in Airflow. A User may change their own runs, Op and Admin all.

    Calls are made with the caller's own token; only for their own runs, if Airflow shows them none, with that of the
    service account.
    """

    def __init__(self, airflow: AirflowClient, database: Database, status: Status, admission: Admission) -> None:
        self._airflow = airflow
        self._database = database
        self._status = status
        self._admission = admission

    async def cancel(self, who: Principal, dag_id: str, dag_run_id: str) -> Row:
        """Cancel a run; its agents abort their model calls. Cancelling a cancelled run changes nothing.

        Raises `NotFound`, `Forbidden`, `Conflict` when the run has already finished, which then stays as it ended, or
        Airflow reports a conflict, and `Unavailable`.
        """
        row = await self._changeable(who, dag_id, dag_run_id)
        if row["state"] == "cancelled":
            return row
        if row["state"] in TERMINAL_RUN_STATES:
            raise _finished(row)
        execution_id = str(row["id"])
        # Before Airflow is asked, so that what its listener then reports as failed is recorded as cancelled.
        if await self._database.run(executions.request_cancel, execution_id, by=who.username):
            try:
                await self._fail(_token(who, row), dag_id, dag_run_id)
            except BaseException:
                await self._database.run(executions.withdraw_cancel, execution_id)
                raise
            await self._database.run(_changed, who, "run.cancel", RunState(dag_id, dag_run_id, "cancelled"))
        row = await self._status.row(who, dag_id, dag_run_id, to_stop=True)
        if row["state"] in TERMINAL_RUN_STATES - {"cancelled"}:
            raise _finished(row)  # meanwhile
        return row

    async def _fail(self, token: str | None, dag_id: str, dag_run_id: str) -> None:
        """Have Airflow fail the run. Airflow would do that to a finished run, too, so its state is read first."""
        current = known_run_state(await self._call(self._airflow.dag_run(dag_id, dag_run_id)))
        if current.state in TERMINAL_RUN_STATES:
            await self._database.run(observations.observe, current)
            raise Conflict(f"The run has already finished: {current.state}.")
        await self._call(self._airflow.fail_run(dag_id, dag_run_id, token=token))

    async def retry(self, who: Principal, dag_id: str, dag_run_id: str) -> Row:
        """Run the failed tasks of a run again; agents continue from their checkpoints.

        Raises `NotFound`, `Forbidden`, `Conflict` when the run neither failed nor was cancelled or Airflow reports a
        conflict, `TooManyRequests` when a limit of the run's user is reached, and `Unavailable`.
        """
        row = await self._changeable(who, dag_id, dag_run_id)
        if row["state"] not in ("failed", "cancelled"):
            raise Conflict(f"Only a run that failed or was cancelled can be retried; this one is {row['state']}.")
        states = _FAILED | _NOT_REACHED if row["state"] == "cancelled" else _FAILED
        keys = [task.key for task in await self._tasks(dag_id, dag_run_id) if task.state in states]
        if not keys:
            raise Conflict("No task of the run failed, so there is nothing to retry.")
        user = row["user_id"] or ""
        await self._admission.check_spend(user, dag_id)
        async with self._admission.slot(str(row["id"]), user, dag_id):
            await self._call(self._airflow.clear_tasks(dag_id, dag_run_id, keys, token=_token(who, row)))
            now = await self._database.run(executions.clock)
            tasks, queued = await self._tasks(dag_id, dag_run_id), RunState(dag_id, dag_run_id, "queued")
            await self._database.run(_changed, who, "run.retry", queued, tasks, observed_at=now)
        return await self._status.row(who, dag_id, dag_run_id, to_stop=True)

    async def _changeable(self, who: Principal, dag_id: str, dag_run_id: str) -> Row:
        row = await self._status.row(who, dag_id, dag_run_id, to_stop=True)
        if not who.may_stop(dag_id, row["user_id"], row["triggered_by"]):
            raise Forbidden(
                "Viewers can't change runs; that takes the role User or above."
                if who.rights.stops_own == NO_DAGS
                else "A User may change only their own runs; Op and Admin may change all."
            )
        return row

    async def _tasks(self, dag_id: str, dag_run_id: str) -> list[TaskState]:
        return [task_state(task) for task in await self._call(self._airflow.task_instances([(dag_id, dag_run_id)]))]

    @staticmethod
    async def _call(call: Awaitable[T]) -> T:
        try:
            return await call
        except AirflowRefused as refused:
            if refused.status == 409:
                raise Conflict(f"Airflow reports a conflict: {refused.detail}") from refused
            raise refusal(refused, "Airflow no longer has this run.") from refused
        except AirflowUnavailable as error:
            raise unreachable() from error


def _changed(
    connection: Connection,
    who: Principal,
    action: Action,
    run: RunState,
    tasks: Sequence[TaskState] = (),
    *,
    observed_at: datetime | None = None,
) -> None:
    """Record what became of a run, and who did it."""
    audit.record(connection, who, action, f"{run.dag_id}/{run.dag_run_id}")
    observations.observe(connection, run, tasks, observed_at=observed_at)


def _token(who: Principal, row: Row) -> str | None:
    return who.token_for(own=who.owns(row["user_id"], row["triggered_by"]))


def _finished(row: Row) -> Conflict:
    return Conflict(f"The run has already finished: {row['state']}.")
