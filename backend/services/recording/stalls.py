"""Says why a run that has not ended doesn't go on.

The reconciler calls this several times a minute. It costs Airflow nothing while something happens in every run;
otherwise its health, the tasks of the runs that stand still, and each of their DAGs and pools once. A run whose task is
in a triggerer that is alive doesn't stand still.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from backend.clients.airflow import AirflowClient, AirflowRefused
from backend.db.engine import Database
from backend.db.runs import stalled

AFTER = 20.0
"""Seconds in which nothing has changed before a run counts as standing still."""

RUNS_PER_PASS = 50

Json = Mapping[str, Any]


class Stalls:
    """Finds runs that stand still, and what they wait for."""

    def __init__(self, airflow: AirflowClient, database: Database) -> None:
        self._airflow = airflow
        self._database = database

    async def explain(self) -> None:
        """Look at the runs that stand still. Raises `AirflowError` and `SQLAlchemyError`; a retry helps."""
        found = await self._database.run(stalled.find, after=AFTER, limit=RUNS_PER_PASS)
        if not found:
            return
        health = await self._airflow.health()
        causes: dict[str, str | None] = {}
        if health.get("triggerer", {}).get("status") == "healthy":
            causes = {row["id"]: None for row in found if row["deferred"] and row["waits_for"] is not None}
            found = [row for row in found if not row["deferred"]]
        causes |= await self._causes(found, health)
        if causes:
            await self._database.run(stalled.set_causes, causes)

    async def _causes(self, found: Sequence[Json], health: Json) -> dict[str, str | None]:
        """What these runs wait for, where that isn't known already."""
        tasks: dict[tuple[str, str], list[Json]] = {}
        for task in await self._airflow.task_instances((row["dag_id"], row["dag_run_id"]) for row in found):
            tasks.setdefault((task["dag_id"], task["dag_run_id"]), []).append(task)
        dags = {dag_id: await self._dag(dag_id) for dag_id in {row["dag_id"] for row in found}}
        waiting = [task for some in tasks.values() for task in some if task["state"] in ("scheduled", "queued")]
        pools = {name: await self._pool(name) for name in {str(task["pool"]) for task in waiting if task.get("pool")}}
        causes: dict[str, str | None] = {}
        for row in found:
            own = tasks.get((row["dag_id"], row["dag_run_id"]), [])
            cause = cause_of(row, dags[row["dag_id"]], own, pools, health)
            if cause != row["waits_for"]:
                causes[row["id"]] = cause
        return causes

    async def _dag(self, dag_id: str) -> Json | None:
        try:
            return await self._airflow.dag_details(dag_id)
        except AirflowRefused as refused:
            if refused.status == 404:
                return None
            raise

    async def _pool(self, name: str) -> Json | None:
        try:
            return await self._airflow.pool(name)
        except AirflowRefused:  # deleted, or not for the backend to see
            return None


def cause_of(
    row: Json, dag: Json | None, tasks: Sequence[Json], pools: Mapping[str, Json | None], health: Json
) -> str | None:
    """What keeps a run from going on, in a sentence; None if nothing of that is to be seen.

    `row` is the execution with the number of its DAG's `running` runs; the others are what Airflow's API says.
    """
    dag_id = row["dag_id"]
    if dag is None:
        return f"Airflow no longer has the DAG {dag_id!r}; its file may have been deleted."
    if health.get("scheduler", {}).get("status") != "healthy":
        return "No scheduler of Airflow is running; nothing starts until there is one."
    if dag.get("is_stale"):
        return f"No file defines the DAG {dag_id!r} any more; restore it, or mark the run as failed."
    if dag.get("has_import_errors"):
        return f"The file of the DAG {dag_id!r} fails to import; Airflow's import errors say why."
    if dag.get("is_paused"):
        return f"The DAG {dag_id!r} is paused; unpause it to let the run go on."
    most = dag.get("max_active_runs")
    if row["state"] == "queued":
        if most is not None and row["running"] >= most:
            return f"{row['running']} runs of {dag_id!r} are active, and it allows max_active_runs={most} at a time."
        return None
    return _tasks_wait_for(tasks, pools, health)


def _tasks_wait_for(tasks: Sequence[Json], pools: Mapping[str, Json | None], health: Json) -> str | None:
    deferred = [task["task_id"] for task in tasks if task["state"] == "deferred"]
    if deferred and health.get("triggerer", {}).get("status") != "healthy":
        return f"No triggerer of Airflow is running, in which {_named(deferred)} to go on."
    waiting = [task for task in tasks if task["state"] in ("scheduled", "queued")]
    for task in waiting:
        pool = pools.get(str(task.get("pool")))
        if pool is not None and pool["open_slots"] == 0:
            slots = f"whose {pool['slots']} slots are taken" if pool["slots"] else "which has no slots"
            return f"The task {task['task_id']!r} waits for the pool {pool['name']!r}, {slots}."
    if waiting:
        names = _named([task["task_id"] for task in waiting])
        limits = "Airflow's core.parallelism, the DAG's max_active_tasks, or Celery's workers"
        return f"{names[0].upper()}{names[1:]} for a free worker ({limits})."
    return None


def _named(tasks: Sequence[str]) -> str:
    """The subject of a sentence with its verb."""
    names = list(dict.fromkeys(tasks))
    return f"the task {names[0]!r} waits" if len(names) == 1 else f"{len(names)} tasks such as {names[0]!r} wait"
