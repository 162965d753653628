"""Closes what a try has left open whose process is gone: killed, out of memory, or lost with its machine."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection

from backend.core.events import NewEvent
from backend.db.rows import Row
from backend.db.runs import errors, events, executions, traces
from backend.db.runs.events import TryEvents
from backend.db.runs.traces import SHOWN_ITEMS, Place

PROCESS_LOST = "ProcessLostError"
"""The exception type recorded for such an end, because no exception was raised."""


def close_lost(connection: Connection, begun: Sequence[tuple[str, Place]]) -> None:
    """Close what earlier tries, or the same ones in another triggerer, left open, and report it on the timelines.

    `begun` are the tries that begin, with the ids of their executions. Call it before they write anything. It locks the
    executions: a transaction that records for several ones locks these first, in the order of their ids, then threads.
    """
    executions.lock(connection, [execution_id for execution_id, _ in begun])
    left = traces.supersede(connection, begun)
    if not left:
        return
    reported = []
    for execution_id, place in begun:
        key = (execution_id, place.task_id, place.map_index)
        found = [row for row in left if (row["execution_id"], row["task_id"], row["map_index"]) == key]
        if found:
            reported.append(TryEvents(execution_id, place, _lost(connection, execution_id, place, found)))
    events.append_from_tries(connection, reported)


def _lost(connection: Connection, execution_id: str, place: Place, left: Sequence[Row]) -> list[NewEvent]:
    new = [
        NewEvent("agent_update", traces.payload(row))
        for row in left
        if row["item_index"] is None or row["item_index"] < SHOWN_ITEMS
    ]
    last = max(row["try_number"] for row in left)
    nodes = {row["node"] for row in left if row["node"] is not None}
    names = {row["agent_name"] for row in left}
    same = last == place.try_number
    payload = errors.add(
        connection,
        execution_id,
        replace(place, try_number=last, agent=names.pop() if len(names) == 1 else None, agent_type=None, item=None),
        category="internal",
        exception_type=PROCESS_LOST,
        message="the process that ran the agents is gone without a word: it was killed, or its machine went down",
        action="resume" if same else "task_retry",
        attempt=last,
        node=nodes.pop() if len(nodes) == 1 else None,
    )
    return [*new, NewEvent("error", payload)]
