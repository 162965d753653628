"""Copies LangGraph threads from one run to another: a whole one, or one up to a checkpoint.

A copy has the same checkpoint ids, because the ids of nodes' executions, and with them the namespaces of subgraphs, are
made of them. Up to a checkpoint means: that one with those before it, and of subgraphs what they had written by then.
What was written *after* it, by the nodes that are to run again, is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from backend.db.rows import first_row
from backend.db.runs.threads import Claim, held, superseded

# Checkpoint ids are UUIDs of version 6, so their order is that of time. LangGraph relies on it as well.
_CHECKPOINTS = text(
    """
    INSERT INTO visual_ai.checkpoints (
        thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    SELECT target, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
    FROM visual_ai.checkpoints
    JOIN unnest(CAST(:sources AS text[]), CAST(:targets AS text[])) AS pair (source, target) ON thread_id = source
    WHERE CAST(:last AS text) IS NULL OR checkpoint_id <= CASE WHEN checkpoint_ns = '' THEN :root ELSE :last END
    """
)
_BLOBS = text(
    """
    INSERT INTO visual_ai.checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT target, b.checkpoint_ns, b.channel, b.version, b.type, b.blob
    FROM visual_ai.checkpoint_blobs b
    JOIN unnest(CAST(:sources AS text[]), CAST(:targets AS text[])) AS pair (source, target) ON b.thread_id = source
    JOIN (
        -- Versions of a namespace only grow, so the last checkpoint's greatest one bounds those of all before it.
        SELECT DISTINCT ON (thread_id, checkpoint_ns) thread_id, checkpoint_ns,
            (SELECT max(version) FROM jsonb_each_text(checkpoint -> 'channel_versions') AS v (channel, version)) AS last
        FROM visual_ai.checkpoints WHERE thread_id = ANY(:targets)
        ORDER BY thread_id, checkpoint_ns, checkpoint_id DESC
    ) kept ON kept.thread_id = target AND kept.checkpoint_ns = b.checkpoint_ns AND b.version <= kept.last
    """
)
_WRITES = text(
    """
    INSERT INTO visual_ai.checkpoint_writes (
        thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT target, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
    FROM visual_ai.checkpoint_writes
    JOIN unnest(CAST(:sources AS text[]), CAST(:targets AS text[])) AS pair (source, target) ON thread_id = source
    WHERE CAST(:root AS text) IS NULL OR checkpoint_id < :root
    """
)
_ANY = text("SELECT 1 FROM visual_ai.checkpoints WHERE thread_id = ANY(:threads) LIMIT 1")
_BEGUN_BEFORE = text(
    """
    SELECT thread_id FROM visual_ai.checkpoints WHERE thread_id = ANY(:threads)
    GROUP BY thread_id HAVING min(checkpoint_id) < (
        SELECT min(checkpoint_id) FROM visual_ai.checkpoints WHERE thread_id = :thread)
    """
)
_SOURCE = text("SELECT agents, completed, input_hash FROM visual_ai.workflow_threads WHERE thread_id = :thread")


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of the thread of a task instance in the source run."""

    agents: frozenset[str]
    completed: bool
    input_hash: str


def source(connection: Connection, thread: str) -> Source | None:
    """The task instance's thread; None if it keeps no checkpoints, or they are deleted."""
    row = first_row(connection.execute(_SOURCE, {"thread": thread}))
    return None if row is None else Source(frozenset(row["agents"]), row["completed"], row["input_hash"])


def any_kept(connection: Connection, agents: Sequence[str]) -> bool:
    """Whether one of these threads has a checkpoint."""
    return connection.execute(_ANY, {"threads": list(agents)}).first() is not None


def begun_before(connection: Connection, agents: Sequence[str], thread: str) -> set[str]:
    """Those of the threads that had begun before this one."""
    return set(connection.execute(_BEGUN_BEFORE, {"threads": list(agents), "thread": thread}).scalars())


def copy(
    connection: Connection,
    claim: Claim,
    pairs: Mapping[str, str],
    *,
    last: str | None = None,
    root: str | None = None,
) -> bool:
    """Copy threads to those of a claim, by the name of the source; returns whether there was anything to copy.

    They are copied as a whole, or up to the checkpoint `last`, which is the graph's own or that of a subgraph which ran
    after the checkpoint `root`. Raises `SupersededError` when another try holds the claim's thread.
    """
    if not held(connection, [claim]):
        raise superseded(claim)
    values = {"sources": list(pairs), "targets": list(pairs.values())}
    copied = connection.execute(_CHECKPOINTS, {**values, "last": last, "root": root}).rowcount
    connection.execute(_BLOBS, values)
    connection.execute(_WRITES, {**values, "root": root})
    return copied > 0
