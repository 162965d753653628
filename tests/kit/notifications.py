"""Users who want notifications, and runs that cause them."""

import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row
from sqlalchemy import Engine

from backend.core.states import TaskState
from backend.db.address import plain_url
from backend.db.notification_causes import CHANNEL
from backend.db.runs import errors, executions, observations
from backend.db.runs.executions import RunState
from backend.db.runs.traces import Place
from tests.kit.servers.webhooks import SECRET, Receiver
from tests.kit.waiting import eventually

LENIENT: dict[str, Any] = {
    "allow_private_webhooks": True,
    "allow_http_webhooks": True,
    "webhook_first_wait": 0.002,
    "webhook_timeout": 5.0,
}
"""Settings that allow a receiver on the loopback, and retry soon."""


def target(receiver: Receiver, name: str = "hook", **changes: Any) -> dict[str, Any]:
    """A notification target whose URL is the receiver's path of the same name."""
    given = {"name": name, "url": receiver.url(f"/{name}"), "secret": SECRET, "events": ["run_failed"]}
    return {**given, **changes}


async def wants(http: httpx.AsyncClient, headers: Mapping[str, str], *targets: dict[str, Any]) -> None:
    """Make these the notification targets of the user that the headers belong to."""
    answer = await http.put("/users/me/preferences", json={"notification_targets": targets}, headers=headers)
    assert answer.status_code == 200, answer.text


def run_of(user: str | None, dag_run_id: str | None = None, state: str | None = "running", **more: Any) -> RunState:
    """A run of the DAG `reports` that belongs to a user."""
    given = {"started_at": datetime.now(UTC), "user": user, **more}
    return RunState("reports", dag_run_id or f"run-{uuid.uuid4().hex[:8]}", state, "manual", **given)


def seen(engine: Engine, run: RunState, *tasks: TaskState) -> str:
    """Record a run as Airflow's listener does, with the rights of a task. Returns the execution's id."""
    with engine.begin() as connection:
        return observations.observe(connection, run, tasks)


def fail(engine: Engine, user: str | None, dag_run_id: str | None = None, error: str | None = None) -> str:
    """Record a failed run, with an error if one is given. Returns its id in Airflow."""
    run = run_of(user, dag_run_id)
    seen(engine, run)
    if error is not None:
        record_error(engine, run, "auth", error)
    seen(engine, RunState(run.dag_id, run.dag_run_id, "failed", finished_at=datetime.now(UTC)))
    return run.dag_run_id


def record_error(engine: Engine, run: RunState, category: str, message: str = "429", **more: Any) -> None:
    """Record an error of a task of the run."""
    with engine.begin() as connection:
        execution_id = executions.ensure(connection, run)
        place = Place(run.dag_id, run.dag_run_id, "work", -1, 1, agent="text")
        errors.add(
            connection,
            execution_id,
            place,
            category=category,
            exception_type="openai.SomeError",
            message=message,
            action="fail",
            model="openai:gpt-4.1-mini",
            **more,
        )


def rows(url: str, table: str = "notifications") -> list[dict[str, Any]]:
    """The rows of a table of notifications, in the order of the events that they are about."""
    with psycopg.connect(plain_url(url), row_factory=dict_row) as connection:
        return connection.execute(f"SELECT * FROM visual_ai.{table} ORDER BY occurred_at").fetchall()


def states(url: str) -> Counter[str]:
    """The number of notifications in each state."""
    return Counter(row["state"] for row in rows(url))


async def all_handled(url: str) -> None:
    """Wait until every cause was processed and every notification was sent."""
    await eventually(lambda: not rows(url, "notification_causes") and "pending" not in states(url))


def at_once(url: str, **earlier: str) -> None:
    """Make everything that waits due now. With columns, move these times into the past instead."""
    moved = ", ".join(f"{column} = {column} - interval '{by}'" for column, by in earlier.items())
    with psycopg.connect(plain_url(url), autocommit=True) as connection:
        connection.execute(f"UPDATE visual_ai.notifications SET {moved or 'next_attempt_at = now()'}")
        connection.execute(f"NOTIFY {CHANNEL}")
