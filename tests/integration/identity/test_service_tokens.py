"""Service tokens: a part of their creator's rights, for machines."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text

from backend.db.engine import Database, make_async_engine
from backend.db.identity import service_tokens
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, sign_in
from tests.kit.identity import record

CHECK = 0.3
WITHIN = 4 * CHECK
PARAMS: dict[str, Any] = {"query": {"value": "x", "description": None, "schema": {"type": "string"}}}
Headers = Mapping[str, str]


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag("a", params=PARAMS)
    airflow.add_dag("b", params=PARAMS)
    return airflow


@pytest.fixture
async def http(database_url: str, airflow: FakeAirflow) -> AsyncIterator[httpx.AsyncClient]:
    for dag_id in ("a", "b"):
        for user in ("ulla", "uwe"):
            record(database_url, f"{dag_id} of {user}", user=user, dag_id=dag_id)
            airflow.add_run(dag_id, f"{dag_id} of {user}", tasks={"work": "running"})
    async with (
        application(database_url, airflow, account_check_interval=CHECK, **PRODUCTION) as app,
        client_of(app) as client,
    ):
        yield client


async def create(http: httpx.AsyncClient, who: Headers, **body: Any) -> tuple[str, Headers]:
    """A token's id, and the headers of requests with it."""
    answer = await http.post("/tokens", json={"name": "ci", "scopes": ["read"], **body}, headers=who)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"], {"Authorization": f"Bearer {answer.json()['token']}"}


async def seen(http: httpx.AsyncClient, headers: Headers) -> list[str]:
    answer = await http.get("/workflow-status", headers=headers)
    assert answer.status_code == 200, answer.text
    return sorted(one["dag_run_id"] for one in answer.json()["executions"])


async def test_a_token_is_shown_once_and_kept_as_a_hash(http: httpx.AsyncClient, database_url: str) -> None:
    who = await sign_in(http, "ulla")
    answer = await http.post("/tokens", json={"name": "ci", "scopes": ["read"]}, headers=who)
    made = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert made["token"].startswith(f"lgf_{made['prefix']}_")
    listed = await http.get("/tokens", headers=who)
    assert [one["id"] for one in listed.json()["tokens"]] == [made["id"]]
    secret = made["token"].rpartition("_")[2][-20:]
    assert secret not in listed.text
    engine = create_engine(database_url)
    with engine.begin() as connection:
        stored = connection.execute(text("SELECT t::text FROM visual_ai.service_tokens t")).scalar_one()
    engine.dispose()
    assert secret not in stored
    me = (await http.get("/users/me", headers={"Authorization": f"Bearer {made['token']}"})).json()
    assert (me["user_id"], me["service_token"]) == ("ulla", "ci")


async def test_a_token_has_at_most_its_creators_rights(http: httpx.AsyncClient) -> None:
    _, ulla = await create(http, await sign_in(http, "ulla"))
    _, otto = await create(http, await sign_in(http, "otto"))
    _, limited = await create(http, await sign_in(http, "otto"), dag_ids=["b"])
    assert await seen(http, ulla) == ["a of ulla", "b of ulla"]
    assert len(await seen(http, otto)) == 4
    assert await seen(http, limited) == ["b of ulla", "b of uwe"]
    assert (await http.get("/workflow-status/a/a of uwe", headers=ulla)).status_code == 404
    assert (await http.get("/workflow-status/a/a of uwe", headers=limited)).status_code == 404
    assert [one["dag_id"] for one in (await http.get("/workflows", headers=limited)).json()["workflows"]] == ["b"]
    for role, scope in (("victor", "trigger"), ("victor", "stop")):
        body = {"name": "x", "scopes": [scope]}
        assert (await http.post("/tokens", json=body, headers=await sign_in(http, role))).status_code == 403


@pytest.mark.parametrize("scope", ["read", "trigger", "stop"])
async def test_scopes(http: httpx.AsyncClient, airflow: FakeAirflow, scope: str) -> None:
    _, headers = await create(http, await sign_in(http, "ulla"), scopes=[scope], dag_ids=["a"])
    body: dict[str, Any] = {"dag_id": "a", "input_data": {"query": "x"}}
    calls: dict[str, list[tuple[str, str, Any]]] = {
        "read": [("GET", "/workflow-status", None), ("GET", "/workflow-status/a/a of ulla", None)],
        "trigger": [("POST", "/workflows/trigger", body)],
        "stop": [("POST", "/workflows/a/runs/a of ulla/cancel", None)],
    }
    for needed, requests in calls.items():
        for method, path, content in requests:
            answer = await http.request(method, path, json=content, headers=headers)
            assert answer.is_success is (needed == scope), (path, answer.text)
            if needed != scope:
                assert answer.status_code == 403
    other = await http.post("/workflows/trigger", json={**body, "dag_id": "b"}, headers=headers)
    assert other.status_code in (403, 404)
    assert (await http.post("/workflows/b/runs/b of ulla/cancel", headers=headers)).status_code in (403, 404)
    if scope == "trigger":
        assert airflow.triggers[-1][1]["conf"]["_visual_ai"]["triggered_by"] == "ulla"


async def test_what_takes_a_person(http: httpx.AsyncClient) -> None:
    _, headers = await create(http, await sign_in(http, "anna"), scopes=["read", "trigger", "stop"])
    for method, path, body in (
        ("POST", "/tokens", {"name": "x", "scopes": ["read"]}),
        ("GET", "/tokens", None),
        ("POST", "/users/me/sign-out", None),
        ("POST", "/users/ulla/sign-out", None),
        ("GET", "/users/me/preferences", None),
        ("PUT", "/users/me/preferences", {}),
        ("POST", "/templates", {"name": "t", "definition": {"dag_id": "a"}}),
        ("GET", "/notifications", None),
    ):
        answer = await http.request(method, path, json=body, headers=headers)
        assert answer.status_code == 403, (path, answer.text)


async def test_metrics_are_for_tokens_of_operators_that_may_read_all(database_url: str, airflow: FakeAirflow) -> None:
    async with (
        application(database_url, airflow, **PRODUCTION) as app,
        client_of(app, address="192.0.2.7") as http,
    ):
        for user, options, status in (
            ("otto", {}, 200), ("ulla", {}, 403),
            ("otto", {"dag_ids": ["a"]}, 403), ("otto", {"scopes": ["stop"]}, 403),
        ):  # fmt: skip
            _, headers = await create(http, await sign_in(http, user), **options)
            assert (await http.get("/metrics", headers=headers)).status_code == status, (user, options)


async def test_revoking(http: httpx.AsyncClient) -> None:
    ulla, uwe, anna = [await sign_in(http, name) for name in ("ulla", "uwe", "anna")]
    first, one = await create(http, ulla)
    second, two = await create(http, ulla)
    assert (await http.delete(f"/tokens/{first}", headers=uwe)).status_code == 404
    assert (await http.delete("/tokens/nonsense", headers=uwe)).status_code == 404
    assert (await http.delete(f"/tokens/{first}", headers=ulla)).json()["revoked_by"] == "ulla"
    assert (await http.delete(f"/tokens/{second}", headers=anna)).json()["revoked_by"] == "anna"
    assert (await http.delete(f"/tokens/{second}", headers=ulla)).json()["revoked_by"] == "anna"
    for headers in (one, two):
        assert (await http.get("/workflow-status", headers=headers)).status_code == 401
    assert (await http.get("/tokens?user_id=ulla", headers=uwe)).status_code == 403
    assert len((await http.get("/tokens?user_id=ulla", headers=anna)).json()["tokens"]) == 2
    page = (await http.get("/tokens?everyone=true&limit=1", headers=anna)).json()
    rest = (await http.get(f"/tokens?everyone=true&cursor={page['next_cursor']}", headers=anna)).json()
    assert {page["tokens"][0]["id"], rest["tokens"][0]["id"]} == {first, second}


@pytest.mark.parametrize("change", ["deleted", "deactivated", "recreated"])
async def test_a_token_dies_with_its_creators_account(
    http: httpx.AsyncClient, airflow: FakeAirflow, change: str
) -> None:
    _, headers = await create(http, await sign_in(http, "ulla"))
    assert await seen(http, headers)
    match change:
        case "deleted":
            del airflow.users["ulla"]
        case "deactivated":
            airflow.users["ulla"].active = False
        case _:
            airflow.users["ulla"].created_on = "2026-02-02T00:00:00"
    await asyncio.sleep(WITHIN)
    assert (await http.get("/workflow-status", headers=headers)).status_code == 401


async def test_a_token_loses_rights_with_its_creator(http: httpx.AsyncClient, airflow: FakeAirflow) -> None:
    _, headers = await create(http, await sign_in(http, "otto"), scopes=["read", "trigger"])
    airflow.users["otto"].roles = ["Viewer"]
    await asyncio.sleep(WITHIN)
    body = {"dag_id": "a", "input_data": {"query": "x"}}
    assert (await http.post("/workflows/trigger", json=body, headers=headers)).status_code == 403


async def test_signing_out_everywhere_may_take_the_tokens_along(http: httpx.AsyncClient) -> None:
    _, headers = await create(http, await sign_in(http, "ulla"))
    await http.post("/users/me/sign-out", headers=await sign_in(http, "ulla"))
    assert await seen(http, headers)
    await http.post("/users/ulla/sign-out?service_tokens=true", headers=await sign_in(http, "anna"))
    assert (await http.get("/workflow-status", headers=headers)).status_code == 401


async def test_expired_and_altered_tokens_are_refused(http: httpx.AsyncClient, pg: Any) -> None:
    token_id, headers = await create(http, await sign_in(http, "ulla"), expires_in_days=1)
    token = headers["Authorization"]
    for changed in (token[:-1] + ("a" if token[-1] != "a" else "b"), token + "a", "Bearer lgf_", "Bearer lgf_x_y"):
        assert (await http.get("/workflow-status", headers={"Authorization": changed})).status_code == 401
    engine = create_engine(pg.admin_url)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE visual_ai.service_tokens SET expires_at = now() - interval '1 s' WHERE id = :id"),
            {"id": token_id},
        )
    engine.dispose()
    await asyncio.sleep(WITHIN)
    assert (await http.get("/workflow-status", headers=headers)).status_code == 401


async def test_the_time_of_the_last_use_is_written_at_most_once_a_minute(
    http: httpx.AsyncClient, database_url: str
) -> None:
    who = await sign_in(http, "ulla")
    token_id, headers = await create(http, who)
    assert await seen(http, headers)

    async def last_used() -> str | None:
        [token] = (await http.get("/tokens", headers=who)).json()["tokens"]
        return str(token["last_used_at"]) if token["last_used_at"] is not None else None

    assert await last_used() is None
    database = Database(make_async_engine(database_url, application="test", pool_size=1))
    try:
        await database.run(service_tokens.touch, [token_id])
        first = await last_used()
        assert first is not None
        await database.run(service_tokens.touch, [token_id])
        assert await last_used() == first
    finally:
        await database.close()


@pytest.mark.parametrize(
    "body",
    [
        {}, {"name": "", "scopes": ["read"]}, {"name": "x", "scopes": []}, {"name": "x", "scopes": ["all"]},
        {"name": "x", "scopes": ["read"], "expires_in_days": 0},
        {"name": "x", "scopes": ["read"], "expires_in_days": 367},
        {"name": "x", "scopes": ["read"], "dag_ids": []}, {"name": "x", "scopes": ["read"], "dag_ids": ["\x00"]},
    ],
)  # fmt: skip
async def test_malformed_requests(http: httpx.AsyncClient, body: Any) -> None:
    answer = await http.post("/tokens", json=body, headers=await sign_in(http, "ulla"))
    assert answer.status_code == 422
    assert answer.json()["errors"]
