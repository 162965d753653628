"""Agent traces: one row per agent run, and one per execution of a node of its graph."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, func, select, text

from backend.core.jsonable import dumps, storable
from backend.core.redaction import redact_within
from backend.db.rows import Row, all_rows, first_row
from backend.db.tables import agent_traces as traces

EXCERPT_BYTES = 16 * 1024
"""The size of what is stored of an agent's or node's input, and of its output, as JSON text in UTF-8.

A loop of hundreds of steps writes its whole state twice for each of them. The whole values are in its checkpoints.
"""

_NAMES = 4_000
"""Characters of the names of a cut value's parts at most, beyond which none are stored."""

SHOWN_ITEMS = 50
"""This many items of a batch, from the first, appear in streams and snapshots one by one. All items have rows."""


NAME_CHARACTERS = 1_000
"""The longest name of a node or a model that is recorded."""

NOTICE_CHARACTERS = 2_000
"""The longest notice of an agent. The errors have what led to each."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in an execution something happened: the try of a task instance, and the agent if there is one."""

    dag_id: str
    dag_run_id: str
    task_id: str
    map_index: int
    try_number: int
    agent: str | None = None
    agent_type: str | None = None
    item: int | None = None
    """The index of a batch's item."""


_WRITE = text(
    """
    INSERT INTO visual_ai.agent_traces (
        id, execution_id, task_id, map_index, try_number, agent_name, agent_type, item_index, node, model, state,
        started_at, finished_at, latency_ms, input_tokens, output_tokens, cost_usd, retries, fallbacks, attempt, notice,
        trace_id, trace_url, input, output, input_parts, output_parts, checkpoint_task)
    SELECT
        id, execution_id, task_id, map_index, try_number, agent_name, agent_type, item_index, node,
        model, state, started_at, finished_at, latency_ms, input_tokens, output_tokens, cost_usd,
        coalesce(retries, 0), coalesce(fallbacks, 0), coalesce(attempt, 1), notice, trace_id, trace_url, input,
        output, input_parts, output_parts, checkpoint_task
    FROM jsonb_populate_recordset(CAST(NULL AS visual_ai.agent_traces), CAST(:rows AS jsonb))
    ON CONFLICT (id) DO UPDATE SET
        state = excluded.state, model = excluded.model, finished_at = excluded.finished_at,
        latency_ms = excluded.latency_ms, input_tokens = excluded.input_tokens,
        output_tokens = excluded.output_tokens, cost_usd = excluded.cost_usd, retries = excluded.retries,
        fallbacks = excluded.fallbacks, attempt = excluded.attempt, notice = excluded.notice, output = excluded.output,
        output_parts = excluded.output_parts,
        checkpoint_task = coalesce(agent_traces.checkpoint_task, excluded.checkpoint_task)
    """
)


def write(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of agent runs (`node` None) and nodes, as `row` makes them, of any executions, in one statement.

    A row that exists already, or occurs twice, is updated; only its input is kept.
    """
    merged: dict[str, Mapping[str, Any]] = {}
    for new in rows:
        known = merged.get(new["id"])
        if known is not None:
            task = new["checkpoint_task"] or known["checkpoint_task"]
            given = {"input": known["input"], "input_parts": known["input_parts"], "checkpoint_task": task}
            new = {**new, **given}
        merged[new["id"]] = new
    if merged:
        connection.execute(_WRITE, {"rows": dumps(list(merged.values()))})


def row(place: Place, **values: Any) -> dict[str, Any]:
    """A row for `write`, which adds `execution_id`; `input` and `output` are redacted and shortened."""
    given, given_parts = _excerpt(values.get("input"))
    returned, returned_parts = _excerpt(values.get("output"))
    return {
        "task_id": place.task_id,
        "map_index": place.map_index,
        "try_number": place.try_number,
        "agent_name": place.agent,
        "agent_type": place.agent_type,
        "item_index": place.item,
        **values,
        **{name: short_name(values[name]) for name in ("node", "model") if values.get(name)},
        "notice": (values.get("notice") or "")[:NOTICE_CHARACTERS] or None,
        "input": given,
        "input_parts": given_parts,
        "output": returned,
        "output_parts": returned_parts,
        "checkpoint_task": values.get("checkpoint_task"),
    }


def short_name(name: str) -> str:
    """A name of a node or a model as it is recorded."""
    return name if len(name) <= NAME_CHARACTERS else f"{name[:NAME_CHARACTERS]}… ({len(name)} characters)"


def _excerpt(value: Any) -> tuple[Any, list[str] | None]:
    """What is stored of a value and, if something was left out, the names of the value's parts."""
    characters = EXCERPT_BYTES * 3 // 4
    if isinstance(value, Mapping):
        # Numbers and what is empty cost nothing, and what a graph was never given is in no checkpoint.
        value = {**{name: part for name, part in value.items() if _is_tiny(part)}, **value}
    while True:
        found, cut = redact_within(value, characters)
        # A character can be four bytes, or an escape of six.
        if len(dumps(found).encode()) <= EXCERPT_BYTES:
            return found, _parts(value) if cut else None
        characters //= 2


def _is_tiny(value: Any) -> bool:
    return (
        value is None or isinstance(value, int | float) or (isinstance(value, str | list | tuple | dict) and not value)
    )


def _parts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        names = [storable(name) for name in value if isinstance(name, str)]
    elif is_dataclass(value):
        names = [part.name for part in fields(value)]
    else:
        names = [*getattr(type(value), "model_fields", ())]
    return names if sum(map(len, names)) <= _NAMES else []


_SUPERSEDE = text(
    """
    UPDATE visual_ai.agent_traces t SET state = 'cancelled', finished_at = clock_timestamp()
    FROM unnest(
        CAST(:executions AS uuid[]), CAST(:tasks AS text[]), CAST(:maps AS integer[]), CAST(:tries AS integer[])
    ) AS begun (execution_id, task_id, map_index, try_number)
    WHERE t.execution_id = begun.execution_id AND t.task_id = begun.task_id AND t.map_index = begun.map_index
      AND t.try_number <= begun.try_number AND t.state = 'running'
    RETURNING t.id, t.execution_id::text, t.task_id, t.map_index, t.try_number, t.agent_name, t.agent_type,
        t.item_index, t.node, t.state, t.model, t.started_at, t.latency_ms, t.input_tokens, t.output_tokens,
        t.cost_usd, t.attempt, t.retries, t.fallbacks, t.notice, t.trace_url
    """
)


def supersede(connection: Connection, begun: Sequence[tuple[str, Place]]) -> list[Row]:
    """Close the rows that earlier tries, or the same ones in another triggerer, left open before these tries begin, by
    the ids of their executions. Returns them in the order of their start, without inputs and outputs."""
    ended = connection.execute(
        _SUPERSEDE,
        {
            "executions": [execution_id for execution_id, _ in begun],
            "tasks": [place.task_id for _, place in begun],
            "maps": [place.map_index for _, place in begun],
            "tries": [place.try_number for _, place in begun],
        },
    )
    return sorted(all_rows(ended), key=lambda row: row["started_at"])


_ADD_NOTICE = text(
    """
    UPDATE visual_ai.agent_traces SET notice = left(concat_ws('; ', CAST(:notice AS text), notice), :characters)
    WHERE execution_id = :execution_id AND task_id = :task_id AND map_index = :map_index AND try_number = :try_number
      AND node IS NULL AND coalesce(item_index, 0) = 0
    RETURNING id, execution_id::text, task_id, map_index, try_number, agent_name, agent_type, item_index, node, state,
        model, started_at, latency_ms, input_tokens, output_tokens, cost_usd, attempt, retries, fallbacks, notice,
        trace_url
    """
)


def add_notice(connection: Connection, execution_id: str, place: Place, notice: str) -> list[Row]:
    """Add something that the user should know to the agents of a try; of a batch, to its first item. Returns their
    rows, without inputs and outputs."""
    where = {name: getattr(place, name) for name in ("task_id", "map_index", "try_number")}
    return all_rows(
        connection.execute(
            _ADD_NOTICE, {"execution_id": execution_id, "notice": notice, "characters": NOTICE_CHARACTERS, **where}
        )
    )


def used_before(
    connection: Connection, execution_id: str, place: Place
) -> dict[int | None, tuple[int, int, Decimal | None, int]]:
    """What the nodes of the place's agent used in all tries so far, by the index of the batch's item (None outside of a
    batch): input tokens, output tokens, cost (None when unknown), and the number of nodes that called a model."""
    called = traces.c.model.is_not(None)
    query = (
        select(
            traces.c.item_index,
            func.sum(traces.c.input_tokens),
            func.sum(traces.c.output_tokens),
            func.sum(traces.c.cost_usd),
            func.count().filter(called),
            func.count().filter(called & traces.c.cost_usd.is_(None)),
        )
        .where(
            traces.c.execution_id == execution_id,
            traces.c.task_id == place.task_id,
            traces.c.map_index == place.map_index,
            traces.c.try_number <= place.try_number,
            traces.c.agent_name == place.agent,
            traces.c.node.is_not(None),
        )
        .group_by(traces.c.item_index)
    )
    return {
        row[0]: (int(row[1]), int(row[2]), None if row[5] else row[3], int(row[4])) for row in connection.execute(query)
    }


_SPENT = text(
    """
    SELECT coalesce(sum(input_tokens + output_tokens), 0), coalesce(sum(cost_usd), 0),
        bool_or(model IS NOT NULL AND cost_usd IS NULL), count(*)
    FROM visual_ai.agent_traces
    WHERE execution_id = CAST(:execution_id AS uuid) AND node IS NOT NULL
      AND (:whole_run OR (task_id = :task_id AND map_index = :map_index))
      AND NOT (task_id = :task_id AND map_index = :map_index AND try_number = :try_number
        AND started_at >= :since)
    """
)


def spent_before(
    connection: Connection, execution_id: str, place: Place, since: datetime, *, whole_run: bool
) -> tuple[int, Decimal | None, int]:
    """What nodes used outside this try: in earlier tries of the task or in the whole run, and in this try before
    `since`, when it ran in another triggerer. Returns tokens, cost (None when some of it has no known price) and the
    number of executions of nodes."""
    row = connection.execute(
        _SPENT,
        {
            "execution_id": execution_id,
            "whole_run": whole_run,
            "task_id": place.task_id,
            "map_index": place.map_index,
            "try_number": place.try_number,
            "since": since,
        },
    ).one()
    return int(row[0]), None if row[2] else row[1], int(row[3])


_GET = text(
    """
    SELECT t.*, k.state AS task_state, EXISTS (
        SELECT FROM visual_ai.agent_traces later
        WHERE later.execution_id = t.execution_id AND later.task_id = t.task_id AND later.map_index = t.map_index
            AND later.agent_name = t.agent_name AND later.item_index IS NOT DISTINCT FROM t.item_index
            AND later.node IS NULL AND later.started_at > t.started_at) AS repeated
    FROM visual_ai.agent_traces t
    LEFT JOIN visual_ai.workflow_tasks k
        ON k.execution_id = t.execution_id AND k.task_id = t.task_id AND k.map_index = t.map_index
    WHERE t.id = :id AND t.execution_id = CAST(:execution_id AS uuid)
    """
)


def get(connection: Connection, execution_id: str, trace_id: UUID) -> Row | None:
    """The row of an agent or node of this execution, with the state of its task (`task_state`), and whether the agent
    was started again later (`repeated`)."""
    return first_row(connection.execute(_GET, {"execution_id": execution_id, "id": trace_id}))


def label(agent: str | None, item: int | None) -> str | None:
    """The name of an agent in events and snapshots; in a batch with the item's index, as in `vision[7]`."""
    return agent if item is None else f"{agent}[{item}]"


_REPORTED = (
    "task_id", "map_index", "try_number", "node", "state", "model", "input_tokens", "output_tokens", "latency_ms",
    "attempt", "retries", "fallbacks", "notice", "trace_url",
)  # fmt: skip


def payload(trace: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": str(trace["id"]),
        **{name: trace[name] for name in _REPORTED},
        "agent": label(trace["agent_name"], trace["item_index"]),
        "type": trace["agent_type"],
        "cost_usd": float(trace["cost_usd"]) if trace["cost_usd"] is not None else None,
    }
