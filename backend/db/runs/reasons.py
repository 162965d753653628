"""Why runs failed: the error that decided it, or an explanation that was added after the run had ended.

Most failed runs have recorded the error that made a task fail. The others were ended by something that no agent could
record: somebody in Airflow, a timeout of the DAG, a lost machine. What ended them is read from Airflow after the end
(`services/recording/explanations.py`) and added as one more error, whose context has the key `explained`.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, select, text, update

from backend.core.jsonable import storable
from backend.core.redaction import redact_text
from backend.db.rows import Row, all_rows
from backend.db.tables import workflow_executions as executions

EXPLAINED = "explained"
"""The key in the context of an error that was added to explain why the run ended."""

REASON_LIMIT = 1_000
"""The maximum length of a reason, in characters."""

_PLAIN = {
    "AirflowTaskTimeout": "it took longer than its execution_timeout.",
    "AirflowSensorTimeout": "its sensor waited longer than its timeout.",
}
"""What exceptions of Airflow mean whose own words don't say so."""

# An error decides when the task, in the try that failed, met it last. An error of a task that went on to succeed, or
# of an agent that was stopped because its task was, does not.
_DECIDING = text(
    """
    SELECT DISTINCT ON (e.execution_id) e.*
    FROM visual_ai.workflow_errors e
    JOIN visual_ai.workflow_executions x ON x.id = e.execution_id
    LEFT JOIN visual_ai.workflow_tasks t
        ON t.execution_id = e.execution_id AND t.task_id = e.task_id AND t.map_index = e.map_index
    WHERE e.execution_id = ANY(CAST(:ids AS uuid[])) AND NOT e.recovered
        AND (x.attempt = 1 OR x.started_at IS NULL OR e.occurred_at >= x.started_at)
        AND (e.context ? :explained OR (
            e.action IN ('fail', 'task_retry') AND e.category <> 'cancelled'
            AND (t.task_id IS NULL OR (t.state = 'failed' AND t.try_number = e.try_number))))
    ORDER BY e.execution_id, e.context ? :explained DESC, e.action = 'fail' DESC, e.item_index IS NULL DESC,
        e.occurred_at DESC
    """
)


def deciding_errors(connection: Connection, execution_ids: Iterable[str]) -> dict[str, Row]:
    """For each failed run, by its execution's id, the recorded error that made it fail, if there is one."""
    ids = list(execution_ids)
    if not ids:
        return {}
    found = connection.execute(_DECIDING, {"ids": ids, "explained": EXPLAINED})
    return {str(row["execution_id"]): row for row in all_rows(found)}


def words(error: Mapping[str, Any]) -> str:
    """The reason that an error is, in a sentence."""
    if EXPLAINED in error["context"]:
        return str(error["message"])
    task = error["task_id"]
    if task is not None and error["map_index"] >= 0:
        task = f"{task}[{error['map_index']}]"
    place = f"Task {task!r} failed: " if task is not None else ""
    agent = f"agent {error['agent_name']!r}: " if error["agent_name"] is not None else ""
    kind = error["exception_type"].rpartition(".")[2]
    what = _PLAIN.get(kind) or f"{kind}: {error['message']}"
    return redact_text(f"{place}{agent}{what}", limit=REASON_LIMIT)


# With literals, so that the partial index applies.
_UNEXPLAINED = text(
    """
    SELECT id::text, dag_id, dag_run_id, state, attempt, queued_at, clock_timestamp() AS now,
        finished_at <= clock_timestamp() - CAST(:after AS interval) AS settled
    FROM visual_ai.workflow_executions
    WHERE reason IS NULL AND state IN ('failed', 'cancelled') AND cancel_requested_at IS NULL
        AND finished_at >= clock_timestamp() - CAST(:within AS interval)
    ORDER BY finished_at DESC LIMIT :limit
    """
)


def list_unexplained(connection: Connection, *, after: timedelta, within: timedelta, limit: int) -> list[Row]:
    """Runs that ended at most `within` ago without a known reason, the last ones first.

    They failed, or Airflow no longer has them. `settled`: they ended at least `after` ago. `now` is the time of the
    reading, by the database's clock.
    """
    return all_rows(connection.execute(_UNEXPLAINED, {"after": after, "within": within, "limit": limit}))


def lock_unexplained(connection: Connection, execution_id: str, attempt: int) -> bool:
    """Lock the execution; returns whether this attempt at the run is still the last one and unexplained."""
    query = (
        select(executions.c.id)
        .where(
            executions.c.id == execution_id,
            executions.c.attempt == attempt,
            executions.c.reason.is_(None),
            executions.c.state.in_(("failed", "cancelled")),
        )
        .with_for_update(key_share=True)
    )
    return connection.execute(query).first() is not None


def set_reason(connection: Connection, execution_id: str, reason: str) -> None:
    """Store why the run ended."""
    kept = storable(redact_text(reason, limit=REASON_LIMIT))
    connection.execute(update(executions).where(executions.c.id == execution_id).values(reason=kept))
