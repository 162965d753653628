"""Executions: one row per DAG run, whoever started it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Text, and_, case, cast, exists, func, literal, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import JSONB, insert

from backend.core.events import NewEvent
from backend.core.jsonable import dumps, storable
from backend.core.redaction import redact
from backend.core.roles import Visible
from backend.core.run_envelope import FORK, SYSTEM_KEY, Fork
from backend.core.states import ACTIVE_RUN_STATES, TERMINAL_RUN_STATES, TaskState
from backend.db.rows import Row, all_rows, first_row, one_row
from backend.db.run_keys import trigger_values
from backend.db.runs import events
from backend.db.runs.run_payload import workflow_payload
from backend.db.runs.visible import visible_to
from backend.db.tables import agent_traces as traces
from backend.db.tables import workflow_errors as errors
from backend.db.tables import workflow_executions as executions
from backend.db.tables import workflow_tasks as tasks

_KEY = tuple_(executions.c.dag_id, executions.c.dag_run_id)

# The values of a row about which nothing is known yet.
_UNBEGUN = {
    "progress": 0, "tasks_done": 0, "started_at": None, "finished_at": None, "attempt": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunState:
    """What is known about a DAG run. Times are aware; `state` is None if only a task of it was observed."""

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
    input_json: str | None = None
    """The run's input without secrets as JSON text, if it was encoded beforehand; `conf` then need not contain it."""


def ensure(connection: Connection, run: RunState) -> str:
    """Return the id of the run's execution, creating its row and first event if they don't exist yet.

    What the trigger added to the run's conf (id, user, idempotency key, template) is kept, so the row is the same
    whoever writes it first.
    """
    found = find_id(connection, run.dag_id, run.dag_run_id)
    return found if found is not None else start(connection, run)


def start(connection: Connection, run: RunState) -> str:
    """The same for a run that is probably new, with a single statement if it is."""
    values = _first_values(run, trigger_values(connection, run.dag_id, run.dag_run_id, run.conf))
    made = _make(connection, values)
    if made is None:  # another transaction was first
        made = find_id(connection, run.dag_id, run.dag_run_id)
    if made is None:  # the id belongs to another run: the conf was copied
        made = _make(connection, {key: value for key, value in values.items() if key != "id"})
    if made is None:
        raise LookupError(f"run {run.dag_run_id} of {run.dag_id} comes and goes")
    return made


def _first_values(run: RunState, system: Mapping[str, Any]) -> dict[str, Any]:
    fork = Fork.of(system.get(FORK))
    values = {
        "dag_id": run.dag_id,
        "dag_run_id": run.dag_run_id,
        "run_type": run.run_type,
        "user_id": _text(system.get("user_id")) or run.user,
        "triggered_by": _text(system.get("triggered_by")) or run.user,
        "state": "queued",
        "input_data": _recorded_input(run, ours=bool(system)),
        "idempotency_key": _text(system.get("idempotency_key")),
        "template_name": _text(system.get("template")),
        "template_version": _count(system.get("template_version")),
        "forked_from": fork.source if fork is not None else None,
        "queued_at": run.queued_at or func.now(),
        "tasks_total": run.tasks_total,
        "last_seq": 1,
    }
    if own_id := _uuid(system.get("execution_id")):
        values["id"] = own_id
    return values


def _recorded_input(run: RunState, *, ours: bool) -> Any:
    if run.input_json is not None:
        return cast(literal(run.input_json, Text), JSONB)
    return redact({key: value for key, value in run.conf.items() if key != SYSTEM_KEY or not ours})


def _make(connection: Connection, values: Mapping[str, Any]) -> str | None:
    """Create the row and its first event; returns None if the run or the id exists already."""
    first = NewEvent("workflow_update", workflow_payload({**_UNBEGUN, **values}))
    made = insert(executions).values(values).on_conflict_do_nothing().returning(executions.c.id).cte("made")
    found = connection.execute(events.first_of(connection, made, first)).scalar_one_or_none()
    if found is None:
        return None
    events.announce_first(connection, str(found), first)
    return str(found)


def find_id(connection: Connection, dag_id: str, dag_run_id: str) -> str | None:
    """The id of the run's execution; None if it has none."""
    return connection.execute(
        select(executions.c.id).where(executions.c.dag_id == dag_id, executions.c.dag_run_id == dag_run_id)
    ).scalar_one_or_none()


def ensure_all(connection: Connection, runs: Iterable[RunState]) -> dict[tuple[str, str], str]:
    """The ids of the runs' executions by DAG and run; missing ones are created."""
    by_key = {(run.dag_id, run.dag_run_id): run for run in runs}
    query = select(executions.c.dag_id, executions.c.dag_run_id, executions.c.id).where(_KEY.in_(list(by_key)))
    ids = {(row.dag_id, row.dag_run_id): row.id for row in connection.execute(query)}
    for key in sorted(by_key.keys() - ids.keys()):  # in a fixed order: others may create the same ones
        ids[key] = start(connection, by_key[key])
    return ids


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
    """Lock the executions that exist, in the order of their ids, until the transaction ends: nobody else can change
    them or append to their timelines. Without `wait`, those that are locked already are skipped, and have False."""
    ids = sorted(set(execution_ids))
    found = connection.execute(_LOCK_WAITING if wait else _LOCK_FREE, {"ids": ids})
    return {row.id: row.locked for row in found}


_VALUES = ("input_data", "input_reference", "output_data", "output_reference", "result_task")
_LIGHT = [column for column in executions.c if column.name not in _VALUES]

SHOWN = [
    *_LIGHT,
    *(executions.c[name] for name in ("input_reference", "output_reference", "result_task")),
    case((executions.c.input_reference.is_(None), executions.c.input_data)).label("input_data"),
    case((executions.c.output_reference.is_(None), executions.c.output_data)).label("output_data"),
]
"""The columns of an execution, with a large input or output by reference only: then its value is null."""


def get(connection: Connection, dag_id: str, dag_run_id: str) -> Row | None:
    """The run's execution row, with the columns `SHOWN`."""
    query = select(*SHOWN).where(executions.c.dag_id == dag_id, executions.c.dag_run_id == dag_run_id)
    return first_row(connection.execute(query))


def find(connection: Connection, dag_id: str, dag_run_id: str) -> Row | None:
    """The run's execution row without input and output, which may be large."""
    query = select(*_LIGHT).where(executions.c.dag_id == dag_id, executions.c.dag_run_id == dag_run_id)
    return first_row(connection.execute(query))


def read(connection: Connection, execution_id: str, *, lock: bool = False) -> Row:
    """The execution's row, with the columns `SHOWN`. With `lock`, nobody else can change it or its timeline until the
    transaction ends."""
    query = select(*SHOWN).where(executions.c.id == execution_id)
    if lock:
        query = query.with_for_update(key_share=True)
    return one_row(connection.execute(query))


@dataclass(frozen=True, slots=True)
class Head:
    """What a stream needs to know about an execution: its owner, its state, and its last `seq`."""

    id: str
    dag_id: str
    dag_run_id: str
    user_id: str | None
    triggered_by: str | None
    state: str
    last_seq: int
    pruned_seq: int


def heads(connection: Connection, runs: list[tuple[str, str]]) -> dict[tuple[str, str], Head]:
    """The heads of those runs (`dag_id`, `dag_run_id`) that are recorded."""
    columns = [executions.c[name] for name in Head.__slots__]
    query = select(*columns).where(_KEY.in_(runs))
    return {(row.dag_id, row.dag_run_id): Head(str(row[0]), *row[1:]) for row in connection.execute(query)}


def list_tasks(connection: Connection, execution_id: str) -> list[TaskState]:
    """The execution's task instances as last observed, in the order in which they started."""
    instances = tasks.alias()
    # Airflow's placeholder of a mapped task, which remains when its instances have replaced it.
    replaced = (tasks.c.map_index == -1) & exists().where(
        instances.c.execution_id == tasks.c.execution_id,
        instances.c.task_id == tasks.c.task_id,
        instances.c.map_index >= 0,
    )
    query = (
        select(*(tasks.c[name] for name in TaskState.__slots__))
        .where(tasks.c.execution_id == execution_id, ~replaced)
        .order_by(tasks.c.started_at.nulls_last(), tasks.c.task_id, tasks.c.map_index)
    )
    return [TaskState(*row) for row in connection.execute(query)]


def request_cancel(connection: Connection, execution_id: str, *, by: str) -> bool:
    """Request, for the user `by`, that the run be stopped, which its agents notice within a second.

    Returns False if it has finished.
    """
    changed = connection.execute(
        update(executions)
        .where(executions.c.id == execution_id, executions.c.state.not_in(sorted(TERMINAL_RUN_STATES)))
        .values(cancel_requested_at=func.clock_timestamp(), reason=f"Cancelled by {by}.")
    )
    return changed.rowcount == 1


def withdraw_cancel(connection: Connection, execution_id: str) -> None:
    """Withdraw the request, because the run could not be stopped."""
    active = executions.c.state.in_(sorted(ACTIVE_RUN_STATES))
    kept = case((active, None), else_=executions.c.reason)
    connection.execute(
        update(executions).where(executions.c.id == execution_id).values(cancel_requested_at=None, reason=kept)
    )


def cancelled_among(connection: Connection, execution_ids: Iterable[str]) -> set[str]:
    """Those of the executions that are to be stopped."""
    query = select(executions.c.id).where(
        executions.c.id.in_(list(execution_ids)), executions.c.cancel_requested_at.is_not(None)
    )
    return set(connection.execute(query).scalars())


def begin_trace(connection: Connection, execution_id: str, *, trace_url: str | None) -> str | None:
    """Store the trace's address when a traced agent task begins; returns the run's user. The last such task wins."""
    row = update(executions).where(executions.c.id == execution_id)
    kept = row.values(trace_url=func.coalesce(trace_url, executions.c.trace_url)).returning(executions.c.user_id)
    return connection.execute(kept).scalar()


_ADD_USAGE = text(
    """
    UPDATE visual_ai.workflow_executions e
    SET input_tokens = e.input_tokens + used.input_tokens,
        output_tokens = e.output_tokens + used.output_tokens,
        cost_usd = CASE WHEN used.cost_usd IS NULL THEN e.cost_usd ELSE coalesce(e.cost_usd, 0) + used.cost_usd END
    FROM (
        SELECT id, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens, sum(cost_usd) AS cost_usd
        FROM jsonb_populate_recordset(CAST(NULL AS visual_ai.workflow_executions), CAST(:rows AS jsonb)) GROUP BY id
    ) used
    WHERE e.id = used.id
    """
)


def add_usage(connection: Connection, used: Sequence[Mapping[str, Any]]) -> None:
    """Add `input_tokens`, `output_tokens` and, where it isn't None, `cost_usd` to the totals of executions, each of
    which (by its `id`) may occur several times."""
    if used:
        connection.execute(_ADD_USAGE, {"rows": dumps(used)})


def list_active(connection: Connection) -> list[Row]:
    """The ids of all runs that aren't recorded as finished."""
    query = select(executions.c.id, executions.c.dag_id, executions.c.dag_run_id, executions.c.updated_at).where(
        executions.c.state.in_(sorted(ACTIVE_RUN_STATES))
    )
    return all_rows(connection.execute(query))


def states_of(connection: Connection, runs: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The state of each of these runs (`dag_id`, `dag_run_id`) that is recorded."""
    if not runs:
        return {}
    query = select(executions.c.dag_id, executions.c.dag_run_id, executions.c.state).where(_KEY.in_(runs))
    return {(row.dag_id, row.dag_run_id): row.state for row in connection.execute(query)}


def user_of(connection: Connection, execution_id: str) -> str | None:
    """The user of an execution; None for one that nobody started."""
    user: str | None = connection.execute(select(executions.c.user_id).where(executions.c.id == execution_id)).scalar()
    return user


def clock(connection: Connection) -> datetime:
    """The time of the database's clock, which sets the timestamps of rows."""
    moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return moment


def list_page(
    connection: Connection,
    *,
    dag_id: str | None,
    states: list[str],
    user_id: str | None,
    visible: Visible,
    since: datetime | None,
    agent: str | None,
    error_category: str | None,
    error_agent: str | None,
    forked_from: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Row]:
    """Executions, newest first, at most `limit`, older than `before` (`queued_at`, `id`), without input and output.

    `visible` restricts the list to what a user sees; `agent` to those in which this agent ran; `error_category` and
    `error_agent` to those with an error that matches both; `forked_from` to the forks of a run with this id.
    """
    query = select(*_LIGHT).order_by(executions.c.queued_at.desc(), executions.c.id.desc()).limit(limit)
    conditions = visible_to(visible)
    if dag_id is not None:
        conditions.append(executions.c.dag_id == dag_id)
    if states:
        conditions.append(executions.c.state.in_(states))
    if user_id is not None:
        conditions.append(executions.c.user_id == user_id)
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
    if forked_from is not None:
        conditions.append(executions.c.forked_from["dag_run_id"].astext == forked_from)
    if before is not None:
        conditions.append(
            tuple_(executions.c.queued_at, executions.c.id)
            < tuple_(literal(before[0]), literal(before[1], executions.c.id.type))
        )
    return all_rows(connection.execute(query.where(and_(True, *conditions))))


# Anybody may have written the run's conf: values of the wrong type are ignored.


def _text(value: Any) -> str | None:
    return storable(value) or None if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 < value < 2**31 else None


def _uuid(value: Any) -> str | None:
    try:
        return str(UUID(value)) if isinstance(value, str) else None
    except ValueError:
        return None
