"""Restores results of runs from Airflow's XComs, where the task could not record them itself.

The reconciler calls this after each pass. A run costs Airflow one call. A task that pushed nothing is asked once.
"""

import logging
from collections import OrderedDict

from backend.clients.airflow import AirflowClient, AirflowRefused
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.runs import missing_results
from backend.db.runs.results import TaskResult

log = logging.getLogger(__name__)

AFTER = 5.0
"""Seconds after a run's end. Its tasks have given up or written their records by then."""

WITHIN = 24 * 3600.0
"""Seconds after a run's end within which its result is restored at all: Airflow itself may have been away."""

MAPPED_WITHIN = 600.0
"""The same for the instances of mapped tasks, which are looked at one by one."""

RESULTS_PER_PASS = 10
_REMEMBERED = 10_000


class ResultRestorer:
    """Restores missing results."""

    def __init__(self, airflow: AirflowClient, database: Database) -> None:
        self._airflow = airflow
        self._database = database
        self._without: OrderedDict[tuple[str, str, int], None] = OrderedDict()
        """Task instances that have pushed no result."""
        self.restored = 0
        """Results restored by this process."""

    async def restore(self) -> int:
        """Restore what is missing; returns how many results were restored.

        Raises `AirflowError` and `SQLAlchemyError`; a retry helps.
        """
        limit = RESULTS_PER_PASS + len(self._without)
        found = await self._database.run(
            missing_results.find, after=AFTER, within=WITHIN, mapped_within=MAPPED_WITHIN, limit=limit
        )
        restored = 0
        for row in [row for row in found if _key(row) not in self._without][:RESULTS_PER_PASS]:
            try:
                result = await self._airflow.xcom(row["dag_id"], row["dag_run_id"], row["task_id"], row["map_index"])
            except AirflowRefused as refused:
                if refused.status != 404:
                    raise
                result = None
            if not isinstance(result, dict):
                self._without[_key(row)] = None
                if len(self._without) > _REMEMBERED:
                    self._without.popitem(last=False)
                continue
            await self._database.run(
                missing_results.restore, TaskResult(row["id"], result, row["task_id"], row["map_index"])
            )
            log.info("restored the result of run %s of %s", row["dag_run_id"], row["dag_id"])
            restored += 1
        self.restored += restored
        return restored


def _key(row: Row) -> tuple[str, str, int]:
    return row["id"], row["task_id"], row["map_index"]
