"""The audit log: what is recorded, who may read it, and that nobody changes it."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from backend.core.audit import Entry
from backend.db.address import plain_url
from backend.services.identity.audit_log import AuditLog
from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, sign_in
from tests.kit.pictures import encode, photo
from tests.kit.servers.postgres import Postgres, locked_out

DAG = "visual_ai_workflow"
INPUT = {"query": "x", "image_url": "sample://invoice"}
Headers = Mapping[str, str]
Json = dict[str, Any]


@pytest.fixture
async def anna(http: httpx.AsyncClient) -> Headers:
    return await sign_in(http, "anna")


async def entries(http: httpx.AsyncClient, headers: Headers, **query: Any) -> list[Json]:
    answer = await http.get("/audit", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: list[Json] = answer.json()["entries"]
    return found


async def awaited(http: httpx.AsyncClient, headers: Headers, count: int = 1, **query: Any) -> list[Json]:
    """At least `count` entries: refusals are written soon after their response."""
    for _ in range(100):
        found = await entries(http, headers, **query)
        if len(found) >= count:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{len(found)} entries of {query}")


async def until(http: httpx.AsyncClient, headers: Headers, condition: Callable[[httpx.Response], bool]) -> None:
    """Return when `GET /users/me` answers as it should."""
    for _ in range(100):
        if condition(await http.get("/users/me", headers=headers)):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the account is what it was")


async def test_sign_ins_are_recorded_with_who_when_and_from_where(http: httpx.AsyncClient, anna: Headers) -> None:
    await http.post("/auth/token", json={"username": "Ulla", "password": "a wrong password"})
    answer = await http.post(
        "/auth/token",
        json={"username": "ulla", "password": PASSWORD},
        headers={"X-Forwarded-For": "203.0.113.9", "X-Request-ID": "of-ulla"},
    )
    http.cookies.clear()
    token = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    await http.post("/auth/logout", headers=token)
    left, done, failed = await awaited(http, anna, 3, user="ulla")
    assert (failed["action"], failed["outcome"], failed["role"]) == ("sign_in", "failed", None)
    assert (done["action"], done["outcome"], done["role"]) == ("sign_in", "done", "User")
    assert (done["address"], done["request_id"]) == ("203.0.113.9", "of-ulla")
    assert (left["action"], left["outcome"]) == ("sign_out", "done")
    assert done["credential"] == left["credential"]
    assert done["credential"].startswith("session:")
    assert len(done["credential"]) == len("session:") + 8
    text = json.dumps([left, done, failed])
    assert "a wrong password" not in text
    assert PASSWORD not in text
    assert answer.json()["access_token"] not in text


async def test_airflow_tokens_and_attempts_that_are_slowed_down(http: httpx.AsyncClient, anna: Headers) -> None:
    await http.post("/auth/airflow", json={"airflow_token": "e30.e30.e30"})
    [failed] = await awaited(http, anna, action="sign_in.airflow")
    assert (failed["outcome"], failed["user_id"]) == ("failed", None)
    for _ in range(12):
        await http.post("/auth/token", json={"username": "ulla", "password": "wrong"})
    await awaited(http, anna, user="ulla", outcome="refused")
    assert len(await entries(http, anna, user="ulla", outcome="failed")) == 5
    [refused] = await entries(http, anna, user="ulla", outcome="refused")
    assert refused["details"]["status"] == 429


async def test_changes_are_recorded(app: FastAPI, http: httpx.AsyncClient, airflow: FakeAirflow, anna: Headers) -> None:
    ulla = await sign_in(http, "ulla")
    made = await http.post("/tokens", json={"name": "nightly", "scopes": ["read"]}, headers=ulla)
    token_id, secret = made.json()["id"], made.json()["token"]
    await http.delete(f"/tokens/{token_id}", headers=anna)
    await http.delete(f"/tokens/{token_id}", headers=anna)
    prompt = "a prompt that nobody should read here"
    body = {"dag_id": DAG, "input_data": {"query": prompt, "image_url": "sample://invoice"}}
    run = (await http.post("/workflows/trigger", json=body, headers=ulla)).json()
    await http.post(
        "/workflows/trigger/batch",
        json={"dag_id": DAG, "inputs": [INPUT | {"query": prompt}, {"query": 1}]},
        headers=ulla,
    )
    await http.post(f"/workflows/{DAG}/runs/{run['dag_run_id']}/cancel", headers=ulla)
    definition = {"dag_id": DAG, "input_data": {"query": prompt}}
    await http.post("/templates", json={"name": "mine", "definition": definition}, headers=ulla)
    await http.post("/templates/mine/versions", json={"definition": definition}, headers=ulla)
    await http.post("/templates/mine/versions/2/activate", headers=ulla)
    await http.post("/templates/mine/retire", headers=ulla)
    await http.post("/templates/mine/retire", headers=ulla)
    target = {"name": "hook", "url": "https://93.184.216.34/a-secret-path", "secret": "the secret of a webhook"}
    await http.put(
        "/users/me/preferences",
        json={"default_model": None, "notification_targets": [target | {"events": ["run_failed"]}]},
        headers=ulla,
    )
    await http.post("/images", files={"file": ("a.png", encode(photo()), "image/png")}, headers=ulla)
    await http.post("/users/me/sign-out?service_tokens=true", headers=ulla)
    await awaited(http, anna, action="run.trigger_batch")
    found = await entries(http, anna, limit=200)
    acts = sorted((one["user_id"], one["action"]) for one in found if one["action"] != "sign_in")
    assert acts == sorted([
        ("ulla", "token.create"), ("anna", "token.revoke"), ("ulla", "run.trigger"), ("ulla", "run.trigger"),
        ("ulla", "run.trigger_batch"), ("ulla", "run.cancel"), ("ulla", "template.create"),
        ("ulla", "template.add_version"), ("ulla", "template.activate"), ("ulla", "template.retire"),
        ("ulla", "preferences.change"), ("ulla", "image.upload"), ("ulla", "sign_out.everywhere"),
    ])  # fmt: skip
    assert all(one["outcome"] == "done" and one["address"] == "127.0.0.1" and one["request_id"] for one in found)
    by_action = {one["action"]: one for one in found}
    assert by_action["run.cancel"]["object"] == f"{DAG}/{run['dag_run_id']}"
    assert by_action["run.trigger_batch"]["details"] == {"started": 1, "refused": 1}
    assert by_action["token.revoke"]["details"]["owner"] == "ulla"
    assert by_action["preferences.change"]["details"] == {"changed": ["notification target hook"]}
    text = json.dumps(found)
    for hidden in (prompt, secret, "a-secret-path", "the secret of a webhook"):
        assert hidden not in text


async def test_what_a_service_token_does_is_told_from_what_its_user_does(
    http: httpx.AsyncClient, airflow: FakeAirflow, anna: Headers
) -> None:
    ulla = await sign_in(http, "ulla")
    made = (await http.post("/tokens", json={"name": "ci", "scopes": ["trigger"]}, headers=ulla)).json()
    machine = {"Authorization": f"Bearer {made['token']}"}
    body = {"dag_id": DAG, "input_data": INPUT}
    assert (await http.post("/workflows/trigger", json=body, headers=machine)).status_code == 202
    [started] = await entries(http, anna, action="run.trigger")
    assert (started["user_id"], started["credential"]) == ("ulla", f"token:{made['prefix']}")


async def test_refusals_are_recorded_once_a_minute(http: httpx.AsyncClient, anna: Headers) -> None:
    victor = await sign_in(http, "victor")
    for _ in range(20):
        assert (await http.post("/tokens/x/y", headers=victor)).status_code == 404
        assert (await http.get("/audit", headers=victor)).status_code == 403
        assert (await http.post("/templates", json={}, headers=victor)).status_code in (403, 422)
        assert (await http.get("/workflow-status")).status_code == 401
        assert (await http.post("/images", files={"file": b""})).status_code in (401, 422)
        assert (await http.get("/users/me", headers={"Authorization": "Bearer forged"})).status_code == 401
    found = await awaited(http, anna, 3, action="request.refused")
    refused = {(one["user_id"], one["object"], one["details"]["status"]) for one in found}
    assert len(found) == len(refused)
    assert ("victor", "GET /audit", 403) in refused
    assert (None, "GET /users/me", 401) in refused
    assert not any(one["object"] == "GET /workflow-status" for one in found)
    assert "forged" not in json.dumps(found)


async def test_another_origins_page_is_recorded(http: httpx.AsyncClient, anna: Headers) -> None:
    victor = await sign_in(http, "victor")
    cookie = {"Cookie": f"visual_ai_session={victor['Authorization'].removeprefix('Bearer ')}"}
    answer = await http.post("/auth/logout", headers={**cookie, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    [refused] = await awaited(http, anna, action="request.refused")
    assert "another origin" in refused["details"]["reason"]


async def test_a_change_of_roles_is_recorded_once_for_all_processes(database_url: str, airflow: FakeAirflow) -> None:
    short = PRODUCTION | {"account_check_interval": 1.0, "account_grace": 60.0}
    async with (
        application(database_url, airflow, **short) as one,
        application(database_url, airflow, **short) as other,
        client_of(one) as first,
        client_of(other) as second,
    ):
        anna, ulla = await sign_in(first, "anna"), await sign_in(first, "ulla")
        assert (await second.get("/users/me", headers=ulla)).status_code == 200
        airflow.users["ulla"].roles = ["Viewer"]

        for http in (first, second):
            await until(http, ulla, lambda answer: answer.json()["role"] == "Viewer")
        [change] = await awaited(first, anna, action="role.change")
        await asyncio.sleep(0.5)
        [change] = await entries(first, anna, action="role.change")
        assert (change["object"], change["details"]) == ("ulla", {"from": "User", "to": "Viewer"})
        airflow.users["ulla"].active = False
        await until(first, ulla, lambda answer: answer.status_code == 401)
        [gone, _] = await awaited(first, anna, 2, action="role.change")
        assert gone["details"] == {"from": "Viewer", "to": "no active account"}


async def test_only_admins_read_it(http: httpx.AsyncClient, anna: Headers) -> None:
    assert (await http.get("/audit")).status_code == 401
    for user in ("victor", "ulla", "otto"):
        assert (await http.get("/audit", headers=await sign_in(http, user))).status_code == 403
    made = await http.post("/tokens", json={"name": "all", "scopes": ["read", "trigger", "stop"]}, headers=anna)
    machine = {"Authorization": f"Bearer {made.json()['token']}"}
    assert (await http.get("/audit", headers=machine)).status_code == 403


async def test_pages_and_filters(http: httpx.AsyncClient, pg: Postgres, anna: Headers) -> None:
    with psycopg.connect(plain_url(pg.admin_url), autocommit=True) as connection:
        connection.execute("DELETE FROM visual_ai.audit_log")
        connection.execute("""
            INSERT INTO visual_ai.audit_log (occurred_at, action, outcome, user_id)
            SELECT timestamptz '2026-01-01' + (n / 10) * interval '1 minute',
                   (ARRAY['run.trigger', 'run.cancel'])[1 + n % 2],
                   (ARRAY['done', 'refused', 'failed'])[1 + n % 3], 'user' || n % 5
            FROM generate_series(0, 99) n""")
    seen: list[int] = []
    cursor = None
    while True:
        answer = await http.get("/audit", params={"limit": 7, **({"cursor": cursor} if cursor else {})}, headers=anna)
        page = answer.json()
        seen += [one["id"] for one in page["entries"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 100
    assert len(await entries(http, anna, action="run.cancel", limit=200)) == 50
    assert len(await entries(http, anna, user="user3", outcome="failed", limit=200)) == 7
    between = await entries(http, anna, since="2026-01-01T00:02:00Z", until="2026-01-01T00:04:00Z", limit=200)
    assert len(between) == 20
    assert await entries(http, anna, user="nobody") == []
    for query in ({"action": "nonsense"}, {"cursor": "x"}, {"cursor": "AAAA"}, {"limit": 0}, {"since": "yesterday"}):
        assert (await http.get("/audit", params=query, headers=anna)).status_code == 422, query


CHANGES = [
    "UPDATE visual_ai.audit_log SET user_id = 'somebody else'",
    "DELETE FROM visual_ai.audit_log",
    "TRUNCATE visual_ai.audit_log",
    "DROP TABLE visual_ai.audit_log",
    "ALTER TABLE visual_ai.audit_log ADD COLUMN x text",
    "INSERT INTO visual_ai.audit_log (occurred_at, action, outcome) VALUES ('2000-01-01', 'sign_in', 'done')",
    "INSERT INTO visual_ai.audit_log (id, action, outcome) OVERRIDING SYSTEM VALUE VALUES (1, 'sign_in', 'done')",
    "SELECT * FROM visual_ai.audit_log FOR UPDATE",
    "SELECT visual_ai.prune_audit_log(89, 1000)",
    "SELECT visual_ai.prune_audit_log(NULL, 1000)",
    "SELECT visual_ai.prune_audit_log(-1, 1000)",
]


@pytest.mark.parametrize("statement", CHANGES)
async def test_the_backends_role_can_change_nothing(
    pg: Postgres, http: httpx.AsyncClient, anna: Headers, statement: str
) -> None:
    before = await entries(http, anna)
    for url in (pg.backend_url, pg.worker_url):
        with (
            psycopg.connect(plain_url(url), autocommit=True) as connection,
            pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.CheckViolation)),
        ):
            connection.execute(statement)
    assert await entries(http, anna) == before


async def test_tasks_neither_read_nor_write_it(pg: Postgres, database_url: str) -> None:
    with psycopg.connect(plain_url(pg.worker_url), autocommit=True) as connection:
        for statement in (
            "SELECT 1 FROM visual_ai.audit_log",
            "INSERT INTO visual_ai.audit_log (action, outcome) VALUES ('sign_in', 'done')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


async def test_what_is_old_is_deleted(pg: Postgres, database_url: str) -> None:
    with psycopg.connect(plain_url(pg.admin_url), autocommit=True) as connection:
        connection.execute("""
            INSERT INTO visual_ai.audit_log (occurred_at, action, outcome)
            SELECT now() - days * interval '1 day', 'sign_in', 'done' FROM generate_series(1, 200) days""")
    with psycopg.connect(plain_url(pg.backend_url), autocommit=True) as connection:
        assert connection.execute("SELECT visual_ai.prune_audit_log(90, 100)").fetchone() == (100,)
        assert connection.execute("SELECT visual_ai.prune_audit_log(90, 100)").fetchone() == (11,)
        assert connection.execute("SELECT count(*) FROM visual_ai.audit_log").fetchone() == (89,)


async def test_while_the_database_is_away_others_are_served(
    app: FastAPI, http: httpx.AsyncClient, pg: Postgres, anna: Headers
) -> None:
    victor = await sign_in(http, "victor")
    with locked_out(pg, "visual_ai_backend"):
        began = time.monotonic()
        assert (await http.get("/notifications", headers=victor)).status_code == 403
        assert (await http.get("/workflows", headers=victor)).status_code == 200
        assert time.monotonic() - began < 2
        assert (await http.get("/audit", headers=anna)).status_code == 503
        refused = await http.post("/auth/token", json={"username": "ulla", "password": PASSWORD})
        assert refused.status_code == 503
    [entry] = await awaited(http, anna, action="request.refused")
    assert entry["object"] == "GET /notifications"


async def test_a_change_that_fails_leaves_no_entry(
    http: httpx.AsyncClient, airflow: FakeAirflow, anna: Headers
) -> None:
    ulla = await sign_in(http, "ulla")
    body = {"name": "mine", "definition": {"dag_id": DAG, "input_data": INPUT}}
    assert (await http.post("/templates", json=body, headers=ulla)).status_code == 201
    assert (await http.post("/templates", json=body, headers=ulla)).status_code == 409
    assert (await http.post("/templates/mine/versions/9/activate", headers=ulla)).status_code == 404
    airflow.fail("dagRuns", status=422)
    run = {"dag_id": DAG, "input_data": INPUT}
    assert (await http.post("/workflows/trigger", json=run, headers=ulla)).status_code == 422
    acts = [one["action"] for one in await entries(http, anna, user="ulla")]
    assert acts == ["template.create", "sign_in"]


async def test_an_entry_that_cannot_be_written_holds_up_no_other(
    app: FastAPI, http: httpx.AsyncClient, anna: Headers, caplog: pytest.LogCaptureFixture
) -> None:
    audit: AuditLog = app.state.application.audit
    for name in ("before", "between", "after"):
        audit.note(Entry("run.cancel", object=name))
        if name != "after":
            audit.note(Entry("run.cancel", "nonsense"))  # type: ignore[arg-type]  # what the database refuses
    written = await awaited(http, anna, 3, action="run.cancel")
    assert [one["object"] for one in written] == ["after", "between", "before"]
    assert caplog.text.count("was lost") == 2
