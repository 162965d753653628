"""Alerts of DAGs: what a `VisualAINotifier` says, queued by whatever process of Airflow it is called in."""

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
    """What is to be said, of which run, to whom.

    `user_id` None is the run's own user; `target` None is every target that wants alerts. `place` says where it comes
    from: `task_id`, `map_index` and `try_number` of a task, or none of them for the run, and the `reason` that Airflow
    gives. With `failed` it tells of a failure, whose error is looked up when it isn't given.
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
        """The same when Airflow calls the same notifier twice for the same thing."""
        said = sha256(f"{self.message}\0{self.target}\0{self.user_id}".encode()).hexdigest()[:16]
        return ":".join([*(str(self.place.get(name)) for name in ("task_id", "map_index", "try_number")), said])


def queue(database_url: str, alert: Alert) -> bool:
    """Queue an alert; says whether the user has anywhere to hear it.

    A database that is out of reach is tried again for some seconds. Raises `sqlalchemy.exc.DBAPIError` then.
    """
    engine = make_engine(database_url, application="visual_ai_notifier", pool_size=1)
    again = Retrying(
        stop=stop_after_attempt(4),
        wait=wait_random_exponential(multiplier=0.5, max=3),
        retry=retry_if_exception_type((OperationalError, InterfaceError)),
        reraise=True,
    )

    def write() -> bool:
        with engine.begin() as connection:
            return record(connection, alert)

    try:
        return again(write)
    finally:
        engine.dispose()


def record(connection: Connection, alert: Alert) -> bool:
    """The same in the caller's transaction."""
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
