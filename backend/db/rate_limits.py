"""The state of models' rate limits that all processes share: one versioned JSON document per model.

Run these functions with `Database.run_autocommit`: each statement commits by itself and leaves no lock behind, so a
process that hangs between two of them delays no other.
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from backend.core.ratelimit.state import KEPT_SECONDS, LimitState, Snapshot
from backend.db.rows import Row, all_rows, first_row
from backend.db.tables import model_limits as limits

_COLUMNS = (limits.c.model, limits.c.version, limits.c.state, func.clock_timestamp().label("now"))


def read(connection: Connection, model: str) -> Snapshot:
    """The state of a model."""
    row = first_row(connection.execute(select(*_COLUMNS).where(limits.c.model == model)))
    if row is not None:
        return _snapshot(row)
    return Snapshot(None, None, connection.execute(select(func.clock_timestamp())).scalar_one().timestamp())


def read_all(connection: Connection) -> dict[str, Snapshot]:
    """The state of each model that was called within the last month, by model."""
    recent = limits.c.active_at > func.clock_timestamp() - timedelta(seconds=KEPT_SECONDS)
    rows = all_rows(connection.execute(select(*_COLUMNS).where(recent).order_by(limits.c.model)))
    return {row["model"]: _snapshot(row) for row in rows}


def swap(connection: Connection, model: str, version: int | None, state: LimitState) -> tuple[bool, Snapshot]:
    """Replace the state of this version (None: there is none yet) by another one.

    Returns whether it was replaced, and the state that is stored now.
    """
    values = {"version": (version or 0) + 1, "state": state.as_json()}
    written: ReturningInsert[Any] | ReturningUpdate[Any]
    if version is None:
        written = insert(limits).values(model=model, **values).on_conflict_do_nothing().returning(*_COLUMNS)
    else:
        replaced = update(limits).where(limits.c.model == model, limits.c.version == version)
        written = replaced.values(**values).returning(*_COLUMNS)
    row = first_row(connection.execute(written))
    return (True, _snapshot(row)) if row is not None else (False, read(connection, model))


def _snapshot(row: Row) -> Snapshot:
    return Snapshot(LimitState.from_json(row["state"]), row["version"], row["now"].timestamp())
