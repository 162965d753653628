"""Executions: one row for each DAG run, whoever started it, and its timeline's workflow events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, and_, func, literal, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from backend.core.events import NewEvent
from backend.core.jsonable import storable, to_jsonable
from backend.core.redaction import redact
from backend.core.states import (
    ACTIVE_RUN_STATES,
    TERMINAL_RUN_STATES,
    TERMINAL_TASK_STATES,
    Progress,
    TaskState,
    measure_progress,
    merge_task,
)
from backend.db import events, threads
from backend.db.rows import Row, all_rows, first_row, one_row
from backend.db.tables import workflow_executions as executions
from backend.db.tables import workflow_tasks as tasks

SYSTEM_KEY = "_visual_ai"
"""The one key of `dag_run.conf` that is the system's own."""


# What a row has that nothing is known of yet.
_UNBEGUN = {
    "progress": 0, "tasks_done": 0, "started_at": None, "finished_at": None, "attempt": 1, "output_data": None,
}  # fmt: skip

_TOLD_BY_LISTENERS = frozenset({"running", "success", "failed"})


@dataclass(frozen=True, slots=True)
class RunState:
    """What is known of one DAG run. Times are aware; `state` None when only a task of it was seen."""

    dag_id: str
    dag_run_id: str
    state: str | None
    run_type: str | None = None
    conf: Mapping[str, Any] = field(default_factory=dict)
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    tasks_total: int = 0
    user: str | None = None


def ensure(connection: Connection, run: RunState) -> str:
    """The id of the run's execution; makes its row and first event when nobody has yet.

    What the trigger put under `_visual_ai` in the run's conf (id, user, idempotency key, template) is kept, so that
    the row is the same whoever writes it first.
    """
    found = find_id(connection, run.dag_id, run.dag_run_id)
    return found if found is not None else start(connection, run)


def start(connection: Connection, run: RunState) -> str:
    """The same for a run that is probably new: in one statement, if it is."""
    values = _first_values(run)
    made = _make(connection, values)
    if made is None:  # somebody else was first
        made = find_id(connection, run.dag_id, run.dag_run_id)
    if made is None:  # the wanted id belongs to another run: a copied conf
        made = _make(connection, {key: value for key, value in values.items() if key != "id"})
    if made is None:
        raise LookupError(f"run {run.dag_run_id} of {run.dag_id} comes and goes")
    return made


def _first_values(run: RunState) -> dict[str, Any]:
    system = run.conf.get(SYSTEM_KEY)
    system = system if isinstance(system, Mapping) else {}
    values = {
        "dag_id": run.dag_id,
        "dag_run_id": run.dag_run_id,
        "run_type": run.run_type,
        "user_id": _text(system.get("user_id")) or run.user,
        "triggered_by": _text(system.get("triggered_by")) or run.user,
        "state": "queued",
        "input_data": redact({key: value for key, value in run.conf.items() if key != SYSTEM_KEY}),
        "idempotency_key": _text(system.get("idempotency_key")),
        "template_name": _text(system.get("template")),
        "template_version": _count(system.get("template_version")),
        "queued_at": run.queued_at or func.now(),
        "tasks_total": run.tasks_total,
        "last_seq": 1,
    }
    if wanted := _uuid(system.get("execution_id")):
        values["id"] = wanted
    return values


def _make(connection: Connection, values: Mapping[str, Any]) -> str | None:
    """Make the row and its first event; None when there is such a run, or such an id, already."""
    first = NewEvent("workflow_update", workflow_payload({**_UNBEGUN, **values}))
    made = insert(executions).values(values).on_conflict_do_nothing().returning(executions.c.id).cte("made")
    found = connection.execute(events.first_of(connection, made, first)).scalar_one_or_none()
    if found is None:
        return None
    events.announce_first(connection, str(found), first)
    return str(found)


def find_id(connection: Connection, dag_id: str, dag_run_id: str) -> str | None:
    """The id of the run's execution, if there is one."""
    return connection.execute(
        select(executions.c.id).where(executions.c.dag_id == dag_id, executions.c.dag_run_id == dag_run_id)
    ).scalar_one_or_none()


def get(connection: Connection, dag_id: str, dag_run_id: str) -> Row | None:
    """The run's execution row."""
    query = select(executions).where(executions.c.dag_id == dag_id, executions.c.dag_run_id == dag_run_id)
    return first_row(connection.execute(query))


@dataclass(frozen=True, slots=True)
class Head:
    """The little of an execution that a stream needs: whose it is, and how far its log goes."""

    id: str
    dag_id: str
    dag_run_id: str
    user_id: str | None
    triggered_by: str | None
    state: str
    last_seq: int
    pruned_seq: int


def heads(connection: Connection, runs: list[tuple[str, str]]) -> dict[tuple[str, str], Head]:
    """The heads of those of the runs (`dag_id`, `dag_run_id`) that are recorded."""
    columns = [executions.c[name] for name in Head.__slots__]
    query = select(*columns).where(tuple_(executions.c.dag_id, executions.c.dag_run_id).in_(runs))
    return {(row.dag_id, row.dag_run_id): Head(str(row[0]), *row[1:]) for row in connection.execute(query)}


def list_tasks(connection: Connection, execution_id: str) -> list[TaskState]:
    """The execution's task instances as last seen, in the order in which they started."""
    query = (
        select(
            tasks.c.task_id,
            tasks.c.map_index,
            tasks.c.try_number,
            tasks.c.state,
            tasks.c.started_at,
            tasks.c.finished_at,
            tasks.c.duration,
        )
        .where(tasks.c.execution_id == execution_id)
        .order_by(tasks.c.started_at.nulls_last(), tasks.c.task_id, tasks.c.map_index)
    )
    return [TaskState(*row) for row in connection.execute(query)]


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
    """The same; says whether it told what a listener tells, too: that a run or a task began or came to its end."""
    _, told = _observe(connection, run, seen, observed_at)
    return any(
        event.type == "end" or event.payload.get("state") in _TOLD_BY_LISTENERS
        for event in told
        if event.type in ("task_update", "end")
    )


def _observe(
    connection: Connection, run: RunState, seen: Iterable[TaskState], observed_at: datetime | None
) -> tuple[str, list[NewEvent]]:
    execution_id = ensure(connection, run)
    before = _row(connection, execution_id, lock=True)
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
    still_over = before["state"] in TERMINAL_RUN_STATES and before["state"] == state
    if still_over or not new_events:
        return execution_id, []
    events.append(connection, execution_id, new_events)
    return execution_id, new_events


def request_cancel(connection: Connection, execution_id: str) -> None:
    """Somebody wants the run stopped: agents in flight see it within a second."""
    connection.execute(
        update(executions).where(executions.c.id == execution_id).values(cancel_requested_at=func.clock_timestamp())
    )


def withdraw_cancel(connection: Connection, execution_id: str) -> None:
    """The run could not be stopped and goes on."""
    connection.execute(update(executions).where(executions.c.id == execution_id).values(cancel_requested_at=None))


def cancelled_among(connection: Connection, execution_ids: Iterable[str]) -> set[str]:
    """Those of the executions that are to be stopped."""
    query = select(executions.c.id).where(
        executions.c.id.in_(list(execution_ids)), executions.c.cancel_requested_at.is_not(None)
    )
    return set(connection.execute(query).scalars())


def set_result(connection: Connection, execution_id: str, result: Any, *, trace_url: str | None = None) -> None:
    """Keep what an agent task returned as the run's result; the last one to end wins."""
    values: dict[str, Any] = {"output_data": to_jsonable(result)}
    if trace_url:
        values["trace_url"] = trace_url
    connection.execute(update(executions).where(executions.c.id == execution_id).values(values))


_ADD_USAGE = text(
    """
    UPDATE visual_ai.workflow_executions
    SET input_tokens = input_tokens + :input_tokens,
        output_tokens = output_tokens + :output_tokens,
        cost_usd = CASE WHEN CAST(:cost_usd AS numeric) IS NULL THEN cost_usd
                        ELSE coalesce(cost_usd, 0) + CAST(:cost_usd AS numeric) END
    WHERE id = :execution_id
    """
)


def add_usage(
    connection: Connection, execution_id: str, *, input_tokens: int, output_tokens: int, cost_usd: Any
) -> None:
    """Add tokens and, when known, cost (US dollars) to the execution's totals."""
    connection.execute(
        _ADD_USAGE,
        {
            "execution_id": execution_id,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cost_usd": cost_usd,
        },
    )


def list_active(connection: Connection) -> list[Row]:
    """Ids of all runs that are not over, as far as is known here."""
    query = select(executions.c.id, executions.c.dag_id, executions.c.dag_run_id, executions.c.updated_at).where(
        executions.c.state.in_(sorted(ACTIVE_RUN_STATES))
    )
    return all_rows(connection.execute(query))


def states_of(connection: Connection, runs: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The recorded state of each of these runs (`dag_id`, `dag_run_id`) that is recorded."""
    if not runs:
        return {}
    query = select(executions.c.dag_id, executions.c.dag_run_id, executions.c.state).where(
        tuple_(executions.c.dag_id, executions.c.dag_run_id).in_(runs)
    )
    return {(row.dag_id, row.dag_run_id): row.state for row in connection.execute(query)}


def clock(connection: Connection) -> datetime:
    """The database's clock, by which rows are stamped."""
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment


def list_page(
    connection: Connection,
    *,
    dag_id: str | None,
    states: list[str],
    user_id: str | None,
    owner: str | None,
    since: datetime | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Row]:
    """Executions, newest first, at most `limit`, older than `before` (`queued_at`, `id`).

    `owner` restricts the list to runs that user started or that were started for them.
    """
    query = select(executions).order_by(executions.c.queued_at.desc(), executions.c.id.desc()).limit(limit)
    conditions = []
    if dag_id is not None:
        conditions.append(executions.c.dag_id == dag_id)
    if states:
        conditions.append(executions.c.state.in_(states))
    if user_id is not None:
        conditions.append(executions.c.user_id == user_id)
    if owner is not None:
        conditions.append(or_(executions.c.user_id == owner, executions.c.triggered_by == owner))
    if since is not None:
        conditions.append(executions.c.queued_at >= since)
    if before is not None:
        conditions.append(
            tuple_(executions.c.queued_at, executions.c.id)
            < tuple_(literal(before[0]), literal(before[1], executions.c.id.type))
        )
    return all_rows(connection.execute(query.where(and_(True, *conditions))))


def workflow_payload(row: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a `workflow_update` event."""
    payload = {
        "dag_id": row["dag_id"],
        "dag_run_id": row["dag_run_id"],
        "state": row["state"],
        "progress": row["progress"],
        "tasks_total": row["tasks_total"],
        "tasks_done": row["tasks_done"],
        "started_at": row["started_at"],
        "finished_at": row["finished_at"],
        "attempt": row["attempt"],
    }
    if row["state"] in TERMINAL_RUN_STATES and row["output_data"] is not None:
        payload["result"] = row["output_data"]
    return payload


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
        "started_at": run.started_at or (None if restarted else before["started_at"]),
        "finished_at": (run.finished_at or before["finished_at"] or datetime.now(UTC)) if terminal else None,
        "cancel_requested_at": None if restarted else before["cancel_requested_at"],
    }


def _row(connection: Connection, execution_id: str, *, lock: bool = False) -> Row:
    query = select(executions).where(executions.c.id == execution_id)
    if lock:
        query = query.with_for_update()
    return one_row(connection.execute(query))


# What stands in a run's conf may be anybody's: of the wrong kind it is ignored.


def _text(value: Any) -> str | None:
    return storable(value) or None if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 < value < 2**31 else None


def _uuid(value: Any) -> str | None:
    try:
        return str(UUID(value)) if isinstance(value, str) else None
    except ValueError:
        return None
