"""Closes agents whose task has ended, but whose own end was never recorded.

That happens when a process was killed on its last try, or when its last records could not be written because the
database was away for longer than they were kept. Nobody else would close them: no further try begins.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from backend.core.events import NewEvent
from backend.core.states import TERMINAL_RUN_STATES, TERMINAL_TASK_STATES
from backend.db.rows import all_rows
from backend.db.runs import events, executions, traces
from backend.db.runs.traces import SHOWN_ITEMS

GRACE_SECONDS = 90
"""Records of a task may arrive this long after its end: a writer waits about a minute for the database."""

LIMIT = 100
"""The executions that one call closes agents of."""

NOTICE = "Its end was not recorded. Tokens and cost may be missing."

# Written once for both statements: agents that are open although their task, or the whole run, has ended.
_LEFT = """
    visual_ai.agent_traces t
    JOIN visual_ai.workflow_executions e ON e.id = t.execution_id
    LEFT JOIN visual_ai.workflow_tasks w
        ON w.execution_id = t.execution_id AND w.task_id = t.task_id AND w.map_index = t.map_index
    WHERE t.state = 'running' AND (
        e.state = ANY(:ended_runs) AND e.updated_at < clock_timestamp() - make_interval(secs => :grace)
        OR w.state = ANY(:ended_tasks) AND w.try_number >= t.try_number
            AND w.updated_at < clock_timestamp() - make_interval(secs => :grace))
"""
_FIND = text(f"SELECT DISTINCT t.execution_id::text FROM {_LEFT} LIMIT :limit")  # noqa: S608  # no input in it
_CLOSE = text(
    f"""
    WITH found AS (
        SELECT t.id, w.try_number = t.try_number AND w.state = 'success' AS succeeded,
            coalesce(w.finished_at, e.finished_at, clock_timestamp()) AS finished_at
        FROM {_LEFT} AND t.execution_id = CAST(:execution_id AS uuid)
    )
    UPDATE visual_ai.agent_traces t
    SET state = CASE WHEN found.succeeded THEN 'success' ELSE 'cancelled' END,
        finished_at = greatest(found.finished_at, t.started_at),
        notice = coalesce(t.notice, :notice)
    FROM found WHERE t.id = found.id
    RETURNING t.id, t.task_id, t.map_index, t.try_number, t.agent_name, t.agent_type, t.item_index, t.node, t.state,
        t.model, t.started_at, t.latency_ms, t.input_tokens, t.output_tokens, t.cost_usd, t.attempt, t.retries,
        t.fallbacks, t.notice, t.trace_url
    """  # noqa: S608
)


def find(connection: Connection) -> Sequence[str]:
    """The ids of executions with agents to close, at most `LIMIT`."""
    return list(connection.execute(_FIND, {**_values(), "limit": LIMIT}).scalars())


def close(connection: Connection, execution_id: str) -> int:
    """Close the agents that were left open; returns their number. While the run is active its timeline reports it."""
    run = executions.read(connection, execution_id, lock=True)
    closed = all_rows(connection.execute(_CLOSE, {**_values(), "notice": NOTICE, "execution_id": execution_id}))
    shown = [row for row in closed if row["item_index"] is None or row["item_index"] < SHOWN_ITEMS]
    if shown and run["state"] not in TERMINAL_RUN_STATES:
        ordered = sorted(shown, key=lambda row: row["started_at"])
        events.append(connection, execution_id, [NewEvent("agent_update", traces.payload(row)) for row in ordered])
    return len(closed)


def _values() -> dict[str, object]:
    return {
        "ended_runs": sorted(TERMINAL_RUN_STATES),
        "ended_tasks": sorted(TERMINAL_TASK_STATES),
        "grace": GRACE_SECONDS,
    }
