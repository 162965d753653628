"""Agent traces: one row for each agent run and one for each node of its graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert

from backend.core.redaction import redact
from backend.db.rows import Row, all_rows
from backend.db.tables import agent_traces as traces

EXCERPT = 20_000
"""The longest string kept of an agent's input or output, in characters."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in an execution something happened: the try of a task instance and, if it has one, the agent in it."""

    dag_id: str
    dag_run_id: str
    task_id: str
    map_index: int
    try_number: int
    agent: str | None = None
    agent_type: str | None = None


def start(
    connection: Connection,
    execution_id: str,
    trace: str,
    place: Place,
    *,
    node: str | None,
    model: str | None,
    started_at: datetime,
    trace_id: str | None,
    given: Any,
) -> None:
    """Write the row of an agent run (`node=None`) or a node that begins."""
    connection.execute(
        insert(traces)
        .values(
            id=trace,
            execution_id=execution_id,
            task_id=place.task_id,
            map_index=place.map_index,
            try_number=place.try_number,
            agent_name=place.agent,
            agent_type=place.agent_type,
            node=node,
            model=model,
            state="running",
            started_at=started_at,
            trace_id=trace_id,
            input=redact(given, limit=EXCERPT),
        )
        .on_conflict_do_nothing()
    )


def finish(connection: Connection, trace: str, values: Mapping[str, Any]) -> None:
    """Complete a row with what became of it; `output` is redacted and cut."""
    kept = dict(values)
    if "output" in kept:
        kept["output"] = redact(kept["output"], limit=EXCERPT)
    connection.execute(update(traces).where(traces.c.id == trace).values(kept))


def supersede(connection: Connection, execution_id: str, place: Place) -> None:
    """End what earlier tries, or this one in another triggerer, left open: their process is gone. Call it before the
    try writes anything itself."""
    connection.execute(
        update(traces)
        .where(
            traces.c.execution_id == execution_id,
            traces.c.task_id == place.task_id,
            traces.c.map_index == place.map_index,
            traces.c.try_number <= place.try_number,
            traces.c.state == "running",
        )
        .values(state="cancelled", finished_at=func.clock_timestamp())
    )


def used_before(connection: Connection, execution_id: str, place: Place) -> tuple[int, int, Decimal | None, int]:
    """What the agent's nodes used in all tries so far: input and output tokens, cost (None when unknown), and how many
    called a model."""
    called = traces.c.model.is_not(None)
    row = connection.execute(
        select(
            func.coalesce(func.sum(traces.c.input_tokens), 0),
            func.coalesce(func.sum(traces.c.output_tokens), 0),
            func.sum(traces.c.cost_usd),
            func.count().filter(called),
            func.count().filter(called & traces.c.cost_usd.is_(None)),
        ).where(
            traces.c.execution_id == execution_id,
            traces.c.task_id == place.task_id,
            traces.c.map_index == place.map_index,
            traces.c.try_number <= place.try_number,
            traces.c.agent_name == place.agent,
            traces.c.node.is_not(None),
        )
    ).one()
    return int(row[0]), int(row[1]), None if row[4] else row[2], int(row[3])


def list_agents(connection: Connection, execution_id: str) -> list[Row]:
    """The execution's agent runs and nodes, oldest first, without their inputs and outputs."""
    columns = [column for column in traces.c if column.name not in ("input", "output")]
    query = select(*columns).where(traces.c.execution_id == execution_id).order_by(traces.c.started_at)
    return all_rows(connection.execute(query))


def payload(trace: Mapping[str, Any]) -> dict[str, Any]:
    """The data of an `agent_update` event."""
    return {
        "task_id": trace["task_id"],
        "map_index": trace["map_index"],
        "try_number": trace["try_number"],
        "agent": trace["agent_name"],
        "type": trace["agent_type"],
        "node": trace["node"],
        "state": trace["state"],
        "model": trace["model"],
        "input_tokens": trace["input_tokens"],
        "output_tokens": trace["output_tokens"],
        "cost_usd": float(trace["cost_usd"]) if trace["cost_usd"] is not None else None,
        "latency_ms": trace["latency_ms"],
        "notice": trace["notice"],
    }
