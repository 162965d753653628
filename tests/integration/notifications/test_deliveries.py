"""Deliveries when something dies, hangs or is many: nothing is lost, and nobody waits for somebody else's target."""

import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import Engine, create_engine

from backend.core.jsonable import dumps
from backend.db import notifications
from backend.db.address import plain_url
from backend.services.notifications import deliveries
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, sign_in
from tests.kit.notifications import LENIENT, all_handled, at_once, fail, rows, states, target, wants
from tests.kit.servers.postgres import Postgres
from tests.kit.servers.webhooks import SECRET, Answer, Receiver
from tests.kit.waiting import eventually

pytestmark = pytest.mark.usefixtures("reasons_not_awaited")


@pytest.fixture(autouse=True)
def short_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is not waited for at the end of a process."""
    monkeypatch.setattr(deliveries, "SHUTDOWN_SECONDS", 0.1)


@asynccontextmanager
async def backend(url: str, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A backend process."""
    async with application(url, FakeAirflow(), **{**PRODUCTION, **LENIENT, **changes}) as app, client_of(app) as http:
        yield http


async def wanted_by(http: httpx.AsyncClient, user: str, *targets: dict[str, Any]) -> None:
    await wants(http, await sign_in(http, user), *targets)


def leased(url: str) -> int:
    """Notifications of which an attempt is being made, or was when a process died."""
    return sum(row["state"] == "pending" and row["attempts"] > 0 for row in rows(url))


async def test_what_happens_while_no_backend_runs_is_told_when_one_does(
    database_url: str, worker: Engine, receiver: Receiver
) -> None:
    async with backend(database_url) as http:
        await wanted_by(http, "ulla", target(receiver))
    fail(worker, "ulla")
    assert len(rows(database_url, "notification_causes")) == 1
    async with backend(database_url):
        await all_handled(database_url)
    assert receiver.events() == ["run_failed"]


async def test_a_process_that_ends_gives_back_what_it_has_in_hand(
    database_url: str, worker: Engine, receiver: Receiver
) -> None:
    receiver.script("/hook", Answer(hang=True), Answer())
    async with backend(database_url, webhook_timeout=60) as http:
        await wanted_by(http, "ulla", target(receiver))
        fail(worker, "ulla")
        await eventually(lambda: receiver.received)
    assert leased(database_url) == 0
    async with backend(database_url):
        await all_handled(database_url)
    first, second = receiver.at("/hook")
    assert first.json == second.json
    assert rows(database_url)[0]["attempts"] == 1


async def test_what_a_killed_process_had_in_hand_is_sent_by_another(
    database_url: str, worker: Engine, receiver: Receiver
) -> None:
    async with backend(database_url, webhook_timeout=60) as http:
        await wanted_by(http, "ulla", target(receiver))
        receiver.script("/hook", Answer(hang=True))
        fail(worker, "ulla")
        await eventually(lambda: receiver.received)
        kept = rows(database_url)[0]
    engine = create_engine(database_url, json_serializer=dumps)
    with engine.begin() as connection:  # the killed one could not give it back
        (due,) = notifications.claim(connection, (), named_only=False, limit=5, lease=3600)
    receiver.script("/hook", Answer())
    async with backend(database_url):
        assert due.id == str(kept["id"])
        with engine.begin() as connection:
            assert notifications.claim(connection, (), named_only=False, limit=5, lease=1) == [], "it is taken"
        at_once(database_url)
        await all_handled(database_url)
    engine.dispose()
    assert [request.json["id"] for request in receiver.at("/hook")] == [due.id] * 2


async def test_replicas_share_the_work_and_send_each_once(
    database_url: str, worker: Engine, receiver: Receiver
) -> None:
    async with backend(database_url) as http, backend(database_url), backend(database_url):
        await wanted_by(http, "ulla", *(target(receiver, f"t{n}") for n in range(4)))
        await wanted_by(http, "uwe", target(receiver, "u"))
        for _ in range(15):
            fail(worker, "ulla")
            fail(worker, "uwe")
        await eventually(lambda: states(database_url) == {"sent": 75}, 30)
    assert Counter(Counter(r.json["id"] for r in receiver.received).values()) == {1: 75}


async def test_a_target_that_hangs_delays_nobody_else(database_url: str, worker: Engine, receiver: Receiver) -> None:
    receiver.script("/dead", Answer(hang=True))
    async with backend(database_url, webhook_timeout=60, webhook_concurrency=4) as http:
        await wanted_by(http, "ulla", target(receiver, "dead"), target(receiver, "own"))
        await wanted_by(http, "uwe", target(receiver, "good"))
        for _ in range(10):
            fail(worker, "ulla")
            fail(worker, "uwe")
        await eventually(lambda: len(receiver.at("/good")) == len(receiver.at("/own")) == 10)
        assert len(receiver.at("/dead")) == 1


async def test_many_that_hang_delay_nobody_either(database_url: str, worker: Engine, receiver: Receiver) -> None:
    names = [f"dead{n}" for n in range(8)]
    for name in names:
        receiver.script(f"/{name}", Answer(cut=True), Answer(hang=True))
    async with backend(database_url, webhook_timeout=60, webhook_concurrency=4) as http:
        await wanted_by(http, "ulla", *(target(receiver, name) for name in names))
        await wanted_by(http, "uwe", target(receiver, "good"))
        fail(worker, "ulla")  # each fails once, and from then on has a place among those that don't answer
        hanging = [f"/{name}" for name in names]
        await eventually(lambda: sum(request.path in hanging for request in receiver.received) == 10)
        fail(worker, "uwe")
        await eventually(lambda: states(database_url)["sent"] == 1)
        assert leased(database_url) == 8
        assert sum(request.path in hanging for request in receiver.received) == 10


async def test_what_is_too_old_is_given_up_and_what_is_over_goes_in_the_end(
    database_url: str, worker: Engine, receiver: Receiver
) -> None:
    receiver.script("/hook", Answer(503, {"Retry-After": "3600"}))
    async with backend(database_url) as http:
        await wanted_by(http, "ulla", target(receiver))
        fail(worker, "ulla")
        await eventually(lambda: [row["last_status"] for row in rows(database_url)] == [503])
    at_once(database_url, queued_at="24 hours 1 second")
    async with backend(database_url):
        await all_handled(database_url)
    (row,) = rows(database_url)
    assert (row["state"], row["last_error"]) == ("dead", "not delivered within 24 hours; the receiver answered 503")
    at_once(database_url, finished_at="29 days")
    async with backend(database_url):
        await eventually(lambda: listening(database_url))
    assert states(database_url) == {"dead": 1}
    at_once(database_url, finished_at="1 day 1 second")
    async with backend(database_url):
        await eventually(lambda: not rows(database_url))


def listening(url: str) -> list[int]:
    """The connections that hear of new notifications."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'visual_ai_notifications'"
    with psycopg.connect(plain_url(url)) as connection:
        return [pid for (pid,) in connection.execute(query)]


async def test_a_lost_connection_is_made_again(
    database_url: str, worker: Engine, receiver: Receiver, pg: Postgres
) -> None:
    async with backend(database_url) as http:
        await wanted_by(http, "ulla", target(receiver))
        await eventually(lambda: listening(database_url))
        with psycopg.connect(plain_url(pg.admin_url), autocommit=True) as admin:
            for pid in listening(database_url):
                admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        fail(worker, "ulla")
        await all_handled(database_url)
        await eventually(lambda: listening(database_url))
        anna = await sign_in(http, "anna")
        health = (await http.get("/monitoring/system-health", headers=anna)).json()
        assert health["components"]["notifications"]["status"] == "healthy"
    assert receiver.events() == ["run_failed"]


async def test_a_host_that_has_become_private_is_not_asked(
    database_url: str, worker: Engine, receiver: Receiver
) -> None:
    async with backend(database_url) as http:
        await wanted_by(http, "ulla", target(receiver))
    fail(worker, "ulla")
    async with backend(database_url, allow_private_webhooks=False):
        await all_handled(database_url)
    (row,) = rows(database_url)
    assert (row["state"], row["attempts"]) == ("dead", 1)
    assert row["last_error"].startswith("the host is not on the public internet")
    assert receiver.received == []


async def test_a_secret_that_can_not_be_read_any_more(database_url: str, worker: Engine, receiver: Receiver) -> None:
    async with backend(database_url) as http:
        await wanted_by(http, "ulla", target(receiver))
    fail(worker, "ulla")
    async with backend(database_url, jwt_secret="t" * 32) as http:
        await all_handled(database_url)
        (row,) = rows(database_url)
        assert row["last_error"] == "the target's secret can't be decrypted any more; its owner has to set it again"
        await wanted_by(http, "ulla", target(receiver, secret="another secret, as long"))
        otto = await sign_in(http, "otto")
        assert (await http.post(f"/notifications/{row['id']}/resend", headers=otto)).status_code == 202
        await all_handled(database_url)
    (request,) = receiver.received
    assert request.signed_with("another secret, as long")


async def test_secrets_stand_in_no_log_and_no_row(
    database_url: str, worker: Engine, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("a", "b", "c"):
        receiver.script(f"/{name}?key=in-the-address", Answer(500), Answer(cut=True), Answer(410))
    async with backend(database_url) as http:
        targets = [target(receiver, name, url=receiver.url(f"/{name}?key=in-the-address")) for name in ("a", "b", "c")]
        await wanted_by(http, "ulla", *targets)
        fail(worker, "ulla")
        await all_handled(database_url)
        otto = await sign_in(http, "otto")
        shown = (await http.get("/notifications", headers=otto)).text
    assert states(database_url) == {"dead": 3}
    told = caplog.text + shown + str(rows(database_url))
    assert "was given up after attempt 3" in caplog.text
    for secret in (SECRET, "in-the-address", receiver.received[0].headers["x-visual-ai-signature"][-32:]):
        assert secret not in told
