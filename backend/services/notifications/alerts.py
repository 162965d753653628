"""Queues the alerts that DAGs send with `VisualAINotifier`, from whichever Airflow process runs the callback."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, OperationalError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from backend.core.workflow_error_handler import classify
from backend.db import notification_causes
from backend.db.engine import make_engine
from backend.db.runs import executions
from backend.db.runs.executions import RunState


@dataclass(frozen=True, slots=True)
class Alert:
    """A message about a run.

    It goes to the user of the run unless `user_id` is given, and to every target subscribed to alerts unless `target`
    is given. `place` says where it comes from: `task_id`, `map_index` and `try_number` of a task, none of them for the
    run, and Airflow's `reason`. An alert that reports a failure has `failed` set; its error is looked up if it isn't
    given.
    """

    run: RunState
    message: str
    user_id: str | None = None
    target: str | None = None
    place: Mapping[str, Any] = field(default_factory=dict)
    failed: bool = False
    error: BaseException | None = None

    @property
    def cause(self) -> str:
        """Identifies the alert: Airflow may call a notifier twice for the same event."""
        digest = sha256(f"{self.message}\0{self.target}\0{self.user_id}".encode()).hexdigest()[:16]
        return ":".join([*(str(self.place.get(name)) for name in ("task_id", "map_index", "try_number")), digest])


def queue(database_url: str, alert: Alert) -> bool:
    """Queue an alert; return whether the user has a target for it.

    Retries for some seconds if the database is unavailable, then raises `sqlalchemy.exc.DBAPIError`.
    """
    engine = make_engine(database_url, application="visual_ai_notifier", pool_size=1)
    retrying = Retrying(
        stop=stop_after_attempt(4),
        wait=wait_random_exponential(multiplier=0.5, max=3),
        retry=retry_if_exception_type((OperationalError, InterfaceError)),
        reraise=True,
    )

    def write() -> bool:
        with engine.begin() as connection:
            return record(connection, alert)

    try:
        return retrying(write)
    finally:
        engine.dispose()


def record(connection: Connection, alert: Alert) -> bool:
    """Queue an alert in the transaction of the caller."""
    error = classify(alert.error) if alert.error is not None else None
    return notification_causes.alert(
        connection,
        executions.ensure(connection, alert.run),
        user_id=alert.user_id,
        target=alert.target,
        cause=alert.cause,
        message=alert.message,
        place=alert.place,
        failed=alert.failed,
        error={"category": error.category, "exception_type": error.exception_type, "message": error.message}
        if error is not None
        else None,
    )
