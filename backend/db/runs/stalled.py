"""Runs that have not ended, and in which nothing happens."""

from collections.abc import Mapping

from sqlalchemy import Connection, text

from backend.core.jsonable import dumps
from backend.db.rows import Row, all_rows

# Tasks in these states are at work, or wait for something that they themselves have asked for.
_BUSY = """
    EXISTS (
        SELECT FROM visual_ai.workflow_tasks w WHERE w.execution_id = e.id
            AND w.state IN ('running', 'restarting', 'awaiting_input', 'up_for_retry', 'up_for_reschedule'))
"""
_FIND = text(
    f"""
    SELECT e.id::text, e.dag_id, e.dag_run_id, e.state, e.waits_for,
        (SELECT count(*) FROM visual_ai.workflow_executions r
            WHERE r.dag_id = e.dag_id AND r.state IN ('running', 'awaiting_input')) AS running,
        EXISTS (
            SELECT FROM visual_ai.workflow_tasks w WHERE w.execution_id = e.id AND w.state = 'deferred') AS deferred
    FROM visual_ai.workflow_executions e
    WHERE e.state IN ('queued', 'running') AND NOT {_BUSY}
        AND e.updated_at < clock_timestamp() - make_interval(secs => :after)
    ORDER BY deferred, e.queued_at LIMIT :limit
    """  # noqa: S608  # no input in it
)
_CLEAR = text(
    f"""
    UPDATE visual_ai.workflow_executions e SET waits_for = NULL
    WHERE e.waits_for IS NOT NULL AND e.state IN ('queued', 'running', 'awaiting_input') AND {_BUSY}
    """  # noqa: S608
)
_SET = text(
    """
    UPDATE visual_ai.workflow_executions e SET waits_for = found.waits_for
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS found (id uuid, waits_for text)
    WHERE e.id = found.id AND e.state IN ('queued', 'running')
    """
)


def find(connection: Connection, *, after: float, limit: int) -> list[Row]:
    """Active runs in which nothing has changed for `after` seconds, each with the number of its DAG's `running` runs.

    Those with a `deferred` task, which mostly wait for a model, come last. What others waited for, which go on by now,
    is forgotten.
    """
    connection.execute(_CLEAR)
    return all_rows(connection.execute(_FIND, {"after": after, "limit": limit}))


def set_causes(connection: Connection, causes: Mapping[str, str | None]) -> None:
    """Store what runs wait for, by the executions' ids."""
    rows = [{"id": execution_id, "waits_for": cause} for execution_id, cause in causes.items()]
    connection.execute(_SET, {"rows": dumps(rows)})
