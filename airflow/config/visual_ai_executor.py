"""LocalExecutor whose tasks outlive the scheduler.

Airflow's own takes over nothing: a scheduler that is started again after it was killed restarts all running tasks, and
one that ends for want of a database waits for them first, however long they take, while nothing is scheduled.
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

from backend.deployment.layout import MARKER_VARIABLE
from backend.deployment.processes import marked

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

__all__ = ["LastingLocalExecutor"]

log = logging.getLogger(__name__)

TITLE = "airflow worker -- LocalExecutor"
"""How the titles of LocalExecutor's workers begin; then comes the id of the task instance, or that they are idle."""
IDLE = "<idle>"
CHECK_SECONDS = 5.0


class LastingLocalExecutor(LocalExecutor):
    """A worker's task reports to the API server by itself: it needs no scheduler until it is done.

    Works where processes have titles and the marker of a stack; elsewhere it is a plain LocalExecutor.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # Airflow's
        self._left: list[psutil.Process] = []
        self._checked = 0.0

    def start(self) -> None:
        """Find the workers that another scheduler left, and start one's own."""
        self._left = list(_workers())
        self._end_idle()
        if self._left:
            log.info("%s tasks of a scheduler that is gone are still running", len(self._left))
        super().start()

    def sync(self) -> None:
        """Airflow calls it all the time."""
        super().sync()
        if self._left and time.monotonic() - self._checked > CHECK_SECONDS:
            self._end_idle()

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Take over the tasks that run; gives the others, which Airflow then starts again."""
        titles = [_title(worker) for worker in self._left]

        def runs(ti: TaskInstance) -> bool:
            return ti.state == TaskInstanceState.RUNNING and any(str(ti.id) in title for title in titles)

        return [ti for ti in tis if not runs(ti)]

    def end(self) -> None:
        """Wait for the tasks, as Airflow does; but not when the scheduler ends with an error.

        Then the process ends at once, without closing anything, as that waits for the tasks, too: the next scheduler
        takes them over.
        """
        if isinstance(sys.exc_info()[1], Exception):
            log.error("the scheduler ends, its tasks go on: the next one takes them over")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
        super().end()

    def _end_idle(self) -> None:
        """End the left workers that are idle: each waits on a pipe that no one writes to any more, for ever, with the
        memory of a scheduler."""
        self._checked = time.monotonic()
        busy = []
        for worker in self._left:
            title = _title(worker)
            if IDLE in title:
                with suppress(psutil.Error):
                    worker.kill()
            elif title:
                busy.append(worker)
        self._left = busy


def _workers() -> Iterator[psutil.Process]:
    identity = os.environ.get(MARKER_VARIABLE)
    if identity is not None:
        yield from (process for process in marked(identity) if _title(process).startswith(TITLE))


def _title(process: psutil.Process) -> str:
    """Empty for a process that has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
