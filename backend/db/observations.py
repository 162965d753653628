"""What is seen of runs and their tasks, merged with what is known: only what differs becomes an event."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from backend.core.events import NewEvent
from backend.core.states import (
    ACTIVE_RUN_STATES,
    TERMINAL_RUN_STATES,
    TERMINAL_TASK_STATES,
    Progress,
    TaskState,
    measure_progress,
    merge_task,
)
from backend.db import events, notification_causes, threads
from backend.db.executions import RunState, ensure, read, workflow_payload
from backend.db.rows import Row
from backend.db.tables import workflow_executions as executions
from backend.db.tables import workflow_tasks as tasks

_TOLD_BY_LISTENERS = {"running": "started_at", "success": "finished_at", "failed": "finished_at"}
"""States of tasks, and the time of each."""

_LISTENER_TAKES = timedelta(seconds=1)


def observe(
    connection: Connection,
    run: RunState,
    seen: Iterable[TaskState] = (),
    *,
    observed_at: datetime | None = None,
) -> str:
    """Record what was seen of a run and its task instances; gives the execution's id.

    Only what differs from what is known becomes an event, and nothing follows a run's `end` but another end or a new
    start: what its tasks still tell is only kept. Without `observed_at` it is a notification: it moves things
    forward and may come late or twice. With `observed_at`, the moment (by the database's clock) before a reading of
    Airflow began, it is authoritative for everything that was last written before that moment.
    """
    return _observe(connection, run, seen, observed_at)[0]


def observe_news(connection: Connection, run: RunState, seen: Iterable[TaskState], *, observed_at: datetime) -> bool:
    """The same; says whether it told what a listener would have told by then: that a run or a task had begun or come to
    its end, longer ago than a listener takes."""
    _, told = _observe(connection, run, seen, observed_at)
    moments = [run.finished_at for event in told if event.type == "end"]
    for event in told:
        if event.type == "task_update" and (key := _TOLD_BY_LISTENERS.get(event.payload["state"])):
            moments.append(event.payload[key])
    return any(moment is not None and moment < observed_at - _LISTENER_TAKES for moment in moments)


def _observe(
    connection: Connection, run: RunState, seen: Iterable[TaskState], observed_at: datetime | None
) -> tuple[str, list[NewEvent]]:
    execution_id = ensure(connection, run)
    before = read(connection, execution_id, lock=True)
    new_events: list[NewEvent] = []
    state = _next_state(before, run, observed_at)
    restarted = before["state"] in TERMINAL_RUN_STATES and state in ACTIVE_RUN_STATES
    # Whoever sees a run start again sees which of its tasks were cleared.
    _merge_tasks(connection, execution_id, run, seen, observed_at, new_events, certain=restarted)
    listed, done = _count_tasks(connection, execution_id)
    progress = measure_progress(
        listed,
        done,
        run_state=state,
        known_total=max(before["tasks_total"], run.tasks_total),
        known_percent=0 if restarted else before["progress"],
    )
    values = _run_values(before, run, state, progress, restarted)
    changed = {key: value for key, value in values.items() if before[key] != value}
    if changed:
        connection.execute(update(executions).where(executions.c.id == execution_id).values(changed))
        after = {**before, **changed}
        if {"state", "progress", "tasks_total", "tasks_done"} & changed.keys():
            new_events.append(NewEvent("workflow_update", workflow_payload(after)))
        if state in TERMINAL_RUN_STATES and before["state"] != state:
            new_events.append(NewEvent("end", {"state": state}))
        if state == "failed" and before["state"] != "failed":
            notification_causes.run_failed(connection, after)
    still_over = before["state"] in TERMINAL_RUN_STATES and before["state"] == state
    if still_over or not new_events:
        return execution_id, []
    events.append(connection, execution_id, new_events)
    return execution_id, new_events


def _merge_tasks(
    connection: Connection,
    execution_id: str,
    run: RunState,
    seen: Iterable[TaskState],
    observed_at: datetime | None,
    new_events: list[NewEvent],
    *,
    certain: bool,
) -> None:
    seen = list(seen)
    if not seen:
        return
    written = {
        (row.task_id, row.map_index): (
            TaskState(
                row.task_id,
                row.map_index,
                row.try_number,
                row.state,
                row.started_at,
                row.finished_at,
                row.duration,
            ),
            row.updated_at,
        )
        for row in connection.execute(
            select(tasks).where(
                tasks.c.execution_id == execution_id,
                tuple_(tasks.c.task_id, tasks.c.map_index).in_([task.key for task in seen]),
            )
        )
    }
    known = {key: state for key, (state, _) in written.items()}
    changed: list[TaskState] = []
    for task in seen:
        fresh = certain or (observed_at is not None and (task.key not in written or written[task.key][1] < observed_at))
        merged = merge_task(known.get(task.key), task, authoritative=fresh)
        if merged is None:
            continue
        first_sight_of_nothing = task.key not in known and merged.state is None
        known[task.key] = merged
        changed.append(merged)
        if merged.state == "success":
            thread = threads.thread_of(run.dag_id, run.dag_run_id, merged.task_id, merged.map_index)
            threads.complete(connection, thread, merged.try_number)
        if not first_sight_of_nothing:
            new_events.append(NewEvent("task_update", merged.payload()))
    if changed:
        statement = insert(tasks).values(
            [
                {
                    "execution_id": execution_id,
                    "task_id": task.task_id,
                    "map_index": task.map_index,
                    "try_number": task.try_number,
                    "state": task.state,
                    "started_at": task.started_at,
                    "finished_at": task.finished_at,
                    "duration": task.duration,
                    "updated_at": func.clock_timestamp(),
                }
                for task in changed
            ]
        )
        replaced = {
            column: statement.excluded[column]
            for column in ("try_number", "state", "started_at", "finished_at", "duration", "updated_at")
        }
        connection.execute(
            statement.on_conflict_do_update(index_elements=["execution_id", "task_id", "map_index"], set_=replaced)
        )


def _count_tasks(connection: Connection, execution_id: str) -> tuple[int, int]:
    counted = connection.execute(
        select(
            func.count(),
            func.count().filter(tasks.c.state.in_(sorted(TERMINAL_TASK_STATES))),
        ).where(tasks.c.execution_id == execution_id, func.coalesce(tasks.c.state, "") != "removed")
    ).one()
    return int(counted[0]), int(counted[1])


def _next_state(before: Row, run: RunState, observed_at: datetime | None) -> str:
    known, seen = str(before["state"]), run.state
    if seen is None:
        return "running" if known == "queued" else known
    if seen == "failed" and (known == "cancelled" or before["cancel_requested_at"] is not None):
        return "cancelled"  # Airflow knows a stopped run only as failed
    if observed_at is not None and before["updated_at"] < observed_at:
        return seen
    if seen == "queued":
        return known  # a late notification
    if known in TERMINAL_RUN_STATES and (observed_at is not None or _started_before_end(before, run)):
        # The reading began before the end was written; or it is the word of another scheduler, come late.
        return seen if seen in TERMINAL_RUN_STATES and observed_at is None else known
    return seen


def _started_before_end(before: Row, run: RunState) -> bool:
    """Whether what was seen is the attempt that is over: a cleared run starts after its end."""
    end = before["finished_at"] or before["started_at"]
    return run.started_at is not None and end is not None and run.started_at <= end


def _run_values(before: Row, run: RunState, state: str, progress: Progress, restarted: bool) -> dict[str, Any]:
    terminal = state in TERMINAL_RUN_STATES
    return {
        "state": state,
        "progress": progress.percent,
        "tasks_total": progress.total,
        "tasks_done": progress.done,
        "attempt": before["attempt"] + 1 if restarted else before["attempt"],
        "run_type": before["run_type"] or run.run_type,
        # A task may be seen before its run, and does not know whose that is.
        "user_id": before["user_id"] or run.user,
        "triggered_by": before["triggered_by"] or run.user,
        "started_at": run.started_at or (None if restarted else before["started_at"]),
        "finished_at": (run.finished_at or before["finished_at"] or datetime.now(UTC)) if terminal else None,
        "cancel_requested_at": None if restarted else before["cancel_requested_at"],
    }
