"""A LocalExecutor whose tasks outlive the scheduler.

A worker of LocalExecutor runs one task at a time in a process of its own, and the task reports to Airflow's API server,
so it doesn't need the scheduler while it runs. Airflow's LocalExecutor nevertheless ties the two together:

* A scheduler that was killed and restarted knows nothing of the tasks still running, and starts them all again.
* A scheduler that is stopped, or exits because its database went away, first waits for its tasks, however long they
  take, and schedules nothing meanwhile.
* Nobody notices that a worker was killed before its task has missed all heartbeats of several minutes.
* A task whose worker was killed before it had begun stays queued for ten minutes, and keeps its slot for good; so does
  the slot of one whose worker was killed just after it had ended.
* A worker that was killed while it waited for a task takes the queue's lock with it, and no other worker gets a task.
* A task that was parked for a person's answer, and is woken before the scheduler has heard of the exit of the process
  that parked it, is taken for one that was killed, and fails.

`AdoptingLocalExecutor` finds the workers of an earlier scheduler by their process titles, among the processes that
carry this stack's marker (`backend.deployment.processes`), and adopts their tasks. It reports tasks whose worker is
gone, and its workers share locks that end with their holder. Where processes have no marker, as in containers, it
behaves like a plain LocalExecutor in all but these last two.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psutil
from airflow.executors.local_executor import LocalExecutor
from airflow.executors.workloads import ExecuteTask
from airflow.jobs.job import Job, JobState
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select, update

from backend.deployment.processes import MARKER_VARIABLE, marked

if TYPE_CHECKING:
    from airflow.models.taskinstancekey import TaskInstanceKey
    from sqlalchemy.orm import Session

__all__ = ["AdoptingLocalExecutor"]

log = logging.getLogger(__name__)

TITLE = "airflow worker -- LocalExecutor"
"""How LocalExecutor titles its workers; the id of the task instance follows, or `<idle>`."""
IDLE = "<idle>"
CHECK_SECONDS = 5.0
SILENT_SECONDS = 10
"""A task without a worker whose last heartbeat, one of about one per second, is older than this has been lost."""


class AdoptingLocalExecutor(LocalExecutor):
    """A LocalExecutor that adopts the running tasks of an earlier scheduler and notices when a worker is lost."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # Airflow's
        self._orphans: list[psutil.Process] = []
        self._tasks: dict[str, TaskInstanceKey] = {}
        """The tasks that were queued or adopted and may not have ended yet, by the ids that workers' titles show."""
        self._workloads: dict[str, ExecuteTask] = {}
        """Of these, what this executor gives to workers."""
        self._doubtful: set[str] = set()
        """Tasks that the last check found with no worker, although none has reported their end."""
        self._given: Counter[Any] = Counter()
        """How often each workload was given to a worker that has not reported its end."""
        self._checked = 0.0
        self._locked_by_process = False

    def start(self) -> None:
        """Find the workers of an earlier scheduler, then start this executor's own."""
        self._orphans = list(_workers())
        self._end_idle_orphans()
        if self._orphans:
            log.info("%s tasks started by an earlier scheduler are still running", len(self._orphans))
        self._locked_by_process = False
        super().start()

    def _process_workloads(self, workload_list: Any) -> None:
        self._given.update(workload.key for workload in workload_list)
        super()._process_workloads(workload_list)  # type: ignore[no-untyped-call]  # Airflow's

    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        """Report a workload's state to the scheduler, but not the end of one that a worker has got again meanwhile."""
        self._given[key] -= 1
        if self._given[key] > 0:
            return
        del self._given[key]
        super().change_state(key, state, info, remove_running)

    def _spawn_workers_with_gc_freeze(self, spawn_number: int) -> None:
        """Start workers, which share locks that end with their holder."""
        # What LocalExecutor shares among its workers is made just before it first starts them.
        if not self._locked_by_process:
            self._locked_by_process = True
            tasks: Any = self.activity_queue
            results: Any = self.result_queue
            tasks._rlock = _ProcessLock()
            results._wlock = _ProcessLock()
            lock: Any = _ProcessLock()
            self._unread_messages = multiprocessing.Value(ctypes.c_uint, lock=lock)
        super()._spawn_workers_with_gc_freeze(spawn_number)  # type: ignore[no-untyped-call]  # Airflow's

    def queue_workload(self, workload: Any, session: Session) -> None:
        """Queue a task, and remember its key by the id that its worker's title will show."""
        if isinstance(workload, ExecuteTask):
            self._tasks[str(workload.ti.id)] = workload.key
            self._workloads[str(workload.ti.id)] = workload
        super().queue_workload(workload, session)

    def sync(self) -> None:
        """Airflow calls this in every loop of the scheduler."""
        super().sync()
        if time.monotonic() - self._checked > CHECK_SECONDS:
            self._checked = time.monotonic()
            self._end_idle_orphans()
            self._report_lost_tasks()

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Adopt the tasks that an orphaned worker is running; return the others, which Airflow then restarts.

        A restart counts as a try. A task that was lost with its scheduler gets another one, since it isn't to blame.
        """
        titles = [_title(worker) for worker in self._orphans]
        lost = []
        for ti in tis:
            running = ti.state == TaskInstanceState.RUNNING
            if running and _shown(str(ti.id), titles):
                self._tasks[str(ti.id)] = ti.key
                continue
            if running:
                ti.max_tries += 1
            lost.append(ti)
        return lost

    def end(self) -> None:
        """Leave the running tasks to the next scheduler, which adopts them, and exit at once.

        The process ends without any clean-up, because that would wait for the tasks. Where processes have no marker,
        running tasks are waited for, as Airflow does, unless the scheduler is exiting with an error.
        """
        failed = isinstance(sys.exc_info()[1], Exception)
        if not failed and MARKER_VARIABLE not in os.environ:
            super().end()
            return
        log.info("The scheduler is exiting; its tasks keep running and the next scheduler adopts them")
        if not failed:
            # The next scheduler need not wait until this one's heartbeat is too old.
            with suppress(Exception), create_session() as session:
                ended = {"state": JobState.SUCCESS, "end_date": datetime.now(UTC)}
                session.execute(update(Job).where(Job.id == self.job_id).values(ended))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if failed else 0)

    def _end_idle_orphans(self) -> None:
        """Kill orphaned workers without a task: each would wait forever on a pipe that has no writer any more, holding
        as much memory as a scheduler."""
        busy = []
        for worker in self._orphans:
            title = _title(worker)
            if IDLE in title:
                with suppress(psutil.Error):
                    worker.kill()
            elif title:
                busy.append(worker)
        self._orphans = busy

    def _report_lost_tasks(self) -> None:
        """Do for tasks whose worker was killed, by the system for want of memory for example, what it can't do.

        One that was running has failed. One that had not begun is given to another worker, which is no try of the task.
        Of one that had ended, or was parked, the end is reported, or else its slot would be lost. The last two take two
        checks, because a worker that has taken a task, or has just ended one, may not show it yet.
        """
        titles = [_title(worker) for worker in self._orphans]
        for pid in self.workers:
            with suppress(psutil.Error):
                titles.append(_title(psutil.Process(pid)))
        # Most of these have just ended, or wait for a worker.
        unseen = [task for task in self._tasks if not _shown(task, titles)]
        known = _recorded(unseen) if unseen else {}
        silent = datetime.now(UTC) - timedelta(seconds=SILENT_SECONDS)
        doubtful: set[str] = set()
        for task in unseen:
            key = self._tasks[task]
            state, beat = known.get(task, (None, None))
            queued = state == TaskInstanceState.QUEUED
            if state == TaskInstanceState.RUNNING:
                if beat is None or beat <= silent:
                    log.error("The worker of %s was killed", key)
                    self._settle(task, failed=True)
            elif self._given[key] <= 0:
                if not queued:
                    self._forget(task)
            elif queued and (key in self.queued_tasks or not self.activity_queue.empty()):
                continue  # it waits for a worker
            elif task not in self._doubtful:
                doubtful.add(task)
            elif queued:
                log.error("The worker of %s was killed before it began; another one gets it", key)
                self._give_again(task)
            else:
                self._settle(task, failed=False)
        self._doubtful = doubtful

    def _give_again(self, task: str) -> None:
        """Put a task into the queue once more. If its first worker is only slow, Airflow lets one of the two begin."""
        self._given[self._tasks[task]] += 1
        self.activity_queue.put(self._workloads[task])
        with self._unread_messages:
            self._unread_messages.value += 1

    def _settle(self, task: str, *, failed: bool) -> None:
        """Report the end of a task for all workers that have had it."""
        key = self._forget(task)
        self._given[key] = 1
        if failed:
            self.fail(key, info="its worker process was killed")
        else:
            self.success(key)

    def _forget(self, task: str) -> TaskInstanceKey:
        self._workloads.pop(task, None)
        return self._tasks.pop(task)


def _recorded(tasks: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """The states and last heartbeats of tasks, by their ids."""
    columns = (TaskInstance.id, TaskInstance.state, TaskInstance.last_heartbeat_at)
    with create_session() as session:
        found = session.execute(select(*columns).where(TaskInstance.id.in_(tasks))).all()
    return {str(task): (state, beat) for task, state, beat in found}


class _ProcessLock:
    """A lock among forked processes that the system releases when its holder ends, however that comes about.

    A lock of `multiprocessing` stays locked for good if its holder is killed. This one doesn't exclude the threads of
    one process from each other.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # open for as long as the lock exists

    def acquire(self) -> bool:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


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


def _shown(task: str, titles: Sequence[str]) -> bool:
    return any(task in title for title in titles)
