"""Merges observations of runs and tasks with what is recorded. Only differences become events.

There are two kinds of observations. A notification (of a listener, or of an agent in the triggerer) may be late or come
twice, so it only moves a state forward. A reading of Airflow's lists by the reconciler is authoritative for everything
that was written before the reading began, and for nothing newer.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, cast, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from backend.core.events import NewEvent
from backend.core.jsonable import dumps
from backend.core.states import (
    ACTIVE_RUN_STATES,
    ACTIVE_TASK_STATES,
    TERMINAL_RUN_STATES,
    Progress,
    TaskCounts,
    TaskState,
    measure_progress,
    merge_task,
)
from backend.db import notification_causes
from backend.db.conversations import turns
from backend.db.rows import Row, all_rows
from backend.db.runs import events, reasons, results, threads
from backend.db.runs.executions import SHOWN, RunState, ensure
from backend.db.runs.run_payload import workflow_payload
from backend.db.tables import workflow_executions as executions
from backend.db.tables import workflow_tasks as tasks

_REPORTED_BY_LISTENERS = {"running": "started_at", "success": "finished_at", "failed": "finished_at"}
"""Task states, and the column of each state's time."""

_LISTENER_TAKES = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class RunObservation:
    """What was observed of a run and of its task instances."""

    run: RunState
    tasks: Sequence[TaskState] = ()


@dataclass(slots=True)
class ObservedChanges:
    """What an observation has changed, as events: one or None for each task instance, and those of the run."""

    task_events: list[NewEvent | None]
    run_events: list[NewEvent]

    @property
    def events(self) -> list[NewEvent]:
        """All events, in order."""
        return [*filter(None, self.task_events), *self.run_events]


def observe(
    connection: Connection,
    run: RunState,
    observed: Iterable[TaskState] = (),
    *,
    observed_at: datetime | None = None,
) -> str:
    """Record what was observed of a run and its task instances, and append the changes; returns the execution's id.

    Nothing follows a run's `end` but another end or a new start: later states of its tasks are stored without an event.
    Without `observed_at`, the observation is a notification. With it, it is a reading of Airflow; `observed_at` is the
    moment, by the database's clock, before the reading began.
    """
    return _observe(connection, run, observed, observed_at)[0]


def observe_news(
    connection: Connection, run: RunState, observed: Iterable[TaskState], *, observed_at: datetime
) -> bool:
    """The same for a reading; returns whether it found what a listener should have reported by then: that a run or a
    task started or ended, longer ago than a listener takes."""
    _, appended = _observe(connection, run, observed, observed_at)
    moments = [run.finished_at for event in appended if event.type == "end"]
    for event in appended:
        if event.type == "task_update" and (key := _REPORTED_BY_LISTENERS.get(event.payload["state"])):
            moments.append(event.payload[key])
    return any(moment is not None and moment < observed_at - _LISTENER_TAKES for moment in moments)


def _observe(
    connection: Connection, run: RunState, observed: Iterable[TaskState], observed_at: datetime | None
) -> tuple[str, list[NewEvent]]:
    execution_id = ensure(connection, run)
    changes = merge(connection, {execution_id: RunObservation(run, [*observed])}, observed_at=observed_at)
    appended = changes[execution_id].events
    if appended:
        events.append(connection, execution_id, appended)
    return execution_id, appended


def merge(
    connection: Connection, observed: Mapping[str, RunObservation], *, observed_at: datetime | None = None
) -> dict[str, ObservedChanges]:
    """Record observations of runs, by the ids of their executions, as `observe` does; returns the changes, which the
    caller appends. The executions stay locked until the transaction ends."""
    if not observed:
        return {}
    query = select(*SHOWN).where(executions.c.id == func.any(cast(list(observed), ARRAY(UUID(as_uuid=False)))))
    locked = all_rows(connection.execute(query.order_by(executions.c.id).with_for_update(key_share=True)))
    known = {row["id"]: row for row in locked}
    states = {key: _next_state(known[key], one.run, observed_at) for key, one in observed.items()}
    # An observer that sees a run start again also sees which of its tasks were cleared.
    finished = {key for key, row in known.items() if row["state"] in TERMINAL_RUN_STATES}
    restarted = {key for key in finished if states[key] in ACTIVE_RUN_STATES}
    task_events = _merge_tasks(connection, observed, observed_at, restarted)
    counts = _count_tasks(connection, [*observed])
    failed = [key for key, state in states.items() if state == "failed" and known[key]["state"] != "failed"]
    deciding = reasons.deciding_errors(connection, failed)
    changes: dict[str, dict[str, Any]] = {}
    for key, one in observed.items():
        before, state = known[key], states[key]
        counted = counts.get(key, TaskCounts())
        state = states[key] = counted.run_state(state)
        progress = measure_progress(
            counted,
            run_state=state if before["cancel_requested_at"] is None else "cancelled",
            # A run's own notice lists all of its task instances; without one, more may exist than were observed.
            known_total=0 if one.run.tasks_total else before["tasks_total"],
            known_percent=0 if key in restarted else before["progress"],
        )
        values = _run_values(before, one.run, state, progress, key in restarted)
        values["reason"] = reasons.words(deciding[key]) if key in deciding else _kept_reason(before, state)
        if any(before[name] != value for name, value in values.items()):
            changes[key] = values
    if changes:
        connection.execute(_CHANGE, {"rows": dumps([{"id": key, **values} for key, values in changes.items()])})
    ended = {key for key, state in states.items() if state in TERMINAL_RUN_STATES and known[key]["state"] != state}
    turns.end_with_run(connection, {key: (states[key], changes[key]["reason"]) for key in ended})
    merged = {}
    for key in observed:
        before = known[key]
        run_events = _run_events(connection, before, changes.get(key, {}))
        still_finished = key in finished and before["state"] == states[key]
        merged[key] = ObservedChanges([], []) if still_finished else ObservedChanges(task_events[key], run_events)
    return merged


_CHANGE = text(
    """
    UPDATE visual_ai.workflow_executions e
    SET state = new.state, progress = new.progress, tasks_total = new.tasks_total, tasks_done = new.tasks_done,
        attempt = new.attempt, run_type = new.run_type, user_id = new.user_id, triggered_by = new.triggered_by,
        started_at = new.started_at, finished_at = new.finished_at, cancel_requested_at = new.cancel_requested_at,
        reason = new.reason
    FROM jsonb_populate_recordset(CAST(NULL AS visual_ai.workflow_executions), CAST(:rows AS jsonb)) new
    WHERE e.id = new.id
    """
)


def _run_events(connection: Connection, before: Row, values: Mapping[str, Any]) -> list[NewEvent]:
    changed = {name for name, value in values.items() if before[name] != value}
    after = {**before, **values}
    new: list[NewEvent] = []
    if {"state", "progress", "tasks_total", "tasks_done"} & changed:
        result = results.shown(connection, after) if after["state"] in TERMINAL_RUN_STATES else None
        new.append(NewEvent("workflow_update", workflow_payload(after, result)))
    if "state" in changed and after["state"] in TERMINAL_RUN_STATES:
        new.append(NewEvent("end", {"state": after["state"]}))
    if "state" in changed and after["state"] == "failed":
        notification_causes.run_failed(connection, after)
    return new


_Key = tuple[str, str, int]
"""The execution's id, the task's id and the map index."""

_READ_TASKS = text(
    """
    SELECT t.* FROM visual_ai.workflow_tasks t
    JOIN unnest(CAST(:executions AS uuid[]), CAST(:tasks AS text[]), CAST(:maps AS integer[]))
        AS observed (execution_id, task_id, map_index) USING (execution_id, task_id, map_index)
    """
).columns(*tasks.c)
_WRITE_TASKS = text(
    """
    INSERT INTO visual_ai.workflow_tasks (
        execution_id, task_id, map_index, try_number, state, started_at, finished_at, duration, updated_at)
    SELECT execution_id, task_id, map_index, try_number, state, started_at, finished_at, duration, clock_timestamp()
    FROM jsonb_populate_recordset(CAST(NULL AS visual_ai.workflow_tasks), CAST(:rows AS jsonb))
    ON CONFLICT (execution_id, task_id, map_index) DO UPDATE SET
        try_number = excluded.try_number, state = excluded.state, started_at = excluded.started_at,
        finished_at = excluded.finished_at, duration = excluded.duration, updated_at = excluded.updated_at
    """
)


def _merge_tasks(
    connection: Connection,
    observed: Mapping[str, RunObservation],
    observed_at: datetime | None,
    certain: Collection[str],
) -> dict[str, list[NewEvent | None]]:
    written = _read_tasks(connection, observed)
    known = {key: state for key, (state, _) in written.items()}
    changed: dict[_Key, TaskState] = {}
    completed: dict[tuple[str, int], None] = {}
    task_events: dict[str, list[NewEvent | None]] = {}
    for execution_id, one in observed.items():
        new = task_events[execution_id] = []
        for task in one.tasks:
            key = (execution_id, *task.key)
            fresh = execution_id in certain or (
                observed_at is not None and (key not in written or written[key][1] < observed_at)
            )
            merged = merge_task(known.get(key), task, authoritative=fresh)
            if merged is None:
                new.append(None)
                continue
            first_sight_of_nothing = key not in known and merged.state is None
            known[key] = changed[key] = merged
            if merged.state == "success":
                thread = threads.thread_of(one.run.dag_id, one.run.dag_run_id, merged.task_id, merged.map_index)
                completed[thread, merged.try_number] = None
            new.append(None if first_sight_of_nothing else NewEvent("task_update", merged.payload()))
    threads.complete(connection, [*completed])
    if changed:
        rows = [{"execution_id": key[0], **asdict(task)} for key, task in changed.items()]
        connection.execute(_WRITE_TASKS, {"rows": dumps(rows)})
    return task_events


def _read_tasks(
    connection: Connection, observed: Mapping[str, RunObservation]
) -> dict[_Key, tuple[TaskState, datetime]]:
    """The recorded states of the observed task instances, and when each was written."""
    keys = {(execution_id, *task.key) for execution_id, one in observed.items() for task in one.tasks}
    if not keys:
        return {}
    ids, names, maps = (list(column) for column in zip(*keys, strict=True))
    return {
        (row.execution_id, row.task_id, row.map_index): (
            TaskState(
                row.task_id, row.map_index, row.try_number, row.state, row.started_at, row.finished_at, row.duration
            ),
            row.updated_at,
        )
        for row in connection.execute(_READ_TASKS, {"executions": ids, "tasks": names, "maps": maps})
    }


_COUNT_TASKS = text(
    """
    SELECT t.execution_id::text, count(*),
        count(*) FILTER (WHERE t.state = 'success'),
        count(*) FILTER (WHERE t.state = 'skipped'),
        count(*) FILTER (WHERE t.state = ANY(:active)),
        count(*) FILTER (WHERE t.state = 'awaiting_input')
    FROM visual_ai.workflow_tasks t
    WHERE t.execution_id = ANY(CAST(:executions AS uuid[])) AND t.state IS DISTINCT FROM 'removed'
        -- Airflow's placeholder of a mapped task, which its instances have replaced.
        AND NOT (t.map_index = -1 AND EXISTS (
            SELECT FROM visual_ai.workflow_tasks m
            WHERE m.execution_id = t.execution_id AND m.task_id = t.task_id AND m.map_index >= 0))
    GROUP BY t.execution_id
    """
)


def _count_tasks(connection: Connection, execution_ids: Sequence[str]) -> dict[str, TaskCounts]:
    values = {"executions": list(execution_ids), "active": sorted(ACTIVE_TASK_STATES)}
    return {row[0]: TaskCounts(*row[1:]) for row in connection.execute(_COUNT_TASKS, values)}


def _next_state(before: Row, run: RunState, observed_at: datetime | None) -> str:
    """The run's new state, before it is known whether it waits for a person."""
    known, observed = str(before["state"]), run.state
    if observed is None:
        return "running" if known == "queued" else known
    if observed == "failed" and (known == "cancelled" or before["cancel_requested_at"] is not None):
        observed = "cancelled"  # Airflow reports a cancelled run as failed
    finished = known in TERMINAL_RUN_STATES
    if observed == "cancelled":
        return known if finished else observed  # a cancellation that came too late changes nothing
    if finished and observed in ACTIVE_RUN_STATES and _started_before_end(before, run):
        # The start that has ended. The listener reports the end before the scheduler's transaction commits it, so
        # Airflow's API still calls the run `running` for a while: even a reading that began later proves nothing.
        return known
    if observed_at is not None and before["updated_at"] < observed_at:
        return observed
    if observed == "queued":
        return known  # a late notification
    if finished and observed_at is not None:
        return known  # the reading began before the end was written
    return observed


def _started_before_end(before: Row, run: RunState) -> bool:
    """Whether the observation is of the finished run, not of its next start after it was cleared."""
    end = before["finished_at"] or before["started_at"]
    return run.started_at is not None and end is not None and run.started_at <= end


def _kept_reason(before: Row, state: str) -> str | None:
    """The reason of a run that no recorded error ended: none yet, or that of its end or cancellation."""
    if state == "failed":
        return before["reason"] if before["state"] == "failed" else None
    cancelled = state == "cancelled" or (state in ACTIVE_RUN_STATES and before["cancel_requested_at"] is not None)
    return before["reason"] if cancelled else None


def _run_values(before: Row, run: RunState, state: str, progress: Progress, restarted: bool) -> dict[str, Any]:
    terminal = state in TERMINAL_RUN_STATES
    return {
        "state": state,
        "progress": progress.percent,
        "tasks_total": progress.total,
        "tasks_done": progress.done,
        "attempt": before["attempt"] + 1 if restarted else before["attempt"],
        "run_type": before["run_type"] or run.run_type,
        # A task may be observed before its run, without the run's owner.
        "user_id": before["user_id"] or run.user,
        "triggered_by": before["triggered_by"] or run.user,
        "started_at": run.started_at or (None if restarted else before["started_at"]),
        "finished_at": (run.finished_at or before["finished_at"] or datetime.now(UTC)) if terminal else None,
        "cancel_requested_at": None if restarted else before["cancel_requested_at"],
    }
