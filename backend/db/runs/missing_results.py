"""Runs that succeeded although what their agents returned was not recorded: the database was away for too long."""

from typing import Any

from sqlalchemy import Connection, text

from backend.db.rows import Row, all_rows
from backend.db.runs import executions

_FIND = text(
    """
    SELECT e.id::text, e.dag_id, e.dag_run_id, t.task_id, t.map_index
    FROM visual_ai.workflow_executions e
    CROSS JOIN LATERAL (
        SELECT task_id, map_index FROM visual_ai.agent_traces t
        WHERE t.execution_id = e.id AND t.node IS NULL ORDER BY t.started_at DESC LIMIT 1
    ) t
    WHERE e.state = 'success' AND e.output_data IS NULL
        AND e.finished_at BETWEEN clock_timestamp() - make_interval(secs => :within)
            AND clock_timestamp() - make_interval(secs => :after)
    ORDER BY e.finished_at LIMIT :limit
    """
)


def find(connection: Connection, *, after: float, within: float, limit: int) -> list[Row]:
    """Such runs that ended between `within` and `after` seconds ago, each with its last agent's `task_id` and
    `map_index`, oldest first."""
    return all_rows(connection.execute(_FIND, {"after": after, "within": within, "limit": limit}))


def restore(connection: Connection, execution_id: str, result: dict[str, Any]) -> None:
    """Set the run's result, unless it has one by now."""
    run = executions.read(connection, execution_id, lock=True)
    if run["output_data"] is None:
        executions.set_results(connection, {execution_id: result})
