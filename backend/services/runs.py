"""Stops runs and starts them again where they failed."""

from collections.abc import Awaitable

from backend.clients.airflow import AirflowClient, AirflowRefused, AirflowUnavailable
from backend.core.problems import Conflict, Forbidden
from backend.core.roles import Principal, Role
from backend.core.states import TERMINAL_RUN_STATES
from backend.db import executions
from backend.db.engine import Database
from backend.db.executions import RunState
from backend.db.rows import Row
from backend.services.catalog import refusal, unreachable
from backend.services.status import Status


class Runs:
    """Changes runs in Airflow with the rights of whoever asks. A User may change their own, Op and Admin all."""

    def __init__(self, airflow: AirflowClient, database: Database, status: Status) -> None:
        self._airflow = airflow
        self._database = database
        self._status = status

    async def cancel(self, who: Principal, dag_id: str, dag_run_id: str) -> Row:
        """Stop a run; its agents give up their model calls. Cancelling a cancelled run changes nothing.

        Raises `NotFound`, `Forbidden`, `Conflict` when the run is over already, `Unavailable`.
        """
        row = await self._changeable(who, dag_id, dag_run_id)
        if row["state"] == "cancelled":
            return row
        if row["state"] in TERMINAL_RUN_STATES:
            raise Conflict(f"The run is over already: {row['state']}.")
        execution_id = str(row["id"])
        # First of all: what Airflow's listener then reports as failed is to be known as cancelled.
        await self._database.run(executions.request_cancel, execution_id)
        try:
            await self._ask(self._airflow.fail_run(dag_id, dag_run_id, token=who.airflow_token))
        except BaseException:
            await self._database.run(executions.withdraw_cancel, execution_id)
            raise
        await self._database.run(executions.observe, RunState(dag_id, dag_run_id, "cancelled"))
        return await self._status.row(who, dag_id, dag_run_id)

    async def retry(self, who: Principal, dag_id: str, dag_run_id: str) -> Row:
        """Run again what failed; agents go on from their checkpoints.

        Raises `NotFound`, `Forbidden`, `Conflict` when the run neither failed nor was cancelled, `Unavailable`.
        """
        row = await self._changeable(who, dag_id, dag_run_id)
        if row["state"] not in ("failed", "cancelled"):
            raise Conflict(f"Only a run that failed or was cancelled can be run again; this one is {row['state']}.")
        await self._ask(self._airflow.clear_failed(dag_id, dag_run_id, token=who.airflow_token))
        now = await self._database.run(executions.clock)
        await self._database.run(executions.observe, RunState(dag_id, dag_run_id, "queued"), observed_at=now)
        return await self._status.row(who, dag_id, dag_run_id)

    async def _changeable(self, who: Principal, dag_id: str, dag_run_id: str) -> Row:
        row = await self._status.row(who, dag_id, dag_run_id)
        own = who.username in (row["user_id"], row["triggered_by"])
        if who.role < Role.USER or not (own or who.role >= Role.OP):
            raise Forbidden("The role User may change its own runs only; Op and Admin all.")
        return row

    @staticmethod
    async def _ask(call: Awaitable[object]) -> None:
        try:
            await call
        except AirflowRefused as refused:
            if refused.status == 409:
                raise Conflict(f"Airflow refuses: {refused.detail}") from refused
            raise refusal(refused, "There is no such run in Airflow any more.") from refused
        except AirflowUnavailable as error:
            raise unreachable() from error
