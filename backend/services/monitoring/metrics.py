"""Answers the monitoring requests: outcomes, durations, cost and errors of many runs, from one snapshot of the
database."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping

from backend.core.roles import Principal
from backend.core.time_range import bucket_width, parse_time_range
from backend.db import monitoring as figures
from backend.db.engine import Database
from backend.db.monitoring import Scope, Window
from backend.services.monitoring.schemas import (
    AgentMetrics,
    AgentPerformance,
    DagMetrics,
    Duration,
    ErrorBucket,
    ErrorDistribution,
    ErrorGroup,
    Latency,
    QueueTime,
    RunBucket,
    RunStates,
    WorkflowMetrics,
)


class Monitoring:
    """Reads the figures from the database. Only runs that the user sees count.

    All methods raise `Invalid` for a malformed `time_range`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def workflow_metrics(
        self,
        who: Principal,
        time_range: str,
        *,
        dag_id: str | None = None,
        user_id: str | None = None,
    ) -> WorkflowMetrics:
        """Runs queued in the last `time_range`, optionally of one DAG and of one user."""
        span, scope = parse_time_range(time_range), Scope(who.visible, dag_id, user_id)

        def read(connection: Connection) -> WorkflowMetrics:
            window = figures.open_window(connection, span, bucket_width(span))
            totals = figures.workflow_totals(connection, window, scope)
            return WorkflowMetrics(
                **_range(time_range, window),
                dag_id=dag_id,
                user_id=user_id,
                total=totals["total"],
                finished=totals["finished"],
                by_state=RunStates.model_validate(dict(totals)),
                success_rate=_rate(totals["success"], totals["finished"]),
                throughput_per_hour=totals["finished"] / (span / timedelta(hours=1)),
                duration_seconds=Duration(
                    **_percentiles(totals["duration"], "p50", "p95", "p99"), avg=totals["duration_avg"]
                ),
                queue_seconds=QueueTime(**_percentiles(totals["in_queue"], "p50", "p95")),
                **_usage(totals),
                by_dag=[_dag(row) for row in figures.workflow_by_dag(connection, window, scope)],
                bucket_seconds=int(window.bucket.total_seconds()),
                time_series=[
                    RunBucket.model_validate(dict(row)) for row in figures.workflow_series(connection, window, scope)
                ],
            )

        return await self._database.run(read)

    async def agent_performance(
        self,
        who: Principal,
        time_range: str,
        *,
        dag_id: str | None = None,
        user_id: str | None = None,
    ) -> AgentPerformance:
        """Agent runs started in the last `time_range`, optionally of one DAG and of one user's runs."""
        span, scope = parse_time_range(time_range), Scope(who.visible, dag_id, user_id)

        def read(connection: Connection) -> AgentPerformance:
            window = figures.open_window(connection, span, bucket_width(span))
            rows = figures.agent_performance(connection, window, scope)
            return AgentPerformance(**_range(time_range, window), agents=[_agent(row) for row in rows])

        return await self._database.run(read)

    async def error_distribution(
        self,
        who: Principal,
        time_range: str,
        *,
        dag_id: str | None = None,
        user_id: str | None = None,
    ) -> ErrorDistribution:
        """Errors that occurred in the last `time_range`, optionally of one DAG and of one user's runs."""
        span, scope = parse_time_range(time_range), Scope(who.visible, dag_id, user_id)

        def read(connection: Connection) -> ErrorDistribution:
            window = figures.open_window(connection, span, bucket_width(span))
            rows = figures.error_groups(connection, window, scope)
            total = next(row for row in rows if row["kind"] == "total")
            return ErrorDistribution(
                **_range(time_range, window),
                total=total["count"],
                recovered=total["recovered"],
                unrecovered=total["count"] - total["recovered"],
                latest=total["latest"],
                by_category=_groups(rows, "category", total["count"]),
                by_agent=_groups(rows, "agent", total["count"]),
                by_dag=_groups(rows, "dag", total["count"]),
                bucket_seconds=int(window.bucket.total_seconds()),
                time_series=[
                    ErrorBucket.model_validate(dict(row)) for row in figures.error_series(connection, window, scope)
                ],
            )

        return await self._database.run(read)


def _range(time_range: str, window: Window) -> dict[str, Any]:
    return {"time_range": time_range, "since": window.since, "until": window.until}


def _dag(row: RowMapping) -> DagMetrics:
    return DagMetrics(
        dag_id=row["dag_id"],
        **{name: row[name] for name in ("total", "finished", "success", "failed", "cancelled")},
        success_rate=_rate(row["success"], row["finished"]),
        **_percentiles(row["duration"], "duration_p50", "duration_p95"),
        **_usage(row),
    )


def _agent(row: RowMapping) -> AgentMetrics:
    return AgentMetrics(
        agent=row["agent_name"],
        type=row["agent_type"],
        model=row["model"],
        **{name: row[name] for name in ("runs", "finished", "success", "failed", "cancelled")},
        retries=row["retries"],
        fallbacks=row["fallbacks"],
        success_rate=_rate(row["success"], row["finished"]),
        latency_ms=Latency(**_percentiles(row["latency"], "p50", "p95", "p99")),
        **_usage(row),
    )


def _groups(rows: Sequence[RowMapping], kind: str, total: int) -> list[ErrorGroup]:
    return [
        ErrorGroup(
            name=row["name"],
            count=row["count"],
            share=row["count"] / total,
            recovered=row["recovered"],
            unrecovered=row["count"] - row["recovered"],
            latest=row["latest"],
        )
        for row in rows
        if row["kind"] == kind
    ][: figures.MAX_GROUPS]


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _percentiles(values: Sequence[float] | None, *names: str) -> dict[str, float | None]:
    """The percentiles by name. The database returns null if there were no values."""
    return dict(zip(names, values, strict=True)) if values else dict.fromkeys(names)


def _usage(row: RowMapping) -> dict[str, Any]:
    return {name: row[name] for name in ("input_tokens", "output_tokens", "cost_usd")}
