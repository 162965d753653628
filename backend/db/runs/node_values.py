"""Finds what nodes and agents were given, and what they returned, in LangGraph's checkpoint tables.

A node's execution writes into channels of its graph: rows of `checkpoint_writes` under its task's id, which name the
checkpoint that it read. That one's channels are the node's input. An agent's input is in the channel `__start__`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from backend.db.rows import Row, all_rows, first_row

START = "__start__"
SENDS = "__pregel_tasks"
"""The channel of what nodes have sent to others (`Send`), a list."""

_SENT = re.compile(r"~__pregel_push, (\d{10})\b")

_THREAD = text(
    """
    SELECT try_number, thinned, ARRAY(
        SELECT agent FROM unnest(agents) AS agent WHERE agent = ANY(:names) OR starts_with(agent, :calls)) AS agents
    FROM visual_ai.workflow_threads
    WHERE thread_id = :thread_id AND execution_id = CAST(:execution_id AS uuid)
    """
)
_EXECUTION = text(
    """
    SELECT thread_id, checkpoint_ns, checkpoint_id, max(task_path) AS task_path,
        coalesce(sum(octet_length(blob)), 0) AS bytes
    FROM visual_ai.checkpoint_writes WHERE thread_id = ANY(:agents) AND task_id = :task
    GROUP BY thread_id, checkpoint_ns, checkpoint_id
    """
)
_OF_CHECKPOINT = """
    FROM visual_ai.checkpoints c
    CROSS JOIN LATERAL jsonb_each_text(c.checkpoint -> 'channel_versions') AS v (channel, version)
    JOIN visual_ai.checkpoint_blobs b ON b.thread_id = c.thread_id AND b.checkpoint_ns = c.checkpoint_ns
        AND b.channel = v.channel AND b.version = v.version
    WHERE c.thread_id = :thread_id AND c.checkpoint_ns = :checkpoint_ns AND c.checkpoint_id = :checkpoint_id
        AND b.type <> 'empty'
"""
_STATE_SIZE = text(f"SELECT coalesce(sum(octet_length(b.blob)), 0) {_OF_CHECKPOINT}")  # no input in it
_STATE = text(f"SELECT b.channel, b.type, b.blob {_OF_CHECKPOINT} AND (b.channel = ANY(:channels) OR :every)")
_INLINE = text(
    """
    SELECT checkpoint -> 'channel_values' FROM visual_ai.checkpoints
    WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns AND checkpoint_id = :checkpoint_id
    """
)
_WRITES = text(
    """
    SELECT channel, type, blob FROM visual_ai.checkpoint_writes
    WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns AND checkpoint_id = :checkpoint_id
        AND task_id = :task AND idx >= 0
    ORDER BY idx
    """
)
_STARTS = """
    FROM visual_ai.checkpoint_blobs
    WHERE thread_id = ANY(:agents) AND checkpoint_ns = '' AND channel = '__start__' AND type <> 'empty'
"""
_START_SIZES = text(f"SELECT octet_length(blob) AS bytes {_STARTS}")
_START = text(f"SELECT channel, type, blob {_STARTS}")


@dataclass(frozen=True, slots=True)
class Thread:
    """What is known of a task instance's checkpoints: its LangGraph threads that belong to an agent, its latest try,
    and whether maintenance has reduced it to its last state."""

    agents: Sequence[str]
    try_number: int
    thinned: bool


@dataclass(frozen=True, slots=True)
class NodeExecution:
    """Where a node's execution stands in the checkpoints; `bytes` is the size of what it wrote."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    bytes: int
    sent: int | None
    """The node's input is the `Send` of this index, instead of its graph's state."""


def find_thread(
    connection: Connection, execution_id: str, thread_id: str, agent: str, item: int | None
) -> Thread | None:
    """The threads of an agent, or of an item of its batch, in a task instance; None once they are deleted."""
    names = [f"{thread_id}/{item}"] if item is not None else [thread_id, f"{thread_id}/{agent}"]
    calls = f"{thread_id}/{agent}/" if item is None else f"{thread_id}/{item}/"
    values = {"thread_id": thread_id, "execution_id": execution_id, "names": names, "calls": calls}
    row = first_row(connection.execute(_THREAD, values))
    return None if row is None else Thread(row["agents"], row["try_number"], row["thinned"])


def find_execution(connection: Connection, agents: Sequence[str], task: str) -> NodeExecution | None:
    """The node's execution of this id in one of these threads."""
    row = first_row(connection.execute(_EXECUTION, {"agents": list(agents), "task": task}))
    if row is None:
        return None
    sent = _SENT.match(row["task_path"])
    place = row["thread_id"], row["checkpoint_ns"], row["checkpoint_id"]
    return NodeExecution(*place, int(row["bytes"]), int(sent.group(1)) if sent else None)


def read_writes(connection: Connection, found: NodeExecution, task: str) -> list[Row]:
    """What the node wrote, in order: `channel`, `type` and `blob`."""
    return all_rows(connection.execute(_WRITES, {**_of(found), "task": task}))


def state_size(connection: Connection, found: NodeExecution) -> int:
    """The size of the state that the node has read, in bytes."""
    return int(connection.execute(_STATE_SIZE, _of(found)).scalar_one())


def read_state(
    connection: Connection, found: NodeExecution, channels: Sequence[str]
) -> tuple[dict[str, Any], list[Row]]:
    """The state that the node has read, as far as it is in these channels, or in all if there are none: the texts and
    numbers among them, and what else is in a `channel`, with `type` and `blob`."""
    inline = connection.execute(_INLINE, _of(found)).scalar_one_or_none() or {}
    values = {**_of(found), "channels": list(channels), "every": not channels}
    shown = {name: value for name, value in inline.items() if not channels or name in channels}
    return shown, all_rows(connection.execute(_STATE, values))


def start_sizes(connection: Connection, agents: Sequence[str]) -> list[int]:
    """The sizes of the inputs with which graphs were started on these threads, in bytes."""
    return [row["bytes"] or 0 for row in all_rows(connection.execute(_START_SIZES, {"agents": list(agents)}))]


def read_start(connection: Connection, agents: Sequence[str]) -> list[Row]:
    """These inputs: `type` and `blob`."""
    return all_rows(connection.execute(_START, {"agents": list(agents)}))


def _of(found: NodeExecution) -> dict[str, str]:
    return {
        "thread_id": found.thread_id,
        "checkpoint_ns": found.checkpoint_ns,
        "checkpoint_id": found.checkpoint_id,
    }
