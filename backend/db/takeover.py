"""What a try finds of one whose process is gone: killed, out of memory, or lost with its machine."""

from dataclasses import replace

from sqlalchemy import Connection

from backend.core.events import NewEvent
from backend.db import errors, events, traces
from backend.db.traces import SHOWN_ITEMS, Place

PROCESS_LOST = "ProcessLostError"
"""The name under which such an end is recorded; nobody was left to raise it."""


def close_lost(connection: Connection, execution_id: str, place: Place) -> None:
    """End what an earlier try, or this one in another triggerer, left open, and tell of it on the timeline.

    Call it before the try at `place` writes anything itself.
    """
    left = traces.supersede(connection, execution_id, place)
    if not left:
        return
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
    events.append_from_try(
        connection,
        execution_id,
        [*new, NewEvent("error", payload)],
        task_id=place.task_id,
        map_index=place.map_index,
        try_number=place.try_number,
    )
