"""Queries for the monitoring endpoints, one per group of figures.

A request reads all its figures from one snapshot: `open_window` starts a read-only, repeatable-read transaction and
fixes the time range by the clock of the database. A run belongs to the range in which it was queued, an agent run to
the one in which it started, and an error to the one in which it occurred.

Percentiles are PostgreSQL's `percentile_cont`, which interpolates between values. Percentiles without values and
unknown costs are null. Time series have a row for each bucket, empty or not; buckets start at round times of UTC.
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
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INTERVAL, TIMESTAMP

from backend.core.roles import Visible
from backend.core.states import TERMINAL_RUN_STATES
from backend.db.runs.visible import visible_to
from backend.db.tables import agent_traces as traces
from backend.db.tables import workflow_errors as errors
from backend.db.tables import workflow_executions as executions

MAX_GROUPS = 200
"""How many DAGs or agents are listed at most; the totals include all of them."""

_STATEMENT_TIMEOUT = "15s"
# A Monday, so that buckets of a week start on Mondays.
_ORIGIN = datetime(2001, 1, 1, tzinfo=UTC)
_FINISHED_AGENT_STATES = ("success", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Window:
    """The time range of the figures, both ends included, and the width of its buckets."""

    since: datetime
    until: datetime
    bucket: timedelta


@dataclass(frozen=True, slots=True)
class Scope:
    """Which runs count: those that a user sees, further limited by a DAG and a user."""

    visible: Visible
    dag_id: str | None = None
    user_id: str | None = None


def open_window(connection: Connection, span: timedelta, bucket: timedelta) -> Window:
    """Start the snapshot that ends now and begins `span` earlier. Has to be the first statement of its transaction."""
    connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
    # Sorting for percentiles should stay in memory, and compiling these queries takes longer than running them.
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
    """The same per DAG, those with the most runs first."""
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
        .limit(MAX_GROUPS)
        .subquery()
    )
    duration = _percentiles_of_array(by_dag.c.durations, (0.5, 0.95)).label("duration")
    query = select(*_all_but("durations", by_dag), duration).order_by(by_dag.c.total.desc(), by_dag.c.dag_id)
    return list(connection.execute(query).mappings())


def workflow_series(connection: Connection, window: Window, scope: Scope) -> list[Mapping[str, Any]]:
    """A row for each bucket that overlaps the window, oldest first."""
    query = (
        select(_bucket(executions.c.queued_at, window), *_run_counts(), *_usage(executions))
        .where(*_runs_in(window, scope))
        .group_by(text("1"))
    )
    return _without_gaps(connection, window, query)


def agent_performance(connection: Connection, window: Window, scope: Scope) -> list[RowMapping]:
    """A row for each agent, type and model, those with the most runs first; latencies are in milliseconds.

    Each try of a task counts as a run of its agents; skipped agents don't count.
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
        .limit(MAX_GROUPS)
        .subquery()
    )
    latency = _percentiles_of_array(by_agent.c.latencies, (0.5, 0.95, 0.99)).label("latency")
    query = select(*_all_but("latencies", by_agent), latency).order_by(
        by_agent.c.runs.desc(), by_agent.c.agent_name, by_agent.c.agent_type, by_agent.c.model
    )
    return list(connection.execute(query).mappings())


def error_groups(connection: Connection, window: Window, scope: Scope) -> list[RowMapping]:
    """Counts of four kinds, largest first: by `category`, by `agent` (which may be null), by `dag`, and the `total`."""
    grouped = (errors.c.category, errors.c.agent_name, errors.c.dag_id)
    kind = func.grouping(*grouped)  # one bit per column, set if the row is not grouped by it
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
    """A row for each bucket: the `total`, and the counts `by_category`."""
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
    conditions = visible_to(scope.visible)
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
    # Grouping with `array_agg` hashes; `percentile_cont` with GROUP BY would sort all rows by group first.
    value = func.unnest(values).column_valued("value")
    return select(_percentiles(value, fractions)).scalar_subquery()


def _all_but(name: str, table: FromClause) -> list[ColumnElement[Any]]:
    return [column for column in table.c if column.name != name]


def _bucket(moment: ColumnElement[Any], window: Window) -> Any:
    width, origin = literal(window.bucket, INTERVAL), literal(_ORIGIN, TIMESTAMP(timezone=True))
    return func.date_bin(width, moment, origin).label("start")


def _without_gaps(connection: Connection, window: Window, query: Select[Any]) -> list[Mapping[str, Any]]:
    """The rows of `query` by their column `start`, and a row with only that for each bucket without one."""
    found = {row["start"]: row for row in connection.execute(query).mappings()}
    # `generate_series` would step by days of the session's time zone, some of which don't have 24 hours.
    start = window.since.astimezone(UTC)
    start -= (start - _ORIGIN) % window.bucket
    rows: list[Mapping[str, Any]] = []
    while start <= window.until:
        rows.append({**found.get(start, {}), "start": start})
        start += window.bucket
    return rows
