"""Records what Airflow's listener hooks report about runs and tasks, without ever delaying Airflow.

Airflow calls a listener inside the scheduler's loop and inside every task process, and waits for it to return. The
plugin (`airflow/plugins/visual_ai_plugin.py`) therefore only puts a `Notice` into a queue; a thread of the same process
writes it to the database. A task process ends soon after its last hook, so the plugin then calls `flush`, which waits
for the thread, for a limited time.

Nothing here may fail a task or the scheduler. A notice that can't be queued or written is counted and dropped, and the
reconciler makes up for it. After a database error, writing is paused for `_FAILURE_PAUSE` seconds, in which notices are
dropped at once, so that a database that is down does not keep `flush` waiting for one timeout per notice.

Task processes are forked from processes that may use a listener themselves. Threads, locks and connections do not
survive a fork, so a child starts with new ones (`_reset`).
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from backend.core.events import NewEvent
from backend.core.states import TaskState
from backend.core.workflow_error_handler import AgentFailure, classify
from backend.db.engine import make_engine, run_in, task_engine
from backend.db.runs import errors, events, executions, observations
from backend.db.runs.announcements import Announcer
from backend.db.runs.events import TryEvents
from backend.db.runs.executions import RunState
from backend.db.runs.traces import Place

log = logging.getLogger(__name__)

QUEUE_LIMIT = 5_000
"""Notices that wait to be written. Beyond that new ones are dropped."""

_FAILURE_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Notice:
    """What a hook reported: a run's state, some of its tasks' states, and the error if the first of them failed."""

    run: RunState
    tasks: tuple[TaskState, ...] = ()
    error: BaseException | None = None
    error_action: str = "fail"


class Notices:
    """The queue and the writing thread of one process. `redis_url` is where appended events are announced, if set."""

    def __init__(self, database_url: str, redis_url: str | None = None) -> None:
        self._url = database_url
        self._redis_url = redis_url
        self._queue: queue.Queue[Notice | threading.Event] = queue.Queue(QUEUE_LIMIT)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._engine: Engine | None = None
        self._announcer: Announcer | None = None
        # Not the engine of the tasks: no thread may use that one while the process forks.
        self._make_engine: Callable[[str], Engine] = partial(make_engine, application="visual_ai_listener", pool_size=1)
        self._broken_until = 0.0
        self.dropped = 0
        """Notices that were not written, and are left to the reconciler."""
        os.register_at_fork(after_in_child=self._reset)

    def put(self, notice: Notice) -> None:
        """Queue a notice to be written. Never blocks and never raises."""
        try:
            self._queue.put_nowait(notice)
        except queue.Full:
            self.dropped += 1
            return
        self._ensure_thread()

    def flush(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for what is queued so far to be processed. Returns whether it has been."""
        done = threading.Event()
        try:
            self._queue.put_nowait(done)
        except queue.Full:
            return False
        self._ensure_thread()
        return done.wait(timeout)

    def _reset(self) -> None:
        # In a forked child: the parent's connections, locks and thread can't be used.
        self._queue = queue.Queue(QUEUE_LIMIT)
        self._lock = threading.Lock()
        self._thread = None
        if self._engine is not None:
            self._engine.dispose(close=False)
            self._engine = None
        self._make_engine = task_engine
        self._announcer = None

    def _ensure_thread(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="visual-ai-notices", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            try:
                self._write(item)
            except Exception as error:
                self.dropped += 1
                log.warning("the state of run %s was not recorded: %s", item.run.dag_run_id, type(error).__name__)
                log.debug("the error", exc_info=error)

    def _write(self, notice: Notice) -> None:
        if time.monotonic() < self._broken_until:
            raise ConnectionError("the database was unreachable a moment ago")
        if self._engine is None:
            self._engine = self._make_engine(self._url)
        if self._announcer is None and self._redis_url:
            self._announcer = Announcer(self._redis_url)
        try:
            run_in(self._engine, self._announcer, record, notice)
        except SQLAlchemyError:
            self._broken_until = time.monotonic() + _FAILURE_PAUSE
            raise


def record(connection: Connection, notice: Notice) -> None:
    """Write a notice: the error first, so that it precedes the state it led to in the log."""
    if notice.error is not None and notice.tasks and not _recorded(notice.error):
        _record_error(connection, notice, notice.error)
    observations.observe(connection, notice.run, notice.tasks)


def _recorded(error: BaseException) -> bool:
    return isinstance(error, AgentFailure) and error.recorded


def _record_error(connection: Connection, notice: Notice, error: BaseException) -> None:
    task = notice.tasks[0]
    found = classify(error)
    execution_id = executions.ensure(connection, notice.run)
    place = Place(notice.run.dag_id, notice.run.dag_run_id, task.task_id, task.map_index, task.try_number)
    payload = errors.add(
        connection,
        execution_id,
        place,
        category=found.category,
        exception_type=found.exception_type,
        message=found.message,
        action=notice.error_action,
        attempt=task.try_number,
        context={"chain": list(found.chain)},
    )
    reported = TryEvents(execution_id, place, [NewEvent("error", payload)])
    events.append_from_tries(connection, [reported])
