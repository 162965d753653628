"""Executes a task's statements once and rolls them back, in the process that forks tasks.

SQLAlchemy compiles statements once per process, and a new engine first queries the server about itself: 40 ms of CPU
time for every task. A task that is forked from a process that has rehearsed inherits both.
"""

import logging
import uuid
from datetime import UTC, datetime

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from backend.core.events import NewEvent
from backend.core.limits import SPEND
from backend.core.ratelimit.state import begin
from backend.core.settings import get_settings
from backend.core.states import TaskState
from backend.db import rate_limits
from backend.db.engine import task_engine
from backend.db.limits import book, usage
from backend.db.runs import events, executions, observations, results, takeover, threads, traces
from backend.db.runs.events import TryEvents
from backend.db.runs.executions import RunState
from backend.db.runs.results import TaskResult
from backend.db.runs.traces import Place

log = logging.getLogger(__name__)


def rehearse() -> None:
    """Prepare `task_engine`. Leaves neither rows nor connections. Without the database, it only logs a warning."""
    engine = task_engine(get_settings().database_url)
    try:
        with engine.connect() as connection, connection.begin() as transaction:
            _act(connection)
            transaction.rollback()
    except OperationalError as error:
        log.warning("tasks will start 40 ms later, because the database is unavailable (%s)", type(error.orig).__name__)
    finally:
        engine.dispose()


def _act(connection: Connection) -> None:
    """Record the life of a task with one agent, as the listener and the runner do."""
    now = datetime.now(UTC)
    run = RunState(f"rehearsal-{uuid.uuid4()}", "rehearsal", None, conf={"text": "rehearsal"}, started_at=now)
    place = Place(run.dag_id, run.dag_run_id, "task", -1, 1, "agent", "text")
    task = TaskState("task", -1, 1, "running", now, None, None)
    observations.observe(connection, run, [task])
    execution_id = executions.ensure_all(connection, [run])[run.dag_id, run.dag_run_id]
    executions.lock(connection, [execution_id])
    takeover.close_lost(connection, [(execution_id, place)])
    thread = threads.thread_of(run.dag_id, run.dag_run_id, task.task_id, task.map_index)
    wanted = threads.ClaimRequest(execution_id, thread, 1, [thread], "hash", str(uuid.uuid4()))
    threads.held(connection, [threads.begin_one(connection, wanted)])
    row = {"id": str(uuid.uuid4()), "state": "success", "started_at": now, "input_tokens": 0, "output_tokens": 0}
    traces.write(connection, [traces.row(place, execution_id=execution_id, **row)])
    used = [{"id": execution_id, "input_tokens": 1, "output_tokens": 1, "cost_usd": 0}]
    executions.add_usage(connection, used)
    usage.add(connection, used, [])
    book.any_of(connection, SPEND)
    reported = TryEvents(execution_id, place, [NewEvent("agent_update", {})])
    events.append_from_tries(connection, [reported])
    model = f"rehearsal:{uuid.uuid4()}"
    state = begin(now.timestamp(), cap=None)
    for version in (None, 1):
        rate_limits.swap(connection, model, version, state)
    rate_limits.read(connection, model)
    executions.cancelled_among(connection, [execution_id])
    results.record(connection, [TaskResult(execution_id, {}, task.task_id)])
    observations.observe(connection, run, [TaskState("task", -1, 1, "success", now, now, 0.1)])
