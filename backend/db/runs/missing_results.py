"""Runs that succeeded although what their agents returned was not recorded: the database was away for too long."""

from sqlalchemy import Connection, text

from backend.db.rows import Row, all_rows
from backend.db.runs import executions, results
from backend.db.runs.results import TaskResult

_FIND = text(
    """
    (SELECT e.id::text, e.dag_id, e.dag_run_id, t.task_id, t.map_index
    FROM visual_ai.workflow_executions e
    CROSS JOIN LATERAL (
        SELECT task_id, map_index FROM visual_ai.agent_traces t
        WHERE t.execution_id = e.id AND t.node IS NULL ORDER BY t.started_at DESC LIMIT 1
    ) t
    WHERE e.state = 'success' AND e.output_data IS NULL AND e.result_task IS NULL
        AND e.finished_at BETWEEN clock_timestamp() - make_interval(secs => :within)
            AND clock_timestamp() - make_interval(secs => :after)
    ORDER BY e.finished_at LIMIT :limit)
    UNION ALL
    -- Instances of a mapped task. A subquery for each: as a join it would cost the square of their number.
    (SELECT e.id::text, e.dag_id, e.dag_run_id, t.task_id, t.map_index
    FROM visual_ai.workflow_executions e
    JOIN visual_ai.workflow_tasks t ON t.execution_id = e.id AND t.task_id = e.result_task
    WHERE e.state = 'success' AND e.result_task IS NOT NULL
        AND e.finished_at BETWEEN clock_timestamp() - make_interval(secs => :mapped_within)
            AND clock_timestamp() - make_interval(secs => :after)
        AND t.state = 'success' AND t.map_index >= 0
        AND (SELECT r.map_index FROM visual_ai.mapped_results r
            WHERE r.execution_id = t.execution_id AND r.task_id = t.task_id AND r.map_index = t.map_index) IS NULL
    LIMIT :limit)
    """
)
_IS_MISSING = text(
    """
    SELECT FROM visual_ai.workflow_executions e
    WHERE e.id = CAST(:execution_id AS uuid) AND e.output_data IS NULL AND coalesce(e.result_task, :task_id) = :task_id
        AND NOT EXISTS (
            SELECT FROM visual_ai.mapped_results r
            WHERE r.execution_id = e.id AND r.task_id = :task_id AND r.map_index = :map_index)
    """
)


def find(connection: Connection, *, after: float, within: float, mapped_within: float, limit: int) -> list[Row]:
    """Task instances whose result is missing in runs that ended more than `after` seconds ago: the last agent's, where
    the run has no result at all, and those of a mapped last task. At most `limit` of both."""
    values = {"after": after, "within": within, "mapped_within": mapped_within, "limit": limit}
    return all_rows(connection.execute(_FIND, values))


def restore(connection: Connection, result: TaskResult) -> None:
    """Set the run's result, or that of an instance of its mapped task, unless it has one by now."""
    executions.lock(connection, [result.execution_id])
    where = {name: getattr(result, name) for name in ("execution_id", "task_id", "map_index")}
    if connection.execute(_IS_MISSING, where).first() is not None:
        results.record(connection, [result])
