"""The JSON text of inputs, results and outputs of batch items, to be read from any position without reading all of it.

PostgreSQL converts a jsonb value to text as a whole, 100 MB each time. So the text of a large value is cut into pieces
once, in the database, when somebody wants to download it, and the pieces are kept for an hour under the text's hash.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from sqlalchemy import Connection, text

from backend.db.runs import results
from backend.db.runs.run_payload import WHOLE_BYTES

PIECE = 262_144
"""Bytes of a piece at most."""

KEEP_SECONDS = 3600.0

Column = Literal["input_data", "output_data"]


@dataclass(frozen=True, slots=True)
class StoredText:
    """JSON text of `size` bytes. A short one is `whole`; otherwise it is that of the execution's `column`, the list of
    what the instances `first` to `last` of the mapped task `task_id` returned, the output of a batch's `item` (by task,
    map index and index), or a text that was given to `keep`."""

    execution_id: str
    size: int
    sha256: str
    whole: bytes | None = None
    column: Column | None = None
    task_id: str | None = None
    first: int = 0
    last: int = results.LAST_INDEX
    item: tuple[str, int, int] | None = None


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A run's state, and its result if there is one. `last` is the largest index of a mapped task."""

    state: str
    text: StoredText | None
    last: int | None = None


_FIND = {
    column: text(
        f"""
        SELECT state, result_task, {reference} ->> 'sha256' AS sha256, CAST({reference} ->> 'bytes' AS bigint) AS bytes,
            CASE WHEN {reference} IS NULL THEN {column}::text END AS whole
        FROM visual_ai.workflow_executions WHERE id = CAST(:id AS uuid)
        """  # noqa: S608  # no input in it
    )
    for column, reference in (("input_data", "input_reference"), ("output_data", "output_reference"))
}


def find_input(connection: Connection, execution_id: str) -> StoredText:
    """The run's input."""
    found = connection.execute(_FIND["input_data"], {"id": execution_id}).one()
    return _stored(execution_id, "input_data", found)


def find_result(connection: Connection, execution_id: str, *, after: int, limit: int | None) -> StoredResult:
    """The run's result; of a mapped task, the results after the map index `after`, at most `limit`."""
    found = connection.execute(_FIND["output_data"], {"id": execution_id}).one()
    if found.result_task is None:
        nothing = found.bytes is None and found.whole is None
        return StoredResult(found.state, None if nothing else _stored(execution_id, "output_data", found))
    first = after + 1
    last = results.LAST_INDEX if limit is None else min(after + limit, results.LAST_INDEX)
    listed = results.describe_list(connection, execution_id, found.result_task, first=first, last=last)
    whole = listed["beginning"].encode() if listed["size"] <= WHOLE_BYTES else None
    part = {"task_id": found.result_task, "first": first, "last": last}
    stored = StoredText(execution_id, listed["size"], listed["sha256"], whole, **part)
    return StoredResult(found.state, stored, listed["last"])


_ITEM = """
    FROM (
        SELECT coalesce(output, 'null')::text AS whole FROM visual_ai.batch_items
        WHERE execution_id = CAST(:execution_id AS uuid) AND task_id = :task_id AND map_index = :map_index
            AND item_index = :item_index AND state <> 'superseded' OFFSET 0
    ) item
"""
_FIND_ITEM = text(
    f"""
    SELECT octet_length(whole) AS bytes, encode(sha256(convert_to(whole, 'UTF8')), 'hex') AS sha256,
        CASE WHEN octet_length(whole) <= :whole_bytes THEN whole END AS whole
    {_ITEM}
    """  # no input in it
)


def find_item(
    connection: Connection, execution_id: str, task_id: str, map_index: int, item_index: int
) -> StoredText | None:
    """The output of an item of a batch; None if the item has not ended."""
    item = (task_id, map_index, item_index)
    found = connection.execute(_FIND_ITEM, {**_of_item(execution_id, item), "whole_bytes": WHOLE_BYTES}).one_or_none()
    if found is None:
        return None
    whole = found.whole.encode() if found.whole is not None else None
    return StoredText(execution_id, found.bytes, found.sha256, whole, item=item)


def _of_item(execution_id: str, item: tuple[str, int, int]) -> dict[str, Any]:
    return {"execution_id": execution_id, **dict(zip(("task_id", "map_index", "item_index"), item, strict=True))}


def _stored(execution_id: str, column: Column, found: Any) -> StoredText:
    if found.whole is None:
        return StoredText(execution_id, found.bytes, found.sha256, column=column)
    whole = found.whole.encode()
    return StoredText(execution_id, len(whole), sha256(whole).hexdigest(), whole)


_CUT = """
    INSERT INTO visual_ai.value_pieces (sha256, start, content)
    SELECT :sha256, t.start + p.number * CAST(:piece AS bigint), substr(t.content, p.number * :piece + 1, :piece)
    FROM ({texts} OFFSET 0) t
    CROSS JOIN LATERAL generate_series(0, (octet_length(t.content) - 1) / :piece) AS p (number)
    ON CONFLICT DO NOTHING
"""  # `OFFSET 0` keeps the planner from converting the value again for each piece
_CUT_COLUMN = {
    column: text(
        _CUT.format(
            texts=f"""
            SELECT CAST(0 AS bigint) AS start, convert_to({column}::text, 'UTF8') AS content
            FROM visual_ai.workflow_executions
            WHERE id = CAST(:execution_id AS uuid) AND {column.replace("_data", "_reference")} ->> 'sha256' = :sha256
            """  # noqa: S608  # no input in it
        )
    )
    for column in ("input_data", "output_data")
}
# Small elements are put together first.
_CUT_LIST = text(
    results.PLACED
    + _CUT.format(
        texts=f"""
        SELECT min(CASE WHEN map_index = :first THEN 0 ELSE start - 2 END) AS start,
            convert_to(string_agg(
                CASE WHEN map_index = :first THEN '[' ELSE ', ' END || {results.ELEMENT}
                || CASE WHEN start + bytes + 1 = described.size THEN ']' ELSE '' END, '' ORDER BY map_index
            ), 'UTF8') AS content
        FROM placed, described WHERE described.sha256 = :sha256 GROUP BY start / :piece
        """  # noqa: S608  # no input in it
    )
)
_CUT_ITEM = text(
    _CUT.format(
        texts=f"""
        SELECT CAST(0 AS bigint) AS start, convert_to(whole, 'UTF8') AS content {_ITEM}
        WHERE encode(sha256(convert_to(whole, 'UTF8')), 'hex') = :sha256
        """  # no input in it
    )
)
_FORGET = text(
    """
    DELETE FROM visual_ai.value_pieces WHERE made_at < clock_timestamp() - make_interval(secs => :older_than)
    """
)
_DROP = text("DELETE FROM visual_ai.value_pieces WHERE sha256 = :sha256")
# Another process may keep the same text at the same time.
_KEEP = text(
    """
    INSERT INTO visual_ai.value_pieces (sha256, start, content) VALUES (:sha256, :start, :content)
    ON CONFLICT DO NOTHING
    """
)
_IS_KEPT = text(
    """
    SELECT coalesce(min(made_at) > clock_timestamp() - make_interval(secs => :newer_than), false)
    FROM visual_ai.value_pieces WHERE sha256 = :sha256
    """
)
_READ = text(
    """
    SELECT min(start) AS start, string_agg(content, ''::bytea ORDER BY start) AS content
    FROM visual_ai.value_pieces WHERE sha256 = :sha256 AND start > :start - :piece AND start < :start + :piece
    """
)


def forget(connection: Connection) -> None:
    """Delete pieces that were cut more than `KEEP_SECONDS` ago; whoever is still reading cuts them again."""
    connection.execute(_FORGET, {"older_than": KEEP_SECONDS})


def keep(connection: Connection, sha256: str, content: bytes) -> None:
    """Cut a text that PostgreSQL doesn't have into pieces, to be kept from now on."""
    connection.execute(_DROP, {"sha256": sha256})
    for start in range(0, len(content), PIECE):
        connection.execute(_KEEP, {"sha256": sha256, "start": start, "content": content[start : start + PIECE]})


def is_kept(connection: Connection, sha256: str) -> bool:
    """Whether a text is cut into pieces that will be kept for a while."""
    return bool(connection.execute(_IS_KEPT, {"sha256": sha256, "newer_than": KEEP_SECONDS / 2}).scalar_one())


def cut(connection: Connection, stored: StoredText) -> None:
    """Cut a text into pieces for `read`, unless the value has changed since it was found."""
    values = {"execution_id": stored.execution_id, "sha256": stored.sha256, "piece": PIECE}
    if stored.column is not None:
        connection.execute(_CUT_COLUMN[stored.column], values)
    elif stored.item is not None:
        connection.execute(_CUT_ITEM, {**values, **_of_item(stored.execution_id, stored.item)})
    elif stored.task_id is not None:
        part = {"task_id": stored.task_id, "first": stored.first, "last": stored.last}
        connection.execute(_CUT_LIST, {**values, **part})


def read(connection: Connection, stored: StoredText, start: int) -> bytes:
    """The text from the byte `start`, up to two pieces of it; nothing if it isn't cut."""
    found = connection.execute(_READ, {"sha256": stored.sha256, "start": start, "piece": PIECE}).one()
    return b"" if found.start is None or found.start > start else bytes(found.content)[start - found.start :]
