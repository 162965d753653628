"""Executions: one row for each DAG run, whoever started it, and its timeline's workflow events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Text, and_, cast, exists, func, literal, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from backend.core.events import NewEvent
from backend.core.jsonable import dumps, storable
from backend.core.redaction import redact
from backend.core.states import (
    ACTIVE_RUN_STATES,
    TERMINAL_RUN_STATES,
    TaskState,
)
from backend.db.rows import Row, all_rows, first_row, one_row
from backend.db.runs import events
from backend.db.tables import agent_traces as traces
from backend.db.tables import workflow_errors as errors
from backend.db.tables import workflow_executions as executions
from backend.db.tables import workflow_tasks as tasks

SYSTEM_KEY = "_visual_ai"
"""The one key of `dag_run.conf` that is the system's own."""


# What a row has that nothing is known of yet.
_UNBEGUN = {
    "progress": 0, "tasks_done": 0, "started_at": None, "finished_at": None, "attempt": 1, "output_data": None,
}  # fmt: skip


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


def ensure_all(connection: Connection, runs: Iterable[RunState]) -> dict[tuple[str, str], str]:
    """The ids of the runs' executions by DAG and run, made where there are none yet."""
    wanted = {(run.dag_id, run.dag_run_id): run for run in runs}
    found = connection.execute(_FIND_IDS, {"dags": [dag for dag, _ in wanted], "runs": [run for _, run in wanted]})
    ids = {(row.dag_id, row.dag_run_id): str(row.id) for row in found}
    for key in sorted(wanted.keys() - ids.keys()):  # in one order: somebody else may be making the same
        ids[key] = start(connection, wanted[key])
    return ids


_FIND_IDS = text(
    """
    SELECT id, dag_id, dag_run_id FROM visual_ai.workflow_executions
    WHERE (dag_id, dag_run_id) IN (SELECT * FROM unnest(CAST(:dags AS text[]), CAST(:runs AS text[])))
    """
)


_LOCK = """
    WITH locked AS MATERIALIZED (
        SELECT id FROM visual_ai.workflow_executions WHERE id = ANY(CAST(:ids AS uuid[]))
        ORDER BY id FOR NO KEY UPDATE {skip}
    )
    SELECT e.id::text, locked.id IS NOT NULL AS locked
    FROM visual_ai.workflow_executions e LEFT JOIN locked ON locked.id = e.id
    WHERE e.id = ANY(CAST(:ids AS uuid[]))
"""
_LOCK_WAITING, _LOCK_FREE = (text(_LOCK.format(skip=skip)) for skip in ("", "SKIP LOCKED"))


def lock(connection: Connection, execution_ids: Iterable[str], *, wait: bool = True) -> dict[str, bool]:
    """Lock the executions that there are, in order of id: until the transaction ends nobody else changes them, or adds
    to their timelines. Without `wait` those that somebody else has locked are left out, and have False."""
    ids = sorted(set(execution_ids))
    found = connection.execute(_LOCK_WAITING if wait else _LOCK_FREE, {"ids": ids})
    return {row.id: row.locked for row in found}


def get(connection: Connection, dag_id: str, dag_run_id: str) -> Row | None:
    """The run's execution row."""
    query = select(executions).where(executions.c.dag_id == dag_id, executions.c.dag_run_id == dag_run_id)
    return first_row(connection.execute(query))


_LIGHT = [column for column in executions.c if column.name not in ("input_data", "output_data")]


def find(connection: Connection, dag_id: str, dag_run_id: str) -> Row | None:
    """The run's execution row without its input and output, which may be large."""
    query = select(*_LIGHT).where(executions.c.dag_id == dag_id, executions.c.dag_run_id == dag_run_id)
    return first_row(connection.execute(query))


def read_result(connection: Connection, execution_id: str) -> tuple[str, str | None]:
    """The execution's state and its result as JSON text, None when no agent task has returned anything."""
    query = select(executions.c.state, cast(executions.c.output_data, Text)).where(executions.c.id == execution_id)
    state, result = connection.execute(query).one()
    return str(state), result


def read(connection: Connection, execution_id: str, *, lock: bool = False) -> Row:
    """The execution's row; with `lock` nobody else changes it, or adds to its timeline, until the transaction ends."""
    query = select(executions).where(executions.c.id == execution_id)
    if lock:
        query = query.with_for_update(key_share=True)
    return one_row(connection.execute(query))


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
    instances = tasks.alias()
    # Airflow's placeholder of a mapped task, which stays behind when its instances have replaced it.
    replaced = (tasks.c.map_index == -1) & exists().where(
        instances.c.execution_id == tasks.c.execution_id,
        instances.c.task_id == tasks.c.task_id,
        instances.c.map_index >= 0,
    )
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
        .where(tasks.c.execution_id == execution_id, ~replaced)
        .order_by(tasks.c.started_at.nulls_last(), tasks.c.task_id, tasks.c.map_index)
    )
    return [TaskState(*row) for row in connection.execute(query)]


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


def begin_trace(connection: Connection, execution_id: str, *, trace_url: str | None) -> str | None:
    """An agent task begins that is traced: gives the run's user. The run's address is that of its last such task."""
    row = update(executions).where(executions.c.id == execution_id)
    kept = row.values(trace_url=func.coalesce(trace_url, executions.c.trace_url)).returning(executions.c.user_id)
    return connection.execute(kept).scalar()


_SET_RESULTS = text(
    """
    UPDATE visual_ai.workflow_executions e
    SET output_data = result.value, trace_url = coalesce(nullif(result.value ->> 'trace_url', ''), e.trace_url)
    FROM jsonb_to_recordset(CAST(:results AS jsonb)) AS result (id uuid, value jsonb)
    WHERE e.id = result.id
    """
)


def set_results(connection: Connection, results: Mapping[str, Any]) -> None:
    """Keep what agent tasks returned as the results of runs, and where their traces are, by the executions' ids. The
    last one to end wins."""
    if results:
        rows = [{"id": execution_id, "value": result} for execution_id, result in results.items()]
        connection.execute(_SET_RESULTS, {"results": dumps(rows)})


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
    agent: str | None,
    error_category: str | None,
    error_agent: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Row]:
    """Executions, newest first, at most `limit`, older than `before` (`queued_at`, `id`), without input and output.

    `owner` restricts the list to runs that user started or that were started for them; `agent` to those in which it
    worked, `error_category` and `error_agent` to those with one error that fits both.
    """
    query = select(*_LIGHT).order_by(executions.c.queued_at.desc(), executions.c.id.desc()).limit(limit)
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
    if agent is not None:
        worked = and_(
            traces.c.execution_id == executions.c.id, traces.c.agent_name == agent, traces.c.state != "skipped"
        )
        conditions.append(exists().where(worked))
    met = [errors.c.category == error_category] if error_category is not None else []
    if error_agent is not None:
        met.append(errors.c.agent_name == error_agent)
    if met:
        conditions.append(exists().where(errors.c.execution_id == executions.c.id, *met))
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
