"""Results of runs: what the last agent task returned.

The task that ended last wins. If it is mapped, the result is the list of what its instances returned, by map index:
`executions.result_task` names the task, and `mapped_results` has a row for each instance. An instance without a result,
because it failed or was skipped, is `null` in that list.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from backend.core.events import DATA_BYTES, encode_value
from backend.core.jsonable import dumps
from backend.db.rows import Row, one_row
from backend.db.runs.run_payload import EXCERPT_CHARACTERS, WHOLE_BYTES, truncated

LAST_INDEX = 2**31 - 1
"""The largest map index that fits into a column."""

_REST_BYTES = 4_000
"""Bytes of a `workflow_update` besides the result, at most."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a task instance returned; a `map_index` of -1 means that the task isn't mapped."""

    execution_id: str
    value: Any
    task_id: str | None = None
    map_index: int = -1


_SET = text(
    """
    UPDATE visual_ai.workflow_executions e
    SET output_data = result.value, result_task = NULL,
        trace_url = coalesce(nullif(result.value ->> 'trace_url', ''), e.trace_url)
    FROM jsonb_to_recordset(CAST(:results AS jsonb)) AS result (id uuid, value jsonb)
    WHERE e.id = result.id
    """
)
_SET_MAPPED = text(
    """
    WITH returned AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:results AS jsonb)) AS r (
            id uuid, task_id text, map_index integer, value jsonb, last boolean)
    ), written AS (
        INSERT INTO visual_ai.mapped_results (execution_id, task_id, map_index, value, bytes, sha256)
        SELECT id, task_id, map_index, value, octet_length(value::text),
            encode(sha256(convert_to(value::text, 'UTF8')), 'hex')
        FROM returned
        ON CONFLICT (execution_id, task_id, map_index) DO UPDATE SET
            value = excluded.value, bytes = excluded.bytes, sha256 = excluded.sha256,
            recorded_at = excluded.recorded_at
    )
    UPDATE visual_ai.workflow_executions e
    SET output_data = NULL, result_task = returned.task_id,
        trace_url = coalesce(nullif(returned.value ->> 'trace_url', ''), e.trace_url)
    FROM returned WHERE returned.last AND e.id = returned.id
    """
)


def record(connection: Connection, results: Sequence[TaskResult]) -> None:
    """Store what agent tasks returned, in order, and the addresses of their traces. Of a run's tasks the last wins."""
    last = {one.execution_id: one for one in results}
    single = [{"id": one.execution_id, "value": one.value} for one in last.values() if one.map_index < 0]
    mapped = {(one.execution_id, one.task_id, one.map_index): one for one in results if one.map_index >= 0}
    if mapped:
        rows = [
            {
                "id": one.execution_id,
                "task_id": one.task_id,
                "map_index": one.map_index,
                "value": one.value,
                "last": last[one.execution_id] is one,
            }
            for one in mapped.values()
        ]
        connection.execute(_SET_MAPPED, {"results": dumps(rows)})
    if single:
        connection.execute(_SET, {"results": dumps(single)})


# The elements of a mapped task's list, each with the position of its first byte in the list's JSON text. Null is four
# bytes, and `, ` stands between elements, as PostgreSQL writes lists. Written so that the planner has no choice: before
# it has statistics of a new run, it takes 10,000 instances for one, and a join of them would cost their square.
PLACED = """
    WITH kept AS MATERIALIZED (
        SELECT map_index, bytes, sha256 FROM visual_ai.mapped_results
        WHERE execution_id = CAST(:execution_id AS uuid) AND task_id = :task_id
            AND map_index NOT IN (
                SELECT map_index FROM visual_ai.workflow_tasks
                WHERE execution_id = CAST(:execution_id AS uuid) AND task_id = :task_id
                    AND state IN ('failed', 'upstream_failed', 'skipped', 'removed'))
    ), whole AS MATERIALIZED (
        SELECT greatest(
            (SELECT max(map_index) FROM kept),
            (SELECT max(map_index) FROM visual_ai.workflow_tasks
             WHERE execution_id = CAST(:execution_id AS uuid) AND task_id = :task_id
                AND state IS DISTINCT FROM 'removed')) AS last
    ), elements AS (
        SELECT DISTINCT ON (map_index) map_index, bytes, sha256
        FROM (
            SELECT map_index, bytes, sha256, false AS missing FROM kept
            WHERE map_index BETWEEN CAST(:first AS integer) AND CAST(:last AS integer)
            UNION ALL
            SELECT i, 4, 'null', true FROM whole
            CROSS JOIN LATERAL generate_series(CAST(:first AS integer), least(CAST(:last AS integer), whole.last)) i
        ) one
        ORDER BY map_index, missing
    ), placed AS MATERIALIZED (
        SELECT map_index, bytes, sha256,
            CAST(sum(bytes + 2) OVER (ORDER BY map_index) AS bigint) - bytes - 1 AS start
        FROM elements
    ), described AS MATERIALIZED (
        SELECT coalesce(max(start + bytes) + 1, 2) AS size,
            encode(sha256(convert_to(coalesce(string_agg(sha256, ',' ORDER BY map_index), ''), 'UTF8')), 'hex')
                AS sha256
        FROM placed
    )
"""
ELEMENT = """
    CASE WHEN placed.sha256 = 'null' THEN 'null' ELSE (
        SELECT r.value::text FROM visual_ai.mapped_results r
        WHERE r.execution_id = CAST(:execution_id AS uuid) AND r.task_id = :task_id
            AND r.map_index = placed.map_index) END
"""
"""The JSON text of an element of `placed`."""

_DESCRIBE = text(
    f"""
    {PLACED}
    SELECT whole.last, described.size, described.sha256,
        CASE WHEN described.size <= :whole_bytes
        THEN '[' || coalesce((SELECT string_agg({ELEMENT}, ', ' ORDER BY map_index) FROM placed), '') || ']'
        ELSE left('[' || (
            SELECT string_agg(left({ELEMENT}, :characters), ', ' ORDER BY map_index) FROM placed
            WHERE start < 4 * :characters), :characters)
        END AS beginning
    FROM whole, described
    """  # noqa: S608  # no input in it
)


def describe_list(
    connection: Connection, execution_id: str, task_id: str, *, first: int = 0, last: int = LAST_INDEX
) -> Row:
    """What the instances `first` to `last` of a mapped task returned, as a list: `size` (bytes), `sha256`, `beginning`
    (the whole JSON text up to `WHOLE_BYTES`), and `last`, the task's largest map index."""
    values = {"execution_id": execution_id, "task_id": task_id, "first": first, "last": last}
    limits = {"whole_bytes": WHOLE_BYTES, "characters": EXCERPT_CHARACTERS}
    return one_row(connection.execute(_DESCRIBE, {**values, **limits}))


_DESCRIBE_OUTPUT = text(
    """
    SELECT octet_length(whole) AS bytes, encode(sha256(convert_to(whole, 'UTF8')), 'hex') AS sha256,
        left(whole, :characters) AS excerpt
    FROM (
        SELECT output_data::text AS whole FROM visual_ai.workflow_executions
        WHERE id = CAST(:execution_id AS uuid) OFFSET 0
    ) result
    """
)


def shown(connection: Connection, row: Mapping[str, Any]) -> Any:
    """The result of the run of this row as snapshots and events show it: whole, or `truncated`; None if there is none
    yet."""
    if row["result_task"] is not None:
        found = describe_list(connection, row["id"], row["result_task"])
        size, sha256, excerpt = found["size"], found["sha256"], found["beginning"][:EXCERPT_CHARACTERS]
        if size <= WHOLE_BYTES and _fits(value := json.loads(found["beginning"])):
            return value
    else:
        reference = row["output_reference"]
        if reference is None:
            if _fits(row["output_data"]):
                return row["output_data"]
            values = {"execution_id": row["id"], "characters": EXCERPT_CHARACTERS}
            reference = one_row(connection.execute(_DESCRIBE_OUTPUT, values))
        size, sha256, excerpt = reference["bytes"], reference["sha256"], reference["excerpt"]
    return truncated(row, "result", size=size, sha256=sha256, excerpt=excerpt)


def _fits(value: Any) -> bool:
    """Whether a small value also fits into an event, where some characters take three times as many bytes."""
    return value is None or len(encode_value(value)) <= DATA_BYTES - _REST_BYTES


def shown_input(row: Mapping[str, Any]) -> Any:
    """The input of the run of this row in the same way."""
    reference = row["input_reference"]
    if reference is None:
        return row["input_data"]
    return truncated(row, "input", size=reference["bytes"], sha256=reference["sha256"], excerpt=reference["excerpt"])
