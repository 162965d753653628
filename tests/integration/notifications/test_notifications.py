"""From what happens in a run to a webhook: who is told, once, signed, repeated, or in the end not at all."""

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine

from backend.core.asking.questions import asked
from backend.core.asking.terms import QuestionTerms
from backend.db import questions
from backend.db.address import plain_url
from backend.db.questions import NewQuestion
from backend.db.runs.executions import RunState
from backend.db.runs.traces import Place
from backend.services.notifications.deliveries import signature
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, SCRAPER, application, sign_in
from tests.kit.documents.snippets import snippet
from tests.kit.notifications import (
    LENIENT,
    all_handled,
    at_once,
    fail,
    rows,
    run_of,
    seen,
    states,
    target,
    wants,
)
from tests.kit.servers.webhooks import SECRET, Answer, Receiver
from tests.kit.waiting import eventually

Headers = Mapping[str, str]
pytestmark = pytest.mark.usefixtures("reasons_not_awaited")


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[FastAPI]:
    async with application(database_url, FakeAirflow(), **PRODUCTION, **LENIENT) as app:
        yield app


# Who is told of what


async def test_whoever_shall_answer_a_question_is_told(
    http: httpx.AsyncClient, ulla: Headers, receiver: Receiver, worker: Engine, engine: Engine, database_url: str
) -> None:
    for user in ("ulla", "uwe"):
        headers = ulla if user == "ulla" else await sign_in(http, user)
        await wants(http, headers, target(receiver, user, events=["question"]))
    run = run_of("ulla")
    execution_id = seen(worker, run)
    place = Place(run.dag_id, run.dag_run_id, "work", -1, 1, "asker", "graph")
    new = [NewQuestion("thread", "pause", "asker", "node", asked("Who?", None, "node"))]
    with worker.begin() as connection:
        (event,) = questions.ask(connection, execution_id, place, new, QuestionTerms())
    await all_handled(database_url)
    (told,) = receiver.at("/ulla")
    question_id = event.payload["question_id"]
    assert (told.json["event"], told.json["dag_run_id"]) == ("question", run.dag_run_id)
    assert told.json["question"] == told.json["question"] | {
        "question_id": question_id,
        "subject": "Who?",
        "task_id": "work",
        "url": f"http://localhost:8000/inbox/{question_id}",
    }
    with engine.begin() as connection:
        assert questions.assign(connection, question_id, ["uwe"])
    await all_handled(database_url)
    assert len(receiver.at("/ulla")) == len(receiver.at("/uwe")) == 1


async def test_a_failed_run_is_told(
    http: httpx.AsyncClient, ulla: Headers, receiver: Receiver, worker: Engine, database_url: str
) -> None:
    await wants(http, ulla, target(receiver))
    run_id = fail(worker, "ulla", error="Incorrect API key provided: sk-proj-0123456789abcdef")
    await all_handled(database_url)
    (got,) = receiver.at("/hook")
    assert got.signed_with(SECRET)
    assert not got.signed_with("another secret, as long")
    (row,) = rows(database_url)
    assert got.headers["x-visual-ai-id"] == got.json["id"] == str(row["id"])
    assert got.headers["x-visual-ai-event"] == "run_failed"
    assert got.json == got.json | {
        "event": "run_failed",
        "user_id": "ulla",
        "dag_id": "reports",
        "dag_run_id": run_id,
        "execution_id": str(row["execution_id"]),
        "state": "failed",
        "attempt": 1,
        "usage": {"input_tokens": 0, "output_tokens": 0},
        "cost_usd": None,
        "status_url": f"http://localhost:8000/workflow-status/reports/{run_id}",
        "airflow_url": f"http://127.0.0.1:8080/dags/reports/runs/{run_id}",
    }
    assert got.json["error"] == got.json["error"] | {
        "category": "auth",
        "exception_type": "openai.SomeError",
        "message": "Incorrect API key provided: [redacted]",
        "task_id": "work",
        "agent": "text",
        "model": "openai:gpt-4.1-mini",
    }
    assert datetime.fromisoformat(got.json["occurred_at"]) <= datetime.now(UTC)
    assert (row["state"], row["attempts"], row["last_status"]) == ("sent", 1, 200)


async def test_receivers_are_told_how_to_check(
    http: httpx.AsyncClient, ulla: Headers, receiver: Receiver, worker: Engine, database_url: str
) -> None:
    names: dict[str, Any] = {}
    exec(snippet("signature"), names)  # noqa: S102  # the documents' own code
    is_genuine = names["is_genuine"]
    await wants(http, ulla, target(receiver))
    fail(worker, "ulla")
    await all_handled(database_url)
    (got,) = receiver.received
    header = got.headers["x-visual-ai-signature"]
    assert is_genuine(SECRET, header, got.body)
    assert not is_genuine(SECRET, header, got.body + b" ")
    assert not is_genuine("another secret, as long", header, got.body)
    assert not is_genuine(SECRET, signature(SECRET, got.body, int(time.time()) - 600), got.body), "an old one"


async def test_a_failure_without_a_known_error(
    http: httpx.AsyncClient, ulla: Headers, receiver: Receiver, worker: Engine, database_url: str
) -> None:
    await wants(http, ulla, target(receiver))
    fail(worker, "ulla")
    await all_handled(database_url)
    assert receiver.at("/hook")[0].json["error"] is None


async def test_however_often_it_is_seen_it_is_told_once_for_each_attempt_at_the_run(
    http: httpx.AsyncClient, ulla: Headers, receiver: Receiver, worker: Engine, database_url: str
) -> None:
    await wants(http, ulla, target(receiver))
    run_id = fail(worker, "ulla", "r", error="the first error")
    over = RunState("reports", run_id, "failed")
    seen(worker, over)
    seen(worker, RunState("reports", run_id, "success"))  # set by hand in Airflow
    seen(worker, over)
    await all_handled(database_url)
    assert len(receiver.at("/hook")) == 1
    seen(worker, run_of("ulla", "r"))  # cleared: it starts again
    seen(worker, over)
    await all_handled(database_url)
    assert [request.json["attempt"] for request in receiver.at("/hook")] == [1, 2]
    assert receiver.at("/hook")[1].json["error"] is None, "that was the first attempt's"


async def test_what_nobody_wants_to_hear_of_leaves_nothing(
    http: httpx.AsyncClient, ulla: Headers, receiver: Receiver, worker: Engine, database_url: str
) -> None:
    await wants(http, ulla, target(receiver, events=["alert"]), target(receiver, "off", enabled=False))
    fail(worker, "ulla")
    fail(worker, None)
    fail(worker, "uwe")
    await wants(http, ulla, target(receiver))
    seen(worker, run_of("ulla", "a"))
    seen(worker, run_of("ulla", "a", "success"))
    seen(worker, run_of("ulla", "b"))
    seen(worker, run_of("ulla", "b", "cancelled"))
    assert rows(database_url, "notification_causes") == rows(database_url) == []
    fail(worker, "ulla")
    await all_handled(database_url)
    assert len(receiver.received) == 1


async def test_each_target_is_told(
    http: httpx.AsyncClient, ulla: Headers, receiver: Receiver, worker: Engine, database_url: str
) -> None:
    uwe = await sign_in(http, "uwe")
    await wants(http, ulla, target(receiver, "a"), target(receiver, "b"), target(receiver, "c", events=["alert"]))
    await wants(http, uwe, target(receiver, "u"))
    fail(worker, "ulla")
    await all_handled(database_url)
    assert sorted(request.path for request in receiver.received) == ["/a", "/b"]
    assert len({request.json["id"] for request in receiver.received}) == 2


async def test_a_run_whose_task_was_seen_first_still_finds_its_user(
    http: httpx.AsyncClient, ulla: Headers, receiver: Receiver, worker: Engine, database_url: str
) -> None:
    await wants(http, ulla, target(receiver))
    seen(worker, run_of(None, "r", None))  # by a task, which does not know who started the run
    seen(worker, replace(run_of(None, "r"), user="ulla"))
    seen(worker, RunState("reports", "r", "failed"))
    await all_handled(database_url)
    assert receiver.events() == ["run_failed"]


async def test_what_somebody_else_wrote_for_a_user_stops_nobody(
    http: httpx.AsyncClient, ulla: Headers, receiver: Receiver, worker: Engine, database_url: str
) -> None:
    await wants(http, ulla, target(receiver))
    with psycopg.connect(plain_url(database_url), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO visual_ai.user_preferences (user_id, settings, notified_events)"
            """ VALUES ('uwe', '{"notification_targets": [{"url": 5}]}', '{run_failed}')"""
        )
    uwe = await sign_in(http, "uwe")
    fail(worker, "uwe")
    fail(worker, "ulla")
    await all_handled(database_url)
    assert len(receiver.at("/hook")) == 1
    assert (await http.get("/users/me/preferences", headers=uwe)).json()["notification_targets"] == []
    await wants(http, uwe, target(receiver, "u"))
    fail(worker, "uwe")
    await all_handled(database_url)
    assert len(receiver.at("/u")) == 1


# Attempts


async def test_it_is_repeated_until_the_receiver_has_it(
    http: httpx.AsyncClient, ulla: Headers, receiver: Receiver, worker: Engine, database_url: str
) -> None:
    await wants(http, ulla, target(receiver))
    receiver.script("/hook", Answer(500), Answer(cut=True), Answer(404), Answer())
    fail(worker, "ulla")
    await all_handled(database_url)
    got = receiver.at("/hook")
    assert len(got) == 4
    assert len({request.body for request in got}) == 1, "the same body and id each time"
    assert all(request.signed_with(SECRET) for request in got)
    (row,) = rows(database_url)
    assert (row["state"], row["attempts"], row["last_error"]) == ("sent", 4, None)
    text = (await http.get("/metrics", headers=SCRAPER)).text
    assert 'visual_ai_notifications_total{outcome="sent"} 1.0' in text
    assert 'visual_ai_notifications_total{outcome="failed"} 3.0' in text


async def test_what_the_receiver_asks_to_wait_is_waited(
    http: httpx.AsyncClient, ulla: Headers, receiver: Receiver, worker: Engine, database_url: str
) -> None:
    await wants(http, ulla, target(receiver))
    receiver.script("/hook", Answer(503, {"Retry-After": "3600"}))
    fail(worker, "ulla")
    await eventually(lambda: [row["last_status"] for row in rows(database_url)] == [503])
    (row,) = rows(database_url)
    assert 3500 < (row["next_attempt_at"] - datetime.now(UTC)).total_seconds() < 4000
    assert (row["state"], row["attempts"], row["last_error"]) == ("pending", 1, "the receiver answered 503")


async def test_what_can_not_be_delivered_is_listed_and_sent_again(
    http: httpx.AsyncClient, ulla: Headers, receiver: Receiver, worker: Engine, database_url: str
) -> None:
    await wants(http, ulla, target(receiver), target(receiver, "other"))
    receiver.script("/hook", Answer(500))
    fail(worker, "ulla")
    await all_handled(database_url)
    assert len(receiver.at("/hook")) == 10
    otto = await sign_in(http, "otto")
    dead = (await http.get("/notifications", params={"state": "dead"}, headers=otto)).json()["notifications"]
    assert [(n["target"], n["attempts"], n["status"], n["error"]) for n in dead] == [
        ("hook", 10, 500, "the receiver answered 500")
    ]
    assert dead[0]["payload"]["dag_id"] == "reports"
    assert 'outcome="dead"} 1.0' in (await http.get("/metrics", headers=SCRAPER)).text

    again = f"/notifications/{dead[0]['id']}/resend"
    for headers, path, status in (
        (ulla, again, 403),
        (otto, "/notifications/none/resend", 404),
        (otto, "/notifications/00000000-0000-0000-0000-000000000001/resend", 404),
    ):
        assert (await http.post(path, headers=headers)).status_code == status
    receiver.script("/hook", Answer(500), Answer())
    answer = await http.post(again, headers=otto)
    assert (answer.status_code, answer.json()["state"], answer.json()["attempts"]) == (202, "pending", 0)
    await all_handled(database_url)
    assert len({request.json["id"] for request in receiver.at("/hook")}) == 1
    assert states(database_url) == {"sent": 2}
    conflict = await http.post(again, headers=otto)
    assert (conflict.status_code, conflict.json()["detail"]) == (
        409,
        "Only a notification that was given up can be sent again; this one is sent.",
    )


async def test_the_list_has_pages_and_is_for_op_and_admin(
    http: httpx.AsyncClient, ulla: Headers, receiver: Receiver, worker: Engine, database_url: str
) -> None:
    await wants(http, ulla, target(receiver))
    for _ in range(5):
        fail(worker, "ulla")
    await all_handled(database_url)
    otto, victor = await sign_in(http, "otto"), await sign_in(http, "victor")
    found: list[str] = []
    cursor = None
    while cursor is not None or not found:
        params: dict[str, Any] = {"limit": 2, "user_id": "ulla", **({"cursor": cursor} if cursor else {})}
        page = (await http.get("/notifications", params=params, headers=otto)).json()
        assert len(page["notifications"]) <= 2
        found += [entry["id"] for entry in page["notifications"]]
        cursor = page["next_cursor"]
    assert sorted(found) == sorted(str(row["id"]) for row in rows(database_url))
    assert (await http.get("/notifications?user_id=uwe", headers=otto)).json()["notifications"] == []
    assert (await http.get("/notifications?cursor=x", headers=otto)).status_code == 422
    for headers in (ulla, victor):
        assert (await http.get("/notifications", headers=headers)).status_code == 403


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"enabled": False}, "the target is disabled"),
        ({"name": "renamed"}, "the user has no notification target of this name"),
        ({}, "the receiver answered 410: it wants no more notifications"),
    ],
)
async def test_what_is_no_use_to_repeat(
    http: httpx.AsyncClient,
    ulla: Headers,
    receiver: Receiver,
    worker: Engine,
    database_url: str,
    change: dict[str, Any],
    error: str,
) -> None:
    await wants(http, ulla, target(receiver))
    receiver.script("/hook", Answer(503, {"Retry-After": "3600"}), Answer(410))
    fail(worker, "ulla")
    await eventually(lambda: [row["last_status"] for row in rows(database_url)] == [503])
    await wants(http, ulla, target(receiver, **change))
    at_once(database_url)
    await all_handled(database_url)
    (row,) = rows(database_url)
    assert (row["state"], row["attempts"], row["last_error"]) == ("dead", 2, error)
