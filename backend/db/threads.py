"""Threads: whether the agents of a task instance begin anew or go on where an earlier try stopped."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from backend.db.tables import workflow_threads as threads

_CHECKPOINT_TABLES = ("checkpoint_writes", "checkpoint_blobs", "checkpoints")


class SupersededError(RuntimeError):
    """A later try of the task has begun; this one has lost its place. A retry doesn't help."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A try's right to write to a thread. It lasts until the next claim, of a later try or of the same one: the latter
    when another triggerer takes it over."""

    thread_id: str
    try_number: int
    epoch: int
    going_on: bool
    """Whether an earlier claim left something to go on from."""


def begin(
    connection: Connection,
    execution_id: str,
    thread_id: str,
    try_number: int,
    agents: Sequence[str],
    input_hash: str,
    *,
    instance: str | None = None,
) -> Claim:
    """Take the thread for a try.

    Earlier claims can write no more. What they left is deleted when it was for another input, or when the task had
    succeeded: then somebody wants it done again. Raises `SupersededError` when a later try has the thread.
    `instance` is Airflow's id of the task instance.
    """
    known = connection.execute(select(threads).where(threads.c.thread_id == thread_id).with_for_update()).first()
    if known is not None and known.try_number > try_number:
        raise SupersededError(f"try {try_number} of {thread_id} was superseded by try {known.try_number}")
    # The same instance succeeded, but comes back: its triggerer died before Airflow heard of it.
    finished = known is not None and known.completed and (instance is None or known.instance != instance)
    going_on = known is not None and not finished and known.input_hash == input_hash
    if known is not None and not going_on:
        forget(connection, [*known.agents])
    epoch = 1 if known is None else known.epoch + 1
    statement = insert(threads).values(
        thread_id=thread_id,
        execution_id=execution_id,
        try_number=try_number,
        epoch=epoch,
        instance=instance,
        agents=list(agents),
        input_hash=input_hash,
        completed=False,
        updated_at=func.clock_timestamp(),
    )
    columns = ("execution_id", "try_number", "epoch", "instance", "agents", "input_hash", "completed", "updated_at")
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["thread_id"], set_={name: statement.excluded[name] for name in columns}
        )
    )
    return Claim(thread_id, try_number, epoch, going_on)


# In psycopg's style, for checkpoints too. Who takes a thread locks its row for update, in the same order.
HOLD = """
    SELECT thread_id, try_number, epoch
    FROM visual_ai.workflow_threads t
    JOIN unnest(%(threads)s::text[], %(tries)s::integer[], %(epochs)s::integer[])
        AS claim (thread_id, try_number, epoch) USING (thread_id, try_number, epoch)
    ORDER BY thread_id
    FOR KEY SHARE OF t
"""
"""Those of some claims that last; until the transaction ends, they then go on lasting."""


def holding(claims: Collection[Claim]) -> dict[str, Any]:
    """The parameters of `HOLD`."""
    return {
        "threads": [claim.thread_id for claim in claims],
        "tries": [claim.try_number for claim in claims],
        "epochs": [claim.epoch for claim in claims],
    }


def held(connection: Connection, claims: Collection[Claim]) -> set[Claim]:
    """Those of the claims that last; until the transaction ends, they then go on lasting."""
    lasting = {tuple(row) for row in connection.exec_driver_sql(HOLD, holding(claims))}
    return {claim for claim in claims if (claim.thread_id, claim.try_number, claim.epoch) in lasting}


def holds(connection: Connection, claim: Claim) -> bool:
    """Whether the claim lasts; see `held`."""
    return claim in held(connection, [claim])


def thread_of(dag_id: str, dag_run_id: str, task_id: str, map_index: int) -> str:
    """The thread of a task instance, the same for all its tries."""
    return f"{dag_id}/{dag_run_id}/{task_id}/{map_index}"


def complete(connection: Connection, thread_id: str, try_number: int) -> None:
    """The task succeeded in this try. Not before Airflow has its result: a try that dies until then is gone on from."""
    connection.execute(
        update(threads)
        .where(threads.c.thread_id == thread_id, threads.c.try_number == try_number)
        .values(completed=True, updated_at=func.clock_timestamp())
    )


def forget(connection: Connection, agent_threads: Sequence[str]) -> None:
    """Delete the checkpoints of LangGraph threads."""
    for table in _CHECKPOINT_TABLES:
        connection.execute(
            text(f"DELETE FROM visual_ai.{table} WHERE thread_id = ANY(:ids)"),  # noqa: S608  # a constant's names
            {"ids": list(agent_threads)},
        )


_PRUNE = text(
    """
    SELECT t.thread_id, t.agents FROM visual_ai.workflow_threads t
    JOIN visual_ai.workflow_executions e ON e.id = t.execution_id
    WHERE e.state IN ('success', 'failed', 'cancelled') AND e.finished_at < now() - make_interval(secs => :seconds)
    ORDER BY e.finished_at LIMIT :limit
    FOR UPDATE OF t SKIP LOCKED
    """
)


def prune(connection: Connection, *, older_than: float, limit: int) -> int:
    """Delete the checkpoints of at most `limit` task instances whose runs ended more than `older_than` seconds ago."""
    found = connection.execute(_PRUNE, {"seconds": older_than, "limit": limit}).all()
    if found:
        forget(connection, [agent for row in found for agent in row.agents])
        connection.execute(delete(threads).where(threads.c.thread_id.in_([row.thread_id for row in found])))
    return len(found)
