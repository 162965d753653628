"""Threads: which try of a task instance may write, and whether its agents resume where an earlier try stopped."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, select, text, update

from backend.core.jsonable import dumps
from backend.db.tables import workflow_threads as threads

_CHECKPOINT_TABLES = ("checkpoint_writes", "checkpoint_blobs", "checkpoints")


class SupersededError(RuntimeError):
    """A later try of the task has begun, so this one may no longer write. A retry doesn't help."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A try's right to write to a thread. It lasts until the next claim: by a later try, or by the same try in another
    triggerer, which has taken over the task."""

    thread_id: str
    try_number: int
    epoch: int
    resumes: bool
    """Whether an earlier claim left something to resume from."""


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A try's request for its task's thread, with the LangGraph threads of its `agents`. `instance` is Airflow's id of
    the task instance."""

    execution_id: str
    thread_id: str
    try_number: int
    agents: Sequence[str]
    input_hash: str
    instance: str | None = None


_TAKE = text(
    """
    INSERT INTO visual_ai.workflow_threads (
        thread_id, execution_id, try_number, epoch, instance, agents, input_hash, completed, updated_at, thinned)
    SELECT thread_id, execution_id, try_number, epoch, instance, agents, input_hash, false, clock_timestamp(), false
    FROM jsonb_populate_recordset(CAST(NULL AS visual_ai.workflow_threads), CAST(:rows AS jsonb))
    ON CONFLICT (thread_id) DO UPDATE SET
        execution_id = excluded.execution_id, try_number = excluded.try_number, epoch = excluded.epoch,
        instance = excluded.instance, agents = excluded.agents, input_hash = excluded.input_hash,
        completed = excluded.completed, updated_at = excluded.updated_at, thinned = excluded.thinned
    """
)


_CLOSE = text(
    """
    UPDATE visual_ai.questions SET closed_at = clock_timestamp(), closed_reason = 'the task began anew'
    WHERE thread_id = ANY(:threads) AND answered_at IS NULL AND closed_at IS NULL
    """
)


def begin(connection: Connection, requests: Sequence[ClaimRequest]) -> list[Claim | SupersededError]:
    """Take threads for tries; returns a claim for each, or an error where a later try holds the thread.

    Earlier claims can't write any more. What they left is deleted if it was for another input, or if the task had
    succeeded, because then a user wants it done again. Raises `sqlalchemy.exc.ProgrammingError` when two requests are
    for the same thread.
    """
    query = select(threads).where(threads.c.thread_id == func.any([one.thread_id for one in requests]))
    locked = connection.execute(query.order_by(threads.c.thread_id).with_for_update())
    known = {row.thread_id: row for row in locked}
    claims: list[Claim | SupersededError] = []
    taken: list[dict[str, Any]] = []
    left: list[str] = []
    for one in requests:
        last = known.get(one.thread_id)
        if last is not None and last.try_number > one.try_number:
            claims.append(
                SupersededError(f"try {one.try_number} of {one.thread_id} was superseded by try {last.try_number}")
            )
            continue
        # The same instance comes back although it succeeded: its triggerer died before it reported that to Airflow.
        finished = last is not None and last.completed and (one.instance is None or last.instance != one.instance)
        # A try that was parked for a person's answer goes on with what it began with, whatever its templates say now.
        same = last is not None and (
            last.input_hash == one.input_hash
            or (one.instance is not None and (last.instance, last.try_number) == (one.instance, one.try_number))
        )
        resumes = last is not None and not finished and same
        if last is not None and not resumes:
            left += last.agents
        claim = Claim(one.thread_id, one.try_number, 1 if last is None else last.epoch + 1, resumes)
        claims.append(claim)
        taken.append({**asdict(one), "epoch": claim.epoch})
    if left:
        forget(connection, left)
        connection.execute(_CLOSE, {"threads": left})
    if taken:
        connection.execute(_TAKE, {"rows": dumps(taken)})
    return claims


def begin_one(connection: Connection, request: ClaimRequest) -> Claim:
    """Take one thread. Raises `SupersededError` when a later try holds it."""
    (claim,) = begin(connection, [request])
    if isinstance(claim, SupersededError):
        raise claim
    return claim


# In psycopg's parameter style, because checkpoints use it as well. A new claim locks the rows for update, in the same
# order.
HOLD = """
    SELECT thread_id, try_number, epoch
    FROM visual_ai.workflow_threads t
    JOIN unnest(%(threads)s::text[], %(tries)s::integer[], %(epochs)s::integer[])
        AS claim (thread_id, try_number, epoch) USING (thread_id, try_number, epoch)
    ORDER BY thread_id
    FOR KEY SHARE OF t
"""
"""Selects those of the given claims that hold their threads, and locks them: no other try can take such a thread
before the transaction ends."""


def holding(claims: Collection[Claim]) -> dict[str, Any]:
    return {
        "threads": [claim.thread_id for claim in claims],
        "tries": [claim.try_number for claim in claims],
        "epochs": [claim.epoch for claim in claims],
    }


def held(connection: Connection, claims: Collection[Claim]) -> set[Claim]:
    """Those of the claims that hold their threads; no other try can take them before the transaction ends."""
    found = {tuple(row) for row in connection.exec_driver_sql(HOLD, holding(claims))}
    return {claim for claim in claims if (claim.thread_id, claim.try_number, claim.epoch) in found}


def superseded(claim: Claim) -> SupersededError:
    return SupersededError(
        f"try {claim.try_number} (epoch {claim.epoch}) of {claim.thread_id} was superseded by another claim"
    )


def thread_of(dag_id: str, dag_run_id: str, task_id: str, map_index: int) -> str:
    """The thread of a task instance, the same for all its tries."""
    return f"{dag_id}/{dag_run_id}/{task_id}/{map_index}"


_COMPLETE = text(
    """
    UPDATE visual_ai.workflow_threads t SET completed = true, updated_at = clock_timestamp()
    FROM unnest(CAST(:threads AS text[]), CAST(:tries AS integer[])) AS done (thread_id, try_number)
    WHERE t.thread_id = done.thread_id AND t.try_number = done.try_number
    """
)


def complete(connection: Connection, tries: Collection[tuple[str, int]]) -> None:
    """Mark the threads of tasks that have succeeded, each with the try. Call it once Airflow has the result: if the try
    dies before that, the next one resumes from it."""
    if tries:
        parameters = {"threads": [thread for thread, _ in tries], "tries": [number for _, number in tries]}
        connection.execute(_COMPLETE, parameters)


def forget(connection: Connection, agent_threads: Sequence[str]) -> None:
    """Delete the checkpoints of LangGraph threads."""
    for table in _CHECKPOINT_TABLES:
        query = text(f"DELETE FROM visual_ai.{table} WHERE thread_id = ANY(:ids)")  # noqa: S608  # constant names
        connection.execute(query, {"ids": list(agent_threads)})


_ENDED = """
    SELECT t.thread_id, t.agents FROM visual_ai.workflow_threads t
    JOIN visual_ai.workflow_executions e ON e.id = t.execution_id
    WHERE e.state IN ('success', 'failed', 'cancelled') AND e.finished_at < now() - make_interval(secs => :seconds)
        {also}
    ORDER BY e.finished_at LIMIT :limit
    FOR UPDATE OF t SKIP LOCKED
"""

_PRUNE = text(_ENDED.format(also=""))


def prune(connection: Connection, *, older_than: float, limit: int) -> int:
    """Delete the checkpoints of at most `limit` task instances whose runs ended more than `older_than` seconds ago."""
    found = connection.execute(_PRUNE, {"seconds": older_than, "limit": limit}).all()
    if found:
        forget(connection, [agent for row in found for agent in row.agents])
        connection.execute(delete(threads).where(threads.c.thread_id.in_([row.thread_id for row in found])))
    return len(found)


_UNTHINNED = text(_ENDED.format(also="AND NOT t.thinned"))
_LONG = text(
    """
    SELECT thread_id FROM visual_ai.checkpoints WHERE thread_id = ANY(:agents)
    GROUP BY thread_id HAVING count(*) > :steps
    """
)


def mark_thinned(connection: Connection, *, older_than: float, steps: int, limit: int) -> tuple[int, list[str]]:
    """Mark at most `limit` task instances whose runs ended more than `older_than` seconds ago; returns their number and
    those of their LangGraph threads that have more than `steps` checkpoints. Nobody can take the threads over before
    the transaction ends."""
    found = connection.execute(_UNTHINNED, {"seconds": older_than, "limit": limit}).all()
    if not found:
        return 0, []
    marked = threads.c.thread_id.in_([row.thread_id for row in found])
    connection.execute(update(threads).where(marked).values(thinned=True))
    agents = [agent for row in found for agent in row.agents]
    return len(found), list(connection.execute(_LONG, {"agents": agents, "steps": steps}).scalars())
