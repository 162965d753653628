"""A task's statements, carried out once and undone, in the process that forks tasks.

SQLAlchemy compiles each statement in each process anew, and an engine asks the server some questions first: 40 ms of
CPU for every task. Forked from a process that has rehearsed, tasks find both done.
"""

import logging
import uuid
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from backend.core.events import NewEvent
from backend.core.limit_changes import begun
from backend.core.limit_state import Counts, Reservation
from backend.core.settings import get_settings
from backend.core.states import TaskState
from backend.db import events, executions, model_limits, observations, takeover, threads, traces
from backend.db.engine import task_engine
from backend.db.executions import RunState
from backend.db.traces import Place

log = logging.getLogger(__name__)


def rehearse() -> None:
    """Prepare `task_engine`. Leaves neither rows nor connections; without the database it only says so in the log."""
    engine = task_engine(get_settings().database_url)
    try:
        with engine.connect() as connection, connection.begin() as transaction:
            _act(connection)
            transaction.rollback()
    except OperationalError as error:
        log.warning("tasks will begin 40 ms later: the database is out of reach (%s)", type(error.orig).__name__)
    finally:
        engine.dispose()


def _act(connection: Connection) -> None:
    """The life of a task with one agent, as the listener and the runner record it."""
    now = datetime.now(UTC)
    run = RunState(f"rehearsal-{uuid.uuid4()}", "rehearsal", None, conf={"text": "rehearsal"}, started_at=now)
    place = Place(run.dag_id, run.dag_run_id, "task", -1, 1, "agent", "text")
    task = TaskState("task", -1, 1, "running", now, None, None)
    observations.observe(connection, run, [task])
    execution_id = executions.ensure(connection, run)
    takeover.close_lost(connection, execution_id, place)
    thread = threads.thread_of(run.dag_id, run.dag_run_id, task.task_id, task.map_index)
    claim = threads.begin(connection, execution_id, thread, 1, [thread], "hash", instance=str(uuid.uuid4()))
    row = {"id": str(uuid.uuid4()), "state": "success", "started_at": now, "input_tokens": 0, "output_tokens": 0}
    traces.write(connection, execution_id, [traces.row(place, **row)])
    executions.add_usage(connection, execution_id, input_tokens=1, output_tokens=1, cost_usd=Decimal(0))
    threads.holds(connection, claim)
    events.append_from_try(
        connection,
        execution_id,
        [NewEvent("agent_update", {})],
        task_id=task.task_id,
        map_index=task.map_index,
        try_number=task.try_number,
    )
    model = f"rehearsal:{uuid.uuid4()}"
    model_limits.swap(connection, model, None, begun(now.timestamp()), Counts())
    model_limits.read(connection, model)
    model_limits.reserve(connection, model, Reservation(1, 60.0, paced=True), Counts())
    executions.cancelled_among(connection, [execution_id])
    executions.set_result(connection, execution_id, {})
    observations.observe(connection, run, [TaskState("task", -1, 1, "success", now, now, 0.1)])
