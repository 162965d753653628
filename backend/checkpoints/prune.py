"""Deletes the checkpoints of old runs: first those of the steps before the last, later all of them.

A retry resumes from the last checkpoint; the ones before it show how a run got there, and each of a long loop holds the
whole state as it was by then.
"""

import logging
from collections.abc import Callable
from contextlib import closing

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from sqlalchemy import Connection

from backend.checkpoints.pool import CONNECTION
from backend.core.settings import get_settings
from backend.db import store
from backend.db.address import plain_url
from backend.db.conversations import conversations
from backend.db.engine import task_engine
from backend.db.runs import threads

log = logging.getLogger(__name__)

DAY = 86_400
BATCH = 500
"""Task instances per transaction, which keeps locks short."""
THINNING_BATCH = 20
FEW_STEPS = 10
"""Threads with no more checkpoints than this aren't worth the statements of thinning them."""


def prune_checkpoints(days: float | None = None) -> int:
    """Delete the checkpoints of runs that ended more than `days` ago (default: the setting); returns the number of task
    instances. Raises `OperationalError` when the database is unavailable; a retry deletes the rest."""
    settings = get_settings()
    age = (settings.checkpoint_retention_days if days is None else days) * DAY
    total = _in_batches(lambda connection: threads.prune(connection, older_than=age, limit=BATCH))
    log.info("deleted the checkpoints of %s task instances", total)
    return total


def prune_conversations() -> int:
    """Delete the checkpoints of conversations that are deleted; returns the number of conversations. Raises as
    `prune_checkpoints`."""

    def prune(connection: Connection) -> int:
        found = conversations.deleted(connection, limit=BATCH)
        if found:
            threads.forget(connection, found)
        return len(found)

    return _in_batches(prune)


def prune_store() -> int:
    """Delete items of LangGraph's store whose time to live is over; returns their number. Raises as
    `prune_checkpoints`."""
    return _in_batches(lambda connection: store.delete_expired(connection, limit=BATCH))


def _in_batches(prune: Callable[[Connection], int]) -> int:
    """Repeat what deletes up to `BATCH` things, each time in a transaction of its own; returns how many there were."""
    engine = task_engine(get_settings().database_url)
    total = 0
    while True:
        with engine.begin() as connection:
            pruned = prune(connection)
        total += pruned
        if pruned < BATCH:
            return total


def thin_checkpoints(days: float | None = None) -> int:
    """Reduce runs that ended more than `days` ago (default: the setting) to the last checkpoint of each agent; returns
    the number of agents. Agents with a `DeltaChannel` keep all of theirs, from which LangGraph rebuilds their state.

    Raises `OperationalError` when the database is unavailable; a retry thins the rest.
    """
    settings = get_settings()
    age = (settings.checkpoint_history_days if days is None else days) * DAY
    engine = task_engine(settings.database_url)
    total = 0
    with closing(psycopg.connect(plain_url(settings.database_url), **CONNECTION)) as own:
        saver = PostgresSaver(own)
        while True:
            with engine.begin() as connection:
                found, agents = threads.mark_thinned(connection, older_than=age, steps=FEW_STEPS, limit=THINNING_BATCH)
                total += sum(_thinned(saver, agent) for agent in agents)
            if found < THINNING_BATCH:
                log.info("thinned the checkpoints of %s agents", total)
                return total


def _thinned(saver: PostgresSaver, agent: str) -> bool:
    try:
        saver.prune([agent], strategy="keep_latest")
    except NotImplementedError:  # LangGraph's answer for a DeltaChannel
        return False
    return True
