"""Tasks, agents and errors of a run in pages: what matters most comes first, and what was read last says where the next
page begins.

* Tasks: failed and active ones before queued ones before the rest, each by task and map index.
* Agents before their nodes, each newest first.
* Errors: newest first.

A page is limited in rows and in bytes of JSON text. Both limits apply in the database, so that a run of 10,000 mapped
tasks costs the backend no more than one of 500.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, TextClause, text

from backend.db.rows import Row, all_rows
from backend.db.runs.traces import SHOWN_ITEMS

PAGE_BYTES = 200_000
"""Bytes of JSON text of a page, unless its first row is longer."""

Position = tuple[Any, ...]
"""What identifies the last row of a page in the order of its list."""


@dataclass(frozen=True, slots=True)
class Part:
    """A page of a list. `bytes` is about the size of its JSON text, and `next` is None on the last page."""

    rows: Sequence[Row]
    bytes: int
    next: Position | None


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Which rows of a run are wanted; None means all. Errors have no `state`."""

    task_id: str | None = None
    map_index: int | None = None
    state: str | None = None


ALL = RowFilter()

_WANTED = """
    t.execution_id = CAST(:execution_id AS uuid)
    AND (CAST(:task_id AS text) IS NULL OR t.task_id = :task_id)
    AND (CAST(:map_index AS integer) IS NULL OR t.map_index = :map_index)
"""
_IN_STATE = "AND (CAST(:state AS text) IS NULL OR t.state = :state)"

# Without Airflow's placeholder of a mapped task, which remains when its instances have replaced it.
_TASKS = f"""
    FROM visual_ai.workflow_tasks t
    WHERE {_WANTED} {_IN_STATE} AND NOT (t.map_index = -1 AND EXISTS (
        SELECT FROM visual_ai.workflow_tasks m
        WHERE m.execution_id = t.execution_id AND m.task_id = t.task_id AND m.map_index >= 0))
"""
# Of batches the first items only, which are also those that the stream reports.
_AGENTS = f"""
    FROM visual_ai.agent_traces t
    WHERE {_WANTED} {_IN_STATE} AND (t.item_index IS NULL OR t.item_index < {SHOWN_ITEMS})
"""
_ERRORS = f"FROM visual_ai.workflow_errors t WHERE {_WANTED}"  # no input in it


def _page(candidates: str, order: str, size: str) -> TextClause:
    """The statement that reads a page of `candidates`, one row more than wanted, of which each has a `size` in JSON."""
    return text(
        f"""
        SELECT * FROM (
            SELECT c.*, row_number() OVER w AS number, sum({size}) OVER w AS spent, count(*) OVER () AS candidates
            FROM ({candidates}) c WINDOW w AS (ORDER BY {order})
        ) numbered
        WHERE number <= :limit AND (spent <= :max_bytes OR number = 1) ORDER BY number
        """  # noqa: S608
    )


_RANK = """
    CASE WHEN t.state IN ('failed', 'running', 'deferred', 'awaiting_input', 'restarting', 'up_for_retry',
        'up_for_reschedule') THEN 0 WHEN t.state IN ('upstream_failed', 'queued', 'scheduled') THEN 1 ELSE 2 END
"""
_READ_TASKS = _page(
    f"""
    SELECT * FROM (
        SELECT t.task_id, t.map_index, t.try_number, t.state, t.started_at, t.finished_at, t.duration, {_RANK} AS rank
        {_TASKS}
    ) ranked
    WHERE CAST(:rank AS integer) IS NULL OR (rank, task_id, map_index) > (:rank, :last_task, :last_index)
    ORDER BY rank, task_id, map_index LIMIT :limit + 1
    """,  # noqa: S608
    "rank, task_id, map_index",
    "220 + octet_length(task_id)",
)

_AGENT = ", ".join(
    f"t.{name}"
    for name in (
        "id", "task_id", "map_index", "try_number", "agent_name", "agent_type", "item_index", "node", "state", "model",
        "started_at", "input_tokens", "output_tokens", "cost_usd", "latency_ms", "attempt", "retries", "fallbacks",
        "notice", "trace_url",
    )
)  # fmt: skip


def _newest(level: int, condition: str, columns: str, rows: str, moment: str) -> str:
    return f"""(
        SELECT {columns}, {level} AS level {rows} AND {condition}
            AND (CAST(:level AS integer) IS NULL OR :level < {level}
                OR (:level = {level} AND (t.{moment}, t.id) < (CAST(:moment AS timestamptz), CAST(:id AS uuid))))
        ORDER BY t.{moment} DESC, t.id DESC LIMIT :limit + 1
    )"""


_READ_AGENTS = _page(
    f"""
    {_newest(0, "t.node IS NULL", _AGENT, _AGENTS, "started_at")}
    UNION ALL
    {_newest(1, "t.node IS NOT NULL", _AGENT, _AGENTS, "started_at")}
    ORDER BY level, started_at DESC, id DESC LIMIT :limit + 1
    """,
    "level, started_at DESC, id DESC",
    """380 + coalesce(octet_length(to_json(notice)::text), 0)
        + octet_length(concat(task_id, agent_name, agent_type, node, model, trace_url))""",
)
_READ_ERRORS = _page(
    _newest(0, "true", "t.*", _ERRORS, "occurred_at"),
    "occurred_at DESC, id DESC",
    "450 + octet_length(to_json(message)::text) + octet_length(context::text)",
)
_COUNT_MAPPED = text(
    """
    SELECT task_id, state, count(*) AS count FROM visual_ai.workflow_tasks
    WHERE execution_id = CAST(:execution_id AS uuid) AND map_index >= 0
    GROUP BY task_id, state ORDER BY task_id, state LIMIT 200
    """
)


@dataclass(frozen=True, slots=True)
class RunList:
    """One kind of rows that a run has."""

    read: TextClause
    count_all: TextClause
    key: tuple[str, ...]
    """The columns of a `Position`."""
    parameters: tuple[str, ...]
    """What the statement calls them."""

    def page(
        self,
        connection: Connection,
        execution_id: str,
        *,
        limit: int,
        wanted: RowFilter = ALL,
        after: Position | None = None,
        max_bytes: int = PAGE_BYTES,
    ) -> Part:
        """The rows after a position, from the first by default."""
        last = dict(zip(self.parameters, after or (None,) * len(self.key), strict=True))
        limits = {"limit": limit, "max_bytes": max_bytes}
        rows = all_rows(connection.execute(self.read, {**_of(execution_id, wanted), **last, **limits}))
        if not rows:
            return Part((), 0, None)
        end = rows[-1]
        more = end["candidates"] > end["number"]
        return Part(rows, int(end["spent"]), tuple(end[name] for name in self.key) if more else None)

    def count(self, connection: Connection, execution_id: str, wanted: RowFilter = ALL) -> int:
        """How many rows there are on all pages."""
        return int(connection.execute(self.count_all, _of(execution_id, wanted)).scalar_one())


def _count(rows: str) -> TextClause:
    return text(f"SELECT count(*) {rows}")


TASKS = RunList(_READ_TASKS, _count(_TASKS), ("rank", "task_id", "map_index"), ("rank", "last_task", "last_index"))
"""Task instances as last observed."""
AGENTS = RunList(_READ_AGENTS, _count(_AGENTS), ("level", "started_at", "id"), ("level", "moment", "id"))
"""Agents (`level` 0) and their nodes (1), without inputs and outputs."""
ERRORS = RunList(_READ_ERRORS, _count(_ERRORS), ("level", "occurred_at", "id"), ("level", "moment", "id"))
"""Errors; their `level` is 0."""


def count_mapped(connection: Connection, execution_id: str) -> list[Row]:
    """How many instances of each mapped task are in which state: `task_id`, `state`, `count`."""
    return all_rows(connection.execute(_COUNT_MAPPED, {"execution_id": execution_id}))


def _of(execution_id: str, wanted: RowFilter) -> dict[str, Any]:
    return {
        "execution_id": execution_id,
        "task_id": wanted.task_id,
        "map_index": wanted.map_index,
        "state": wanted.state,
    }
