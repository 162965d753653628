"""Has Airflow parse the file of the schedules' DAGs again, so that a change takes effect within seconds.

Airflow parses each file every now and then anyway (`min_file_process_interval`), so nothing depends on it.
"""

import asyncio
import logging

from backend.clients.airflow import AirflowClient, AirflowError
from backend.core.scheduling.dag_ids import ALL_SCHEDULES
from backend.services.background import retrieve

log = logging.getLogger(__name__)


class Reparse:
    """Asks Airflow in the background, once for all changes that were made while it was being asked."""

    def __init__(self, airflow: AirflowClient) -> None:
        self._airflow = airflow
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._file_token: str | None = None

    def soon(self) -> None:
        """Ask Airflow to parse the file."""
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ask())
            self._task.add_done_callback(retrieve)

    async def close(self) -> None:
        """Wait for what was begun."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=5)

    async def _ask(self) -> None:
        while self._again:
            self._again = False
            try:
                if self._file_token is None:
                    details = await self._airflow.dag_details(ALL_SCHEDULES)
                    self._file_token = str(details["file_token"])
                await self._airflow.parse_file(self._file_token)
            except (AirflowError, LookupError) as error:
                self._file_token = None
                log.info("a schedule takes effect at the next parse of its file: %s", error)
