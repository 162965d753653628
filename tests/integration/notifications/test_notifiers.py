"""The notifier of DAGs, called as Airflow calls it in each of its processes, and what a webhook gets of it."""

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from airflow.sdk import DAG
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from backend.core.jsonable import dumps
from backend.core.settings import get_settings
from backend.db.runs.executions import RunState
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of
from tests.kit.notifications import LENIENT, all_handled, record_error, rows, states, target, wants
from tests.kit.servers.postgres import Postgres
from tests.kit.servers.webhooks import SECRET, Receiver
from visual_ai_notifiers import VisualAINotifier

ALERTS: dict[str, Any] = {"events": ["alert"]}


@pytest.fixture(autouse=True)
def airflows_process(pg: Postgres, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the environment of Airflow's processes has."""
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", pg.worker_url)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
async def http(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with application(database_url, FakeAirflow(), **PRODUCTION, **LENIENT) as app, client_of(app) as http:
        yield http


def run_fields(run_id: str = "r1", user: str | None = "ulla") -> dict[str, Any]:
    return {
        "dag_id": "reports",
        "run_id": run_id,
        "run_type": "manual",
        "conf": {"topic": "ships"},
        "start_date": datetime.fromisoformat("2026-01-01T12:00:00+00:00"),
        "triggering_user_name": user,
    }


def task_context(run_id: str = "r1", *, error: BaseException | None = None, **changes: Any) -> Any:
    """The context of a task's callback in its own process."""
    given = {"task_id": "work", "map_index": -1, "try_number": 2, "dag_id": "reports", "run_id": run_id, **changes}
    user = given.pop("user", "ulla")
    instance = SimpleNamespace(**{"state": "failed", **given})
    dag = DAG("reports", schedule=None, start_date=datetime(2024, 1, 1))
    context = {"dag": dag, "run_id": run_id, "ti": instance, "dag_run": SimpleNamespace(**run_fields(run_id, user))}
    return {**context, **({"exception": error} if error is not None else {})}


def dag_context(run_id: str = "r1", reason: str = "task_failure") -> Any:
    """The context of a DAG's callback in the DAG processor: with the last task instance, whatever that is."""
    return {**task_context(run_id, state="success"), "reason": reason}


async def test_of_a_failed_task(
    http: httpx.AsyncClient, ulla: Mapping[str, str], receiver: Receiver, database_url: str
) -> None:
    await wants(http, ulla, target(receiver, **ALERTS), target(receiver, "other"))
    error = TimeoutError("no answer; Authorization: Bearer abcdefghijklmnop")
    VisualAINotifier("{{ dag_run.conf.topic }} in {{ ti.task_id }}")(task_context(error=error))
    await all_handled(database_url)
    (got,) = receiver.received
    assert got.path == "/hook"
    assert got.signed_with(SECRET)
    assert got.json == got.json | {
        "event": "alert",
        "user_id": "ulla",
        "dag_id": "reports",
        "dag_run_id": "r1",
        "alert": {
            "message": "ships in work", "task_id": "work", "map_index": -1, "try_number": 2, "reason": None,
        },
        "error": {
            "category": "timeout",
            "exception_type": "TimeoutError",
            "message": "no answer; Authorization: [redacted]",
        },
    }  # fmt: skip


async def test_of_a_failed_run(
    http: httpx.AsyncClient, ulla: Mapping[str, str], receiver: Receiver, database_url: str, pg: Postgres
) -> None:
    await wants(http, ulla, target(receiver, **ALERTS))
    engine = create_engine(pg.worker_url, json_serializer=dumps)
    record_error(engine, RunState("reports", "r1", None, user="ulla"), "quota", "the account is empty")
    VisualAINotifier()(dag_context())
    await all_handled(database_url)
    engine.dispose()
    (got,) = receiver.received
    assert got.json["alert"] == {
        "message": "Run r1 of reports: task failure",
        "task_id": None,
        "map_index": None,
        "try_number": None,
        "reason": "task_failure",
    }
    assert (got.json["error"]["category"], got.json["error"]["message"]) == ("quota", "the account is empty")


async def test_of_a_run_that_succeeded_and_of_one_that_little_is_known_of(
    http: httpx.AsyncClient, ulla: Mapping[str, str], receiver: Receiver, database_url: str
) -> None:
    await wants(http, ulla, target(receiver, **ALERTS))
    VisualAINotifier()(dag_context("good", "success"))
    dag = DAG("reports", schedule=None, start_date=datetime(2024, 1, 1))
    little: Any = {"dag": dag, "run_id": "bad", "reason": "timed_out"}
    VisualAINotifier(user_id="ulla")(little)
    await all_handled(database_url)
    assert sorted((r.json["dag_run_id"], r.json["alert"]["message"], r.json["error"]) for r in receiver.received) == [
        ("bad", "Run bad of reports: timed out", None),
        ("good", "Run good of reports: success", None),
    ]


async def test_of_a_missed_deadline_in_the_triggerer(
    http: httpx.AsyncClient, ulla: Mapping[str, str], receiver: Receiver, database_url: str
) -> None:
    await wants(http, ulla, target(receiver, **ALERTS))
    # As Airflow hands it to the triggerer: JSON of the REST API.
    run = {**run_fields(), "dag_run_id": "r9", "start_date": "2026-01-01T12:00:00Z"}
    del run["run_id"]
    context: Any = {"dag_run": run, "deadline": {"id": "1", "deadline_time": "2026-01-01T13:00:00Z"}}
    await VisualAINotifier(context=context)
    await all_handled(database_url)
    assert receiver.received[0].json["alert"]["message"] == "Run r9 of reports: deadline missed"


async def test_airflow_may_call_it_twice_and_for_many_runs(
    http: httpx.AsyncClient, ulla: Mapping[str, str], receiver: Receiver, database_url: str
) -> None:
    await wants(http, ulla, target(receiver, **ALERTS))
    notifier = VisualAINotifier("{{ run_id }}, try {{ ti.try_number }}")
    for context in (task_context("a"), task_context("a"), task_context("a", try_number=3), task_context("b")):
        notifier(context)
    await all_handled(database_url)
    said = sorted(request.json["alert"]["message"] for request in receiver.received)
    assert said == ["a, try 2", "a, try 3", "b, try 2"]


async def test_a_named_user_and_a_named_target(
    http: httpx.AsyncClient, ulla: Mapping[str, str], receiver: Receiver, database_url: str
) -> None:
    await wants(http, ulla, target(receiver, **ALERTS), target(receiver, "named"))
    scheduled = task_context(user=None)
    VisualAINotifier("to all", user_id="ulla")(scheduled)
    VisualAINotifier("to one", user_id="{{ 'ulla' }}", target="named")(scheduled)
    VisualAINotifier("to none", user_id="ulla", target="unknown")(scheduled)
    await all_handled(database_url)
    assert sorted((request.path, request.json["alert"]["message"]) for request in receiver.received) == [
        ("/hook", "to all"),
        ("/named", "to one"),
    ]
    assert states(database_url) == {"sent": 2, "dead": 1}
    assert "no notification target of this name" in next(
        row["last_error"] for row in rows(database_url) if row["state"] == "dead"
    )


def test_nobody_to_tell_is_said_in_the_log(database_url: str) -> None:
    with capture_logs() as logs:
        VisualAINotifier(user_id="nobody")(task_context())
    assert "the user 'nobody' has no target for alerts" in logs[-1]["event"]
    assert rows(database_url, "notification_causes") == []


def test_a_database_that_is_away_is_tried_again_and_then_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", "postgresql+psycopg://nobody:pw@127.0.0.1:1/none")
    get_settings.cache_clear()
    with pytest.raises(OperationalError):
        VisualAINotifier()(task_context())


@pytest.mark.parametrize("argument", ["message", "user_id", "target"])
@pytest.mark.parametrize("value", ["", " ", 5])
def test_a_wrong_argument_fails_when_the_dag_is_parsed(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: has to be a text that is not empty$"):
        VisualAINotifier(**{argument: value})
