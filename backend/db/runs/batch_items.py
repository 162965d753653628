"""Items of batches: the outcome of each input, so that a retry runs only what is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from sqlalchemy import ColumnElement, Connection, Text, and_, case, cast, func, select, text, update

from backend.core.jsonable import dumps
from backend.core.redaction import redact_text
from backend.db.rows import Row, all_rows
from backend.db.runs.run_payload import EXCERPT_CHARACTERS, WHOLE_BYTES, reference
from backend.db.runs.threads import Claim, held, superseded
from backend.db.runs.traces import Place
from backend.db.tables import batch_items as items

ERROR_LIMIT = 2_000
"""Longest stored error of an item, in characters."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many items of a batch have succeeded and failed, and the size of their outputs in bytes of JSON text."""

    succeeded: int
    failed: int
    output_bytes: int


PAGE_BYTES = 200_000
"""Bytes of JSON of a page of the API, unless its first item is longer."""

CONVERTED_BYTES = 32 * 2**20
"""Bytes of outputs that a page only refers to, unless its first output is larger."""

_AT_A_TIME = 20


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Items as the API shows them, and the index after which the next page begins; None on the last page."""

    items: list[dict[str, Any]]
    next_after: int | None


_WRITE = text(
    """
    INSERT INTO visual_ai.batch_items (
        execution_id, task_id, map_index, item_index, try_number, state, output, error, category, model, input_tokens,
        output_tokens, cost_usd, latency_ms, trace_id, trace_url)
    SELECT
        CAST(:execution_id AS uuid), :task_id, :map_index, item_index, :try_number, state, output, error, category,
        model, input_tokens, output_tokens, cost_usd, latency_ms, trace_id, trace_url
    FROM jsonb_populate_recordset(CAST(NULL AS visual_ai.batch_items), CAST(:rows AS jsonb))
    ON CONFLICT (execution_id, task_id, map_index, item_index) DO UPDATE SET
        try_number = excluded.try_number, state = excluded.state, output = excluded.output, error = excluded.error,
        category = excluded.category, model = excluded.model, input_tokens = excluded.input_tokens,
        output_tokens = excluded.output_tokens, cost_usd = excluded.cost_usd, latency_ms = excluded.latency_ms,
        trace_id = excluded.trace_id, trace_url = excluded.trace_url, finished_at = clock_timestamp()
    """
)


def write(
    connection: Connection, execution_id: str, place: Place, claim: Claim, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write the outcomes of items in one statement; each row has the columns from `item_index` to `trace_url`.

    Raises `SupersededError` when the batch has been taken over (a retry doesn't help).
    """
    if not held(connection, [claim]):
        raise superseded(claim)
    kept = [{**row, "error": redact_text(row["error"], limit=ERROR_LIMIT) if row["error"] else None} for row in rows]
    connection.execute(
        _WRITE,
        {
            "execution_id": execution_id,
            "task_id": place.task_id,
            "map_index": place.map_index,
            "try_number": place.try_number,
            "rows": dumps(kept),
        },
    )


def supersede(connection: Connection, execution_id: str, place: Place) -> None:
    """Discard the outcomes of all items, because the batch starts from nothing."""
    discarded = {"state": "superseded", "output": None, "error": None}
    connection.execute(update(items).where(_of(execution_id, place)).values(discarded))


def done(connection: Connection, execution_id: str, place: Place) -> set[int]:
    """The indexes of the items that have succeeded."""
    query = select(items.c.item_index).where(_of(execution_id, place), items.c.state == "success")
    return set(connection.execute(query).scalars())


def count(connection: Connection, execution_id: str, place: Place) -> Counts:
    """Count the batch's items by outcome."""
    size = func.octet_length(func.coalesce(items.c.output, text("'null'::jsonb")).op("#>>")(text("'{}'")))
    row = connection.execute(
        select(
            func.count().filter(items.c.state == "success"),
            func.count().filter(items.c.state == "failed"),
            func.coalesce(func.sum(case((items.c.state == "success", size), else_=0)), 0),
        ).where(_of(execution_id, place))
    ).one()
    return Counts(int(row[0]), int(row[1]), int(row[2]))


def read_page(connection: Connection, execution_id: str, place: Place, *, after: int, limit: int) -> list[Row]:
    """Up to `limit` items after the index `after`, in order, without those of superseded tries."""
    query = (
        select(*(column for column in items.c if column.name not in ("execution_id", "task_id", "map_index")))
        .where(_of(execution_id, place), items.c.item_index > after, items.c.state != "superseded")
        .order_by(items.c.item_index)
        .limit(limit)
    )
    return all_rows(connection.execute(query))


_READ_SHOWN = text(
    """
    SELECT item_index, state, error, category, model, input_tokens, output_tokens, cost_usd, latency_ms, try_number,
        trace_id, trace_url, bytes, CASE WHEN bytes <= :whole_bytes THEN output END AS output,
        CASE WHEN bytes > :whole_bytes THEN left(whole, :characters) END AS excerpt,
        CASE WHEN bytes > :whole_bytes THEN encode(sha256(convert_to(whole, 'UTF8')), 'hex') END AS sha256
    FROM (
        SELECT b.*, b.output::text AS whole, octet_length(b.output::text) AS bytes FROM visual_ai.batch_items b
        WHERE execution_id = CAST(:execution_id AS uuid) AND task_id = :task_id AND map_index = :map_index
            AND item_index > :after AND state <> 'superseded'
        ORDER BY item_index LIMIT :limit OFFSET 0
    ) item
    ORDER BY item_index
    """
)


def read_shown(connection: Connection, execution_id: str, place: Place, *, after: int, limit: int) -> ItemPage:
    """Up to `limit` items after the index `after`, in order, as the API shows them: large outputs by reference.

    The page ends early at `PAGE_BYTES`, and at `CONVERTED_BYTES` of outputs that are only referred to.
    """
    values = {"execution_id": execution_id, "task_id": place.task_id, "map_index": place.map_index}
    limits = {"whole_bytes": WHOLE_BYTES, "characters": EXCERPT_CHARACTERS}
    shown: list[dict[str, Any]] = []
    spent = converted = 0
    while True:
        # A few at a time: PostgreSQL converts each output to find out how large it is.
        rows = all_rows(connection.execute(_READ_SHOWN, {**values, **limits, "after": after, "limit": _AT_A_TIME}))
        for row in rows:
            item = item_json(_by_reference(row, place))
            converted += row["bytes"] or 0
            spent += 400 + min(row["bytes"] or 0, WHOLE_BYTES) + len(dumps([row["excerpt"], row["error"]]).encode())
            over = spent > PAGE_BYTES or converted > CONVERTED_BYTES
            if len(shown) == limit or (over and shown):
                return ItemPage(shown, after)
            shown.append(item)
            after = row["item_index"]
        if len(rows) < _AT_A_TIME:
            return ItemPage(shown, None)


def output_url(place: Place, index: int) -> str:
    """The path under which the backend returns the whole output of an item."""
    parts = (place.dag_id, place.dag_run_id, "items", place.task_id, str(index), "output")
    mapped = f"?map_index={place.map_index}" if place.map_index >= 0 else ""
    return f"/workflow-status/{'/'.join(quote(part, safe='') for part in parts)}{mapped}"


def _by_reference(row: Row, place: Place) -> Row:
    if row["excerpt"] is None:
        return row
    url = output_url(place, row["item_index"])
    shown = reference(url, size=row["bytes"], excerpt=row["excerpt"], sha256=row["sha256"])
    return {**row, "output": shown}


def output_size(connection: Connection, execution_id: str, place: Place) -> int | None:
    """The size of the output of the place's item, in bytes of JSON text; None if it has none."""
    size = select(func.octet_length(cast(items.c.output, Text))).where(_has_output(execution_id, place))
    return connection.execute(size).scalar_one_or_none()


def read_output(connection: Connection, execution_id: str, place: Place) -> Any:
    """This output."""
    return connection.execute(select(items.c.output).where(_has_output(execution_id, place))).scalar_one_or_none()


_SHOWN = (
    "state", "output", "error", "category", "model", "input_tokens", "output_tokens", "cost_usd", "latency_ms",
    "try_number", "trace_id", "trace_url",
)  # fmt: skip


def item_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """An item as it appears in files and in the API."""
    cost = row["cost_usd"]
    shown = {"index": row["item_index"], **{name: row[name] for name in _SHOWN}}
    return {**shown, "cost_usd": float(cost) if cost is not None else None}


def with_checkpoints(connection: Connection, threads: Sequence[str]) -> set[str]:
    """Those of the LangGraph threads that have a checkpoint to resume from."""
    query = text("SELECT DISTINCT thread_id FROM visual_ai.checkpoints WHERE thread_id = ANY(:ids)")
    return set(connection.execute(query, {"ids": list(threads)}).scalars())


def _of(execution_id: str, place: Place) -> ColumnElement[bool]:
    return and_(
        items.c.execution_id == execution_id, items.c.task_id == place.task_id, items.c.map_index == place.map_index
    )


def _has_output(execution_id: str, place: Place) -> ColumnElement[bool]:
    return and_(
        _of(execution_id, place),
        items.c.item_index == place.item,
        items.c.try_number == place.try_number,
        items.c.state == "success",
    )
