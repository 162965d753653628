"""Figures over many runs: one query for each group of figures.

Runs count in the range in which they were queued, agent runs in which they started, errors in which they
occurred. Percentiles are `percentile_cont`, which interpolates. Without a row to take them from they are
null, as is a cost nobody knows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    FromClause,
    RowMapping,
    Select,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL, TIMESTAMP

from backend.core.states import TERMINAL_RUN_STATES
from backend.db.tables import agent_traces as traces
from backend.db.tables import workflow_errors as errors
from backend.db.tables import workflow_executions as executions

MOST_GROUPS = 200
"""The most DAGs or agents listed; the totals count all of them."""

_STATEMENT_TIMEOUT = "15s"
# A Monday, so that buckets of a week begin on one; all begin at a round time of UTC.
_ORIGIN = datetime(2001, 1, 1, tzinfo=UTC)
_FINISHED_AGENT_STATES = ("success", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Window:
    """The time the figures are about, ends included, and the width of its buckets."""

    since: datetime
    until: datetime
    bucket: timedelta


@dataclass(frozen=True, slots=True)
class Scope:
    """Which runs count. `owner` limits to those a user is named in; the rest are the reader's own filters."""

    owner: str | None = None
    dag_id: str | None = None
    user_id: str | None = None


def open_window(connection: Connection, span: timedelta, bucket: timedelta) -> Window:
    """The last `span` by the database's clock. Call it first in a transaction: all figures then agree."""
    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    # Sorting for percentiles stays in memory; compiling these queries takes longer than running them.
    connection.execute(
        text(
            "SELECT set_config('statement_timeout', :timeout, true), set_config('work_mem', '64MB', true),"
            " set_config('jit', 'off', true)"
        ),
        {"timeout": _STATEMENT_TIMEOUT},
    )
    until: datetime = connection.execute(select(func.now())).scalar_one()
    return Window(until - span, until, bucket)


def workflow_totals(connection: Connection, window: Window, scope: Scope) -> RowMapping:
    """One row: counts by state, durations and time in the queue (seconds), tokens and cost (US dollars)."""
    runs = executions.c
    in_queue = func.greatest(_seconds(runs.started_at - runs.queued_at), 0.0)
    query = select(
        *_run_counts(),
        *(_count(runs.state == state).label(state) for state in ("queued", "running", "awaiting_input")),
        _percentiles(_seconds(runs.finished_at - runs.started_at), (0.5, 0.95, 0.99)).label("duration"),
        func.avg(_seconds(runs.finished_at - runs.started_at)).label("duration_avg"),
        _percentiles(in_queue, (0.5, 0.95)).filter(runs.started_at.is_not(None)).label("in_queue"),
        *_usage(executions),
    ).where(*_runs_in(window, scope))
    return connection.execute(query).mappings().one()


def workflow_by_dag(connection: Connection, window: Window, scope: Scope) -> list[RowMapping]:
    """The same for each DAG, those with the most runs first."""
    runs = executions.c
    by_dag = (
        select(
            runs.dag_id,
            *_run_counts(),
            func.array_agg(_seconds(runs.finished_at - runs.started_at)).label("durations"),
            *_usage(executions),
        )
        .where(*_runs_in(window, scope))
        .group_by(runs.dag_id)
        .order_by(func.count().desc(), runs.dag_id)
        .limit(MOST_GROUPS)
        .subquery()
    )
    duration = _percentiles_of_array(by_dag.c.durations, (0.5, 0.95)).label("duration")
    query = select(*_all_but("durations", by_dag), duration).order_by(by_dag.c.total.desc(), by_dag.c.dag_id)
    return list(connection.execute(query).mappings())


def workflow_series(connection: Connection, window: Window, scope: Scope) -> list[Mapping[str, Any]]:
    """A row for each bucket that touches the window, without gaps, oldest first."""
    query = (
        select(_bucket(executions.c.queued_at, window), *_run_counts(), *_usage(executions))
        .where(*_runs_in(window, scope))
        .group_by(text("1"))
    )
    return _without_gaps(connection, window, query)


def agent_performance(connection: Connection, window: Window, scope: Scope) -> list[RowMapping]:
    """A row for each agent, type and model, those with the most runs first; latency in milliseconds.

    Agents that were skipped did not run; each try of a task is a run of its agents.
    """
    agent = (traces.c.agent_name, traces.c.agent_type, traces.c.model)
    finished = traces.c.state.in_(_FINISHED_AGENT_STATES)
    by_agent = (
        select(
            *agent,
            func.count().label("runs"),
            _count(finished).label("finished"),
            *(_count(traces.c.state == state).label(state) for state in _FINISHED_AGENT_STATES),
            func.array_agg(traces.c.latency_ms).filter(finished).label("latencies"),
            *_usage(traces),
            func.sum(traces.c.retries).label("retries"),
            func.sum(traces.c.fallbacks).label("fallbacks"),
        )
        .where(
            traces.c.node.is_(None),
            traces.c.state != "skipped",
            traces.c.started_at.between(window.since, window.until),
            *_of_runs(traces, scope),
        )
        .group_by(*agent)
        .order_by(func.count().desc(), *agent)
        .limit(MOST_GROUPS)
        .subquery()
    )
    latency = _percentiles_of_array(by_agent.c.latencies, (0.5, 0.95, 0.99)).label("latency")
    query = select(*_all_but("latencies", by_agent), latency).order_by(
        by_agent.c.runs.desc(), by_agent.c.agent_name, by_agent.c.agent_type, by_agent.c.model
    )
    return list(connection.execute(query).mappings())


def error_groups(connection: Connection, window: Window, scope: Scope) -> list[RowMapping]:
    """Rows of four kinds, largest first: by `category`, by `agent` (or null), by `dag` and the `total`."""
    grouped = (errors.c.category, errors.c.agent_name, errors.c.dag_id)
    kind = func.grouping(*grouped)  # a bit for each column that was not grouped by
    query = (
        select(
            case({3: "category", 5: "agent", 6: "dag", 7: "total"}, value=kind).label("kind"),
            func.coalesce(*grouped).label("name"),
            func.count().label("count"),
            _count(errors.c.recovered).label("recovered"),
            func.max(errors.c.occurred_at).label("latest"),
        )
        .where(*_errors_in(window, scope))
        .group_by(text("GROUPING SETS ((category), (agent_name), (dag_id), ())"))
        .order_by(func.count().desc(), text("2"))
    )
    return list(connection.execute(query).mappings())


def error_series(connection: Connection, window: Window, scope: Scope) -> list[Mapping[str, Any]]:
    """A row for each bucket, without gaps: `total`, and `by_category`, an object of counts."""
    counted = (
        select(
            _bucket(errors.c.occurred_at, window),
            errors.c.category,
            func.count().label("count"),
        )
        .where(*_errors_in(window, scope))
        .group_by(text("1, 2"))
        .subquery()
    )
    query = select(
        counted.c.start,
        func.sum(counted.c.count).label("total"),
        func.jsonb_object_agg(counted.c.category, counted.c.count).label("by_category"),
    ).group_by(counted.c.start)
    return _without_gaps(connection, window, query)


def _runs_in(window: Window, scope: Scope) -> list[ColumnElement[bool]]:
    return [executions.c.queued_at.between(window.since, window.until), *_scoped(scope)]


def _scoped(scope: Scope) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if scope.owner is not None:
        conditions.append(_owned_by(scope.owner))
    if scope.dag_id is not None:
        conditions.append(executions.c.dag_id == scope.dag_id)
    if scope.user_id is not None:
        conditions.append(executions.c.user_id == scope.user_id)
    return conditions


def _errors_in(window: Window, scope: Scope) -> list[ColumnElement[bool]]:
    return [errors.c.occurred_at.between(window.since, window.until), *_of_runs(errors, scope)]


def _of_runs(table: FromClause, scope: Scope) -> list[ColumnElement[bool]]:
    conditions = _scoped(scope)
    return [table.c.execution_id.in_(select(executions.c.id).where(*conditions))] if conditions else []


def _owned_by(owner: str) -> ColumnElement[bool]:
    return or_(executions.c.user_id == owner, executions.c.triggered_by == owner)


def _run_counts() -> list[ColumnElement[int]]:
    state = executions.c.state
    return [
        func.count().label("total"),
        _count(state.in_(sorted(TERMINAL_RUN_STATES))).label("finished"),
        *(_count(state == terminal).label(terminal) for terminal in ("success", "failed", "cancelled")),
    ]


def _usage(table: FromClause) -> list[ColumnElement[Any]]:
    return [
        func.coalesce(func.sum(table.c.input_tokens), 0).label("input_tokens"),
        func.coalesce(func.sum(table.c.output_tokens), 0).label("output_tokens"),
        cast(func.sum(table.c.cost_usd), Double).label("cost_usd"),
    ]


def _count(condition: ColumnElement[bool]) -> Any:
    return func.count().filter(condition)


def _seconds(interval: ColumnElement[Any]) -> Any:
    return func.date_part("epoch", interval)


def _percentiles(value: ColumnElement[Any], fractions: tuple[float, ...]) -> Any:
    return func.percentile_cont(cast(list(fractions), ARRAY(Double))).within_group(value)


def _percentiles_of_array(values: ColumnElement[Any], fractions: tuple[float, ...]) -> Any:
    # Groups collect values by hashing; `percentile_cont` over groups would first sort the rows by group.
    value = func.unnest(values).column_valued("value")
    return select(_percentiles(value, fractions)).scalar_subquery()


def _all_but(name: str, table: FromClause) -> list[ColumnElement[Any]]:
    return [column for column in table.c if column.name != name]


def _bucket(moment: ColumnElement[Any], window: Window) -> Any:
    width, origin = literal(window.bucket, INTERVAL), literal(_ORIGIN, TIMESTAMP(timezone=True))
    return func.date_bin(width, moment, origin).label("start")


def _without_gaps(connection: Connection, window: Window, query: Select[Any]) -> list[Mapping[str, Any]]:
    """The rows of `query`, which has a column `start`, and one of only that for each bucket without a row."""
    found = {row["start"]: row for row in connection.execute(query).mappings()}
    # Not `generate_series`: that steps by days of the session's time zone, not all of them 24 hours long.
    start = window.since.astimezone(UTC)
    start -= (start - _ORIGIN) % window.bucket
    rows: list[Mapping[str, Any]] = []
    while start <= window.until:
        rows.append({**found.get(start, {}), "start": start})
        start += window.bucket
    return rows
