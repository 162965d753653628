"""Asks the backend for a run that is due, and waits for what comes of it. For the task of a schedule's DAG."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy.exc import IntegrityError

from backend.core.settings import get_settings
from backend.db import schedules
from backend.db.engine import make_engine

PATIENCE = 90.0
"""Seconds to wait for the backend. After that the task's next try asks for the same run."""

_POLL = 0.25


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a firing: a run was `started`; it was `skipped` because the schedule is paused or gone; it is to be
    asked for again `later`; or it has `failed`, and asking again doesn't help."""

    outcome: Literal["started", "skipped", "later", "failed"]
    detail: str | None = None
    dag_id: str | None = None
    dag_run_id: str | None = None


def ask_for_run(schedule_id: str, firing: str, *, logical_date: datetime | None, assets: Sequence[str] = ()) -> Answer:
    """Ask for the run of a firing, of which there is one however often it is asked for.

    Raises SQLAlchemy's `OperationalError` if the database is away; a retry helps.
    """
    engine = make_engine(get_settings().database_url, application="visual_ai_worker", pool_size=1)
    try:
        try:
            with engine.begin() as connection:
                schedules.ask(connection, schedule_id, firing, logical_date=logical_date, assets=list(assets))
        except IntegrityError:
            return Answer("skipped", "The schedule was deleted.")
        give_up = time.monotonic() + PATIENCE
        while True:
            with engine.begin() as connection:
                row = schedules.answer(connection, schedule_id, firing)
            if row is None:
                return Answer("skipped", "The schedule was deleted.")
            if row["outcome"] == "postponed":
                return Answer("later", row["detail"])
            if row["outcome"] is not None:
                return Answer(row["outcome"], row["detail"], row["dag_id"], row["dag_run_id"])
            if time.monotonic() >= give_up:
                return Answer("later", f"The backend hasn't answered for {PATIENCE:g} s; is it running?")
            time.sleep(_POLL)
    finally:
        engine.dispose()
