"""A LocalExecutor whose tasks outlive the scheduler.

A worker of LocalExecutor runs one task at a time in a process of its own, and the task reports to Airflow's API server,
so it doesn't need the scheduler while it runs. Airflow's LocalExecutor nevertheless ties the two together:

* A scheduler that was killed and restarted knows nothing of the tasks still running, and starts them all again.
* A scheduler that exits because its database went away first waits for its tasks, however long they take, and schedules
  nothing meanwhile.

`AdoptingLocalExecutor` finds the workers of an earlier scheduler by their process titles, among the processes that
carry this stack's marker (`backend.deployment.processes`), and adopts their tasks. Where processes have no marker, as
in containers, it behaves like a plain LocalExecutor.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
from airflow.executors.local_executor import LocalExecutor
from airflow.utils.state import TaskInstanceState

from backend.deployment.processes import MARKER_VARIABLE, marked

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

__all__ = ["AdoptingLocalExecutor"]

log = logging.getLogger(__name__)

TITLE = "airflow worker -- LocalExecutor"
"""How LocalExecutor titles its workers; the id of the task instance follows, or `<idle>`."""
IDLE = "<idle>"
CHECK_SECONDS = 5.0


class AdoptingLocalExecutor(LocalExecutor):
    """A LocalExecutor that adopts the running tasks of an earlier scheduler."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # Airflow's
        self._orphans: list[psutil.Process] = []
        self._checked = 0.0

    def start(self) -> None:
        """Find the workers of an earlier scheduler, then start this executor's own."""
        self._orphans = list(_workers())
        self._end_idle_orphans()
        if self._orphans:
            log.info("%s tasks started by an earlier scheduler are still running", len(self._orphans))
        super().start()

    def sync(self) -> None:
        """End orphaned workers whose task has finished. Airflow calls this in every loop of the scheduler."""
        super().sync()
        if self._orphans and time.monotonic() - self._checked > CHECK_SECONDS:
            self._end_idle_orphans()

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Adopt the tasks that an orphaned worker is running; return the others, which Airflow then restarts."""
        titles = [_title(worker) for worker in self._orphans]

        def running(ti: TaskInstance) -> bool:
            return ti.state == TaskInstanceState.RUNNING and any(str(ti.id) in title for title in titles)

        return [ti for ti in tis if not running(ti)]

    def end(self) -> None:
        """Wait for the running tasks, as Airflow does, unless the scheduler is exiting with an error.

        After an error the process exits immediately, without any clean-up, because that would also wait for the tasks.
        The next scheduler adopts them.
        """
        if isinstance(sys.exc_info()[1], Exception):
            log.error(
                "The scheduler is exiting with an error; its tasks keep running and the next scheduler adopts them"
            )
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
        super().end()

    def _end_idle_orphans(self) -> None:
        """Kill orphaned workers without a task: each would wait forever on a pipe that has no writer any more, holding
        as much memory as a scheduler."""
        self._checked = time.monotonic()
        busy = []
        for worker in self._orphans:
            title = _title(worker)
            if IDLE in title:
                with suppress(psutil.Error):
                    worker.kill()
            elif title:
                busy.append(worker)
        self._orphans = busy


def _workers() -> Iterator[psutil.Process]:
    identity = os.environ.get(MARKER_VARIABLE)
    if identity is not None:
        yield from (process for process in marked(identity) if _title(process).startswith(TITLE))


def _title(process: psutil.Process) -> str:
    """The process's title; empty once it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
