"""Deletes the checkpoints of old runs."""

import logging

from backend.core.settings import get_settings
from backend.db.engine import task_engine
from backend.db.runs import threads

log = logging.getLogger(__name__)

BATCH = 500
"""Task instances per transaction, which keeps locks short."""


def prune_checkpoints(days: float | None = None) -> int:
    """Delete the checkpoints of runs that ended more than `days` ago (default: the setting); returns the number of task
    instances. Raises `OperationalError` when the database is unavailable; a retry deletes the rest."""
    settings = get_settings()
    age = (settings.checkpoint_retention_days if days is None else days) * 86_400
    engine = task_engine(settings.database_url)
    total = 0
    while True:
        with engine.begin() as connection:
            pruned = threads.prune(connection, older_than=age, limit=BATCH)
        total += pruned
        if pruned < BATCH:
            log.info("deleted the checkpoints of %s task instances", total)
            return total
