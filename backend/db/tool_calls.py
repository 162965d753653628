"""Agents' tool calls: claimed before they are made, so that no try repeats one without knowing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from backend.db.rows import Row, all_rows, first_row
from backend.db.runs.threads import Claim, held, superseded
from backend.db.runs.traces import Place
from backend.db.tables import tool_calls as calls


@dataclass(frozen=True, slots=True)
class CallKey:
    """One attempt at a call, in a LangGraph thread."""

    thread_id: str
    place: str
    attempt: int


def claim(
    connection: Connection,
    execution_id: str,
    place: Place,
    held_by: Claim,
    key: CallKey,
    claimant: str,
    about: Mapping[str, Any],
) -> Row:
    """Begin an attempt, unless it was begun before; returns its row, with the first one's `claimant`.

    `about` has `call_id`, `agent`, `tool` and `arguments`. Raises `SupersededError` when another try holds the task's
    thread (a retry doesn't help).
    """
    if not held(connection, [held_by]):
        raise superseded(held_by)
    row = {
        "execution_id": execution_id,
        "task_id": place.task_id,
        "map_index": place.map_index,
        "try_number": place.try_number,
        "thread_id": key.thread_id,
        "place": key.place,
        "attempt": key.attempt,
        "claimant": claimant,
        **about,
    }
    begin = insert(calls).values(row)
    again = begin.on_conflict_do_update(
        index_elements=[calls.c.thread_id, calls.c.place, calls.c.attempt],
        set_={
            "try_number": begin.excluded.try_number,
            "claimant": begin.excluded.claimant,
            "claimed_at": func.clock_timestamp(),
            "state": "begun",
        },
        where=calls.c.state == "released",
    )
    found = first_row(connection.execute(again.returning(calls)))
    if found is None:
        found = first_row(connection.execute(select(calls).where(_is(key))))
    assert found is not None  # noqa: S101  # it conflicts with this row only
    return found


def finish(connection: Connection, key: CallKey, *, failed: bool, result: Any) -> None:
    """Record what came of an attempt."""
    values = {"finished_at": func.clock_timestamp(), "state": "failed" if failed else "success", "result": result}
    connection.execute(update(calls).where(_is(key), calls.c.finished_at.is_(None)).values(values))


def release(connection: Connection, key: CallKey) -> None:
    """The attempt has not begun after all."""
    connection.execute(update(calls).where(_is(key), calls.c.finished_at.is_(None)).values(state="released"))


def list_page(
    connection: Connection,
    execution_id: str,
    *,
    state: str | None,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[Row]:
    """A run's calls, the oldest first. `after` is the time and `claimant` of the last one of the page before."""
    wanted = select(calls).where(calls.c.execution_id == execution_id, calls.c.state != "released")
    query = wanted.order_by(calls.c.claimed_at, calls.c.claimant)
    if state is not None:
        query = query.where(calls.c.state == state)
    if after is not None:
        last = tuple_(literal(after[0]), literal(after[1], calls.c.claimant.type))
        query = query.where(tuple_(calls.c.claimed_at, calls.c.claimant) > last)
    return all_rows(connection.execute(query.limit(limit)))


def _is(key: CallKey) -> ColumnElement[bool]:
    return and_(calls.c.thread_id == key.thread_id, calls.c.place == key.place, calls.c.attempt == key.attempt)
