"""A run's current state as one document of at most 256 KB. Of what a large run has more, it has the first page.

Input and result have at most 32 KB each, and stand there by reference beyond. Tasks, agents and errors share the rest.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from backend.core.problems import NotFound
from backend.core.states import TaskState
from backend.db import questions
from backend.db.rows import Row
from backend.db.runs import errors, executions, pages, results, traces
from backend.db.runs.pages import Part, Position, RowFilter, RunList
from backend.services.runs.page_cursor import (
    decode_row_cursor,
    decode_task_cursor,
    encode_row_cursor,
    encode_task_cursor,
)

NOT_FOUND = "There is no such run, or it is not yours."

_BYTES = 180_000
"""Bytes of JSON for tasks, agents and errors: 256 KB without input, result and the run's own fields."""

_TASKS, _TASK_BYTES = 400, 80_000
_ERRORS, _ERROR_BYTES = 200, 48_000
_AGENTS = 600
_QUESTIONS = 20


ListKind = Literal["tasks", "agents", "errors"]


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of tasks, agents or errors, as events show them, how many there are in all, and the next page's cursor."""

    items: list[dict[str, Any]]
    total: int
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An execution's current row, input, result, tasks, agents (oldest first) and errors (newest first).

    `row["last_seq"]` is the last event that it includes. `mapped` counts the instances of each mapped task by state.
    """

    row: Row
    input_data: Any
    result: Any
    tasks: Listed
    agents: Listed
    errors: Listed
    mapped: dict[str, dict[str, int]]
    questions: list[dict[str, Any]]
    """The first of the open questions, as events show them."""


def read_snapshot(connection: Connection, dag_id: str, dag_run_id: str, execution_id: str) -> Snapshot:
    """Read a run's current state. Raises `NotFound` when it has been deleted."""
    # The row first: what is read after it must not be older than its cursor.
    row = executions.get(connection, dag_id, dag_run_id)
    if row is None:
        raise NotFound(NOT_FOUND)
    mapped: dict[str, dict[str, int]] = {}
    for group in pages.count_mapped(connection, execution_id):
        mapped.setdefault(group["task_id"], {})[group["state"] or "none"] = group["count"]
    faults = pages.ERRORS.page(connection, execution_id, limit=_ERRORS, max_bytes=_ERROR_BYTES)
    tasks = pages.TASKS.page(connection, execution_id, limit=_TASKS, max_bytes=_TASK_BYTES)
    left = _BYTES - faults.bytes - tasks.bytes - sum(len(task_id) + 100 for task_id in mapped)
    agents = pages.AGENTS.page(connection, execution_id, limit=_AGENTS, max_bytes=left)
    waits = any(task["state"] == "awaiting_input" for task in tasks.rows)
    asked = questions.open_of_run(connection, execution_id, _QUESTIONS) if waits else ()
    return Snapshot(
        row,
        results.shown_input(row),
        results.shown(connection, row),
        _first(connection, execution_id, "tasks", tasks, _by_start(tasks.rows, "task_id", "map_index")),
        _first(connection, execution_id, "agents", agents, _by_start(agents.rows, "level")),
        _first(connection, execution_id, "errors", faults, faults.rows),
        mapped,
        [questions.question_payload(question) for question in asked],
    )


def read_list(
    connection: Connection, execution_id: str, kind: ListKind, wanted: RowFilter, after: Position | None, limit: int
) -> Listed:
    """A page of the run's tasks, agents or errors, in the order of `pages`."""
    part = _LISTS[kind].page(connection, execution_id, limit=limit, wanted=wanted, after=after)
    return _listed(kind, part, part.rows, _LISTS[kind].count(connection, execution_id, wanted))


def decode_list_cursor(kind: ListKind, cursor: str) -> Position:
    """The position that a page follows. Raises `Invalid`."""
    return decode_task_cursor(cursor) if kind == "tasks" else decode_row_cursor(cursor)


_LISTS: dict[ListKind, RunList] = {"tasks": pages.TASKS, "agents": pages.AGENTS, "errors": pages.ERRORS}
_PAYLOAD: dict[ListKind, Callable[[Row], dict[str, Any]]] = {
    "tasks": lambda row: TaskState(*(row[name] for name in TaskState.__slots__)).payload(),
    "agents": traces.payload,
    "errors": errors.payload,
}


def _first(connection: Connection, execution_id: str, kind: ListKind, part: Part, rows: Iterable[Row]) -> Listed:
    total = len(part.rows) if part.next is None else _LISTS[kind].count(connection, execution_id)
    return _listed(kind, part, rows, total)


def _listed(kind: ListKind, part: Part, rows: Iterable[Row], total: int) -> Listed:
    encode = encode_task_cursor if kind == "tasks" else encode_row_cursor
    cursor = encode(part.next) if part.next is not None else None
    return Listed([_PAYLOAD[kind](row) for row in rows], total, cursor)


def _by_start(rows: Iterable[Row], *then: str) -> list[Row]:
    """The rows in the order in which they started, and those that have not last; `then` orders what is equal."""
    ordered = sorted(rows, key=lambda row: [row[name] for name in then])
    started = sorted((row for row in ordered if row["started_at"] is not None), key=lambda row: row["started_at"])
    return [*started, *(row for row in ordered if row["started_at"] is None)]
