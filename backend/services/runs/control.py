"""Cancels runs, and retries what failed in them."""

from collections.abc import Awaitable
from typing import TypeVar

from backend.clients.airflow import AirflowClient, AirflowRefused, AirflowUnavailable
from backend.core.problems import Conflict, Forbidden
from backend.core.roles import Principal, Role
from backend.core.states import FAILED_TASK_STATES, TERMINAL_RUN_STATES, TaskState
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.runs import executions, observations
from backend.db.runs.executions import RunState
from backend.services.recording.airflow_json import known_run_state, task_state
from backend.services.runs.status import Status
from backend.services.triggering.catalog import refusal, unreachable

T = TypeVar("T")

_FAILED: frozenset[str | None] = frozenset(FAILED_TASK_STATES)
# When a run is stopped, Airflow skips the tasks that had not started.
_NOT_REACHED: frozenset[str | None] = frozenset({"skipped", None})


class Runs:
    """Changes runs in Airflow with the caller's own rights. A User may change their own runs, Op and Admin all."""

    def __init__(self, airflow: AirflowClient, database: Database, status: Status) -> None:
        self._airflow = airflow
        self._database = database
        self._status = status

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
                await self._fail(who, dag_id, dag_run_id)
            except BaseException:
                await self._database.run(executions.withdraw_cancel, execution_id)
                raise
            await self._database.run(observations.observe, RunState(dag_id, dag_run_id, "cancelled"))
        row = await self._status.row(who, dag_id, dag_run_id)
        if row["state"] in TERMINAL_RUN_STATES - {"cancelled"}:
            raise _finished(row)  # meanwhile
        return row

    async def _fail(self, who: Principal, dag_id: str, dag_run_id: str) -> None:
        """Have Airflow fail the run. Airflow would do that to a finished run, too, so its state is read first."""
        current = known_run_state(await self._call(self._airflow.dag_run(dag_id, dag_run_id)))
        if current.state in TERMINAL_RUN_STATES:
            await self._database.run(observations.observe, current)
            raise Conflict(f"The run has already finished: {current.state}.")
        await self._call(self._airflow.fail_run(dag_id, dag_run_id, token=who.airflow_token))

    async def retry(self, who: Principal, dag_id: str, dag_run_id: str) -> Row:
        """Run the failed tasks of a run again; agents continue from their checkpoints.

        Raises `NotFound`, `Forbidden`, `Conflict` when the run neither failed nor was cancelled or Airflow reports a
        conflict, and `Unavailable`.
        """
        row = await self._changeable(who, dag_id, dag_run_id)
        if row["state"] not in ("failed", "cancelled"):
            raise Conflict(f"Only a run that failed or was cancelled can be retried; this one is {row['state']}.")
        states = _FAILED | _NOT_REACHED if row["state"] == "cancelled" else _FAILED
        keys = [task.key for task in await self._tasks(dag_id, dag_run_id) if task.state in states]
        if not keys:
            raise Conflict("No task of the run failed, so there is nothing to retry.")
        await self._call(self._airflow.clear_tasks(dag_id, dag_run_id, keys, token=who.airflow_token))
        now = await self._database.run(executions.clock)
        tasks = await self._tasks(dag_id, dag_run_id)
        await self._database.run(observations.observe, RunState(dag_id, dag_run_id, "queued"), tasks, observed_at=now)
        return await self._status.row(who, dag_id, dag_run_id)

    async def _changeable(self, who: Principal, dag_id: str, dag_run_id: str) -> Row:
        row = await self._status.row(who, dag_id, dag_run_id)
        own = who.username in (row["user_id"], row["triggered_by"])
        if who.role < Role.USER or not (own or who.role >= Role.OP):
            raise Forbidden(
                "Viewers can't change runs; that takes the role User or above."
                if who.role < Role.USER
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


def _finished(row: Row) -> Conflict:
    return Conflict(f"The run has already finished: {row['state']}.")
