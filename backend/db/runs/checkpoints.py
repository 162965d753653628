"""Reads the states of a task's agents over time, from LangGraph's checkpoint tables.

A checkpoint is the state between two steps of a graph. Which nodes ran after it is in the writes that name it; which
were to run and have not is in its channels (`branch:to:<node>`), as LangGraph's `StateGraph` names them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from backend.db.rows import Row, all_rows, first_row

_PULL = "~__pregel_pull, "
_BRANCH = "branch:to:"

Position = tuple[str, str, str]
"""A checkpoint's id, thread and namespace, which is the order of lists."""

_THREADS = text(
    """
    SELECT agents, thinned FROM visual_ai.workflow_threads
    WHERE thread_id = :thread_id AND execution_id = CAST(:execution_id AS uuid)
    """
)
_AGENTS = text(
    """
    SELECT agent_name, agent_type, bool_or(item_index IS NOT NULL) AS batch,
        bool_or(checkpoint_task IS NOT NULL) AS kept
    FROM visual_ai.agent_traces
    WHERE execution_id = CAST(:execution_id AS uuid) AND task_id = :task_id AND map_index = :map_index
    GROUP BY agent_name, agent_type
    """
)
_PAGE = """
    WITH page AS (
        SELECT thread_id, checkpoint_ns, checkpoint_id FROM visual_ai.checkpoints
        WHERE thread_id = ANY(:threads) AND {where}
        ORDER BY checkpoint_id DESC, thread_id DESC, checkpoint_ns DESC LIMIT :limit
    )
    SELECT c.thread_id, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.metadata,
        c.checkpoint ->> 'ts' AS created_at,
        octet_length((c.checkpoint -> 'channel_values')::text) + coalesce((
            SELECT sum(octet_length(b.blob))
            FROM jsonb_each_text(c.checkpoint -> 'channel_versions') v (channel, version)
            JOIN visual_ai.checkpoint_blobs b ON b.thread_id = c.thread_id AND b.checkpoint_ns = c.checkpoint_ns
                AND b.channel = v.channel AND b.version = v.version), 0) AS bytes,
        ARRAY(SELECT jsonb_object_keys(c.checkpoint -> 'channel_values')) AS channels,
        c.checkpoint -> 'updated_channels' AS updated
    FROM page JOIN visual_ai.checkpoints c USING (thread_id, checkpoint_ns, checkpoint_id)
    ORDER BY c.checkpoint_id DESC, c.thread_id DESC, c.checkpoint_ns DESC
"""
_LIST = text(
    _PAGE.format(
        where="""(CAST(:last AS text) IS NULL
            OR (checkpoint_id, thread_id, checkpoint_ns) < (:last, :last_thread, :last_ns))"""
    )
)
_ONE = text(_PAGE.format(where="checkpoint_id = :checkpoint_id"))
_WRITERS = text(
    """
    SELECT DISTINCT thread_id, checkpoint_ns, checkpoint_id, task_id, task_path,
        bool_or(channel = '__interrupt__') OVER (PARTITION BY thread_id, checkpoint_ns, checkpoint_id, task_id) AS asks
    FROM visual_ai.checkpoint_writes
    WHERE thread_id = ANY(:threads) AND checkpoint_id = ANY(:ids)
    """
)
_NAMES = text(
    """
    SELECT checkpoint_task, node FROM visual_ai.agent_traces
    WHERE execution_id = CAST(:execution_id AS uuid) AND checkpoint_task = ANY(:tasks)
    """
)


@dataclass(frozen=True, slots=True)
class TaskThreads:
    """The LangGraph threads of a task instance, and its agents as far as they are recorded.

    `thinned`: maintenance has reduced them to their last states.
    """

    thread_id: str
    threads: Sequence[str]
    thinned: bool
    agents: Sequence[Row]

    @property
    def kept_any(self) -> bool:
        """Whether the agents have kept checkpoints, which may be deleted by now."""
        return any(row["kept"] for row in self.agents)

    def place(self, thread: str) -> tuple[str | None, int | None, int]:
        """The agent of a thread, the batch's item if it is one, and which of the agent's calls it was."""
        names = [row["agent_name"] for row in self.agents]
        suffix = thread[len(self.thread_id) + 1 :]
        if not suffix:
            return (names[0] if names else None), None, 1
        name, _, call = suffix.rpartition("/")
        if name and call.isdigit():
            return name, None, int(call)
        if suffix.isdigit() and (suffix not in names or any(row["batch"] for row in self.agents)):
            return (names[0] if names else None), int(suffix), 1
        return suffix, None, 1

    def of(self, agent: str | None, item: int | None = None) -> list[str]:
        """The threads of an agent, or of all."""
        if agent is None and item is None:
            return list(self.threads)
        places = ((thread, self.place(thread)) for thread in self.threads)
        return [one for one, (name, index, _) in places if agent in (None, name) and item in (None, index)]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state of a graph: `row`, the `nodes` that wrote it, those that come `next`, and whether one of them asks."""

    row: Row
    nodes: list[str]
    next: list[str]
    asks: bool


def find(connection: Connection, execution_id: str, thread_id: str, task_id: str, map_index: int) -> TaskThreads:
    """The threads of a task instance; without any if it keeps no checkpoints, or they are deleted."""
    of_task = {"execution_id": execution_id, "task_id": task_id, "map_index": map_index}
    agents = all_rows(connection.execute(_AGENTS, of_task))
    row = first_row(connection.execute(_THREADS, {"execution_id": execution_id, "thread_id": thread_id}))
    threads, thinned = (row["agents"], row["thinned"]) if row is not None else ((), False)
    return TaskThreads(thread_id, threads, thinned, agents)


def read_page(
    connection: Connection, execution_id: str, threads: Sequence[str], *, after: Position | None, limit: int
) -> list[Checkpoint]:
    """Up to `limit` checkpoints of these threads, newest first."""
    last = dict(zip(("last", "last_thread", "last_ns"), after or (None, None, None), strict=True))
    found = all_rows(connection.execute(_LIST, {"threads": list(threads), "limit": limit, **last}))
    return _with_nodes(connection, execution_id, found)


def read_one(
    connection: Connection, execution_id: str, threads: Sequence[str], checkpoint_id: str
) -> Checkpoint | None:
    """The checkpoint of this id in one of these threads."""
    values = {"threads": list(threads), "checkpoint_id": checkpoint_id, "limit": 1}
    found = _with_nodes(connection, execution_id, all_rows(connection.execute(_ONE, values)))
    return found[0] if found else None


def _with_nodes(connection: Connection, execution_id: str, rows: Sequence[Row]) -> list[Checkpoint]:
    if not rows:
        return []
    ids = {row[name] for row in rows for name in ("checkpoint_id", "parent_checkpoint_id")} - {None}
    threads = list({row["thread_id"] for row in rows})
    written = all_rows(connection.execute(_WRITERS, {"threads": threads, "ids": list(ids)}))
    unnamed = [write["task_id"] for write in written if not write["task_path"].startswith(_PULL)]
    names: dict[str, str] = {}
    if unnamed:
        known = connection.execute(_NAMES, {"execution_id": execution_id, "tasks": unnamed})
        names = {row.checkpoint_task: row.node for row in known}
    after: dict[tuple[Any, ...], set[str]] = {}
    asking = set()
    for write in written:
        key = (write["thread_id"], write["checkpoint_ns"], write["checkpoint_id"])
        path = write["task_path"]
        name = path[len(_PULL) :] if path.startswith(_PULL) else names.get(write["task_id"], "").rpartition("/")[2]
        if name:
            after.setdefault(key, set()).add(name)
        if write["asks"]:
            asking.add(key)
    found = []
    for row in rows:
        key = (row["thread_id"], row["checkpoint_ns"], row["checkpoint_id"])
        waiting = {name.removeprefix(_BRANCH) for name in row["channels"] if name.startswith(_BRANCH)}
        if row["updated"] == ["__start__"]:
            waiting.add("__start__")
        nodes = after.get((*key[:2], row["parent_checkpoint_id"]), set())
        found.append(Checkpoint(row, sorted(nodes), sorted(after.get(key, set()) | waiting), key in asking))
    return found
