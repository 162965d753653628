"""A session has the rights that its user has in Airflow now, and ends when its user or an Admin says so."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest

from backend.clients.airflow import AirflowClient
from backend.core.roles import Role
from backend.core.settings import Settings
from backend.db.engine import Database
from backend.services.identity.accounts import Accounts
from backend.services.identity.audit_log import AuditLog
from backend.services.limits.roles import AccountRoles
from tests.kit.airflow import PASSWORD, FakeAirflow, User
from tests.kit.application import PRODUCTION, application, client_of, served, sign_in
from tests.kit.identity import DAG, record
from tests.kit.waiting import eventually

CHECK = 0.3
"""Seconds; 15 by default."""
WITHIN = 4 * CHECK
"""What 60 seconds are by default."""


@pytest.fixture
async def http(database_url: str, airflow: FakeAirflow) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        application(database_url, airflow, account_check_interval=CHECK, **PRODUCTION) as app,
        client_of(app) as client,
    ):
        yield client


async def status_of(http: httpx.AsyncClient, headers: Any, path: str = "/workflow-status") -> int:
    return (await http.get(path, headers=headers)).status_code


async def test_a_demoted_admin_loses_the_runs_of_others(
    http: httpx.AsyncClient, airflow: FakeAirflow, database_url: str
) -> None:
    record(database_url, "theirs", user="uwe")
    headers = await sign_in(http, "anna")
    assert await status_of(http, headers, f"/workflow-status/{DAG}/theirs") == 200
    airflow.users["anna"].roles = ["User"]
    await asyncio.sleep(WITHIN)
    assert await status_of(http, headers, f"/workflow-status/{DAG}/theirs") == 404
    assert (await http.get("/users/me", headers=headers)).json()["role"] == "User"
    assert await status_of(http, headers, "/metrics") == 403
    airflow.users["anna"].roles = ["Admin"]
    await asyncio.sleep(WITHIN)
    assert await status_of(http, headers, f"/workflow-status/{DAG}/theirs") == 200


@pytest.mark.parametrize("change", ["deleted", "deactivated", "recreated", "without roles"])
async def test_an_account_that_is_gone_can_do_nothing(
    http: httpx.AsyncClient, airflow: FakeAirflow, change: str
) -> None:
    headers = await sign_in(http, "ulla")
    match change:
        case "deleted":
            del airflow.users["ulla"]
        case "deactivated":
            airflow.users["ulla"].active = False
        case "recreated":
            airflow.users["ulla"].created_on = "2026-02-02T00:00:00"
        case _:
            airflow.users["ulla"].roles = ["Public"]
    await asyncio.sleep(WITHIN)
    for method, path in (("GET", "/workflow-status"), ("POST", "/images"), ("GET", "/users/me/preferences")):
        answer = await http.request(method, path, headers=headers)
        assert answer.status_code == (403 if change == "without roles" else 401), (path, answer.text)


async def test_requests_cost_airflow_no_calls(database_url: str, airflow: FakeAirflow) -> None:
    async with (
        application(database_url, airflow, account_check_interval=5.0, **PRODUCTION) as app,
        client_of(app) as http,
    ):
        headers = await sign_in(http, "ulla")
        airflow.log.clear()
        await asyncio.gather(*(http.get("/workflow-status", headers=headers) for _ in range(30)))
        assert [call for call in airflow.log if "/auth/" in call] == []
        await asyncio.sleep(5.1)
        await asyncio.gather(*(http.get("/workflow-status", headers=headers) for _ in range(30)))
        await eventually(lambda: airflow.log.count("GET /auth/fab/v1/users/ulla") == 1)


async def test_many_users_are_looked_up_together(airflow: FakeAirflow, database: Database) -> None:
    names = [f"user{number}" for number in range(60)]
    airflow.users |= {name: User(PASSWORD, ["User"]) for name in names}
    client = AirflowClient(Settings(_env_file=None), airflow.transport)
    audit = AuditLog(database, retention_days=400)
    accounts = Accounts(client, AccountRoles(database), audit, interval=3.0, grace=60.0)
    try:
        await asyncio.gather(*(accounts.get(name) for name in names))
        await asyncio.sleep(3.1)
        airflow.log.clear()
        for name in names:
            airflow.users[name].roles = ["Viewer"]
        await asyncio.gather(*(accounts.get(name) for name in names))
        await eventually(lambda: "GET /auth/fab/v1/users" in airflow.log)
        found = await asyncio.gather(*(accounts.get(name) for name in names))
        assert {one.rights.role for one in found if one is not None} == {Role.VIEWER}
        assert airflow.log == ["GET /auth/fab/v1/users"]
    finally:
        await accounts.close()
        await client.close()


async def test_while_airflow_is_away_what_is_known_counts(http: httpx.AsyncClient, airflow: FakeAirflow) -> None:
    headers = await sign_in(http, "ulla")
    airflow.fail("/auth/fab")
    await asyncio.sleep(WITHIN)
    assert await status_of(http, headers) == 200
    airflow.users["ulla"].roles = ["Admin"]
    assert (await http.get("/users/me", headers=headers)).json()["role"] == "User"


async def test_a_process_that_knows_nothing_of_a_user_waits_for_airflow(
    database_url: str, airflow: FakeAirflow
) -> None:
    async with application(database_url, airflow, **PRODUCTION) as app, client_of(app) as http:
        headers = await sign_in(http, "ulla")
    async with application(database_url, airflow, **PRODUCTION) as app, client_of(app) as http:
        airflow.fail("/auth/fab")
        refused = await http.get("/workflow-status", headers=headers)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        airflow.heal()
        assert await status_of(http, headers) == 200


async def test_a_token_has_an_audience_and_an_id(http: httpx.AsyncClient) -> None:
    tokens = [(await sign_in(http, "ulla"))["Authorization"].split()[1] for _ in range(2)]
    claims = [jwt.decode(token, "s" * 32, algorithms=["HS256"], audience="langgraph-flow-api") for token in tokens]
    assert claims[0]["jti"] != claims[1]["jti"]
    for change in ({"aud": "another"}, {"aud": None}, {"jti": None}):
        changed = {name: value for name, value in {**claims[0], **change}.items() if value is not None}
        forged = jwt.encode(changed, "s" * 32, algorithm="HS256")
        assert await status_of(http, {"Authorization": f"Bearer {forged}"}) == 401


@pytest.mark.parametrize("spelling", ["ULLA", "Ulla", "ulla@example.test"])
async def test_one_account_however_it_is_spelled(http: httpx.AsyncClient, database_url: str, spelling: str) -> None:
    record(database_url, "mine", user="ulla")
    headers = await sign_in(http, spelling)
    assert (await http.get("/users/me", headers=headers)).json()["user_id"] == "ulla"
    assert await status_of(http, headers, f"/workflow-status/{DAG}/mine") == 200


async def test_signing_out_ends_this_session_only(http: httpx.AsyncClient) -> None:
    one, other = await sign_in(http, "ulla"), await sign_in(http, "ulla")
    assert (await http.post("/auth/logout", headers=one)).status_code == 204
    assert await status_of(http, one) == 401
    assert await status_of(http, other) == 200
    assert (await http.post("/auth/logout", headers=one)).status_code == 204
    assert (await http.post("/auth/logout", headers={"Authorization": "Bearer x"})).status_code == 204
    assert (await http.post("/auth/logout", headers={"Authorization": "nonsense"})).status_code == 204


async def test_signing_out_works_while_airflow_is_away(http: httpx.AsyncClient, airflow: FakeAirflow) -> None:
    headers = await sign_in(http, "ulla")
    airflow.fail()
    assert (await http.post("/auth/logout", headers=headers)).status_code == 204
    assert await status_of(http, headers) == 401


async def test_signing_out_everywhere(http: httpx.AsyncClient) -> None:
    sessions = [await sign_in(http, "ulla") for _ in range(3)]
    others = await sign_in(http, "uwe")
    assert (await http.post("/users/me/sign-out", headers=sessions[1])).status_code == 204
    assert [await status_of(http, headers) for headers in sessions] == [401] * 3
    assert await status_of(http, others) == 200
    assert await status_of(http, await sign_in(http, "ulla")) == 200


@pytest.mark.parametrize(("who", "status"), [("victor", 403), ("uwe", 403), ("otto", 403), ("anna", 204)])
async def test_only_an_admin_signs_others_out(http: httpx.AsyncClient, who: str, status: int) -> None:
    theirs, headers = await sign_in(http, "ulla"), await sign_in(http, who)
    answer = await http.post("/users/ULLA/sign-out", headers=headers)
    assert answer.status_code == status
    assert await status_of(http, theirs) == (401 if status == 204 else 200)
    assert await status_of(http, headers) == 200


async def test_other_replicas_learn_of_it(database_url: str, airflow: FakeAirflow) -> None:
    changes = {"account_check_interval": CHECK, **PRODUCTION}
    async with (
        application(database_url, airflow, **changes) as app,
        application(database_url, airflow, **changes) as another,
        client_of(app) as http,
        client_of(another) as elsewhere,
    ):
        one, other = await sign_in(http, "ulla"), await sign_in(elsewhere, "uwe")
        assert [await status_of(elsewhere, one), await status_of(http, other)] == [200, 200]
        await http.post("/auth/logout", headers=one)
        await elsewhere.post("/users/me/sign-out", headers=other)
        await asyncio.sleep(WITHIN)
        assert [await status_of(elsewhere, one), await status_of(http, other)] == [401, 401]
    async with application(database_url, airflow, **changes) as app, client_of(app) as http:
        assert [await status_of(http, one), await status_of(http, other)] == [401, 401]


@pytest.mark.parametrize("end", ["logout", "everywhere", "deleted", "demoted"])
@pytest.mark.parametrize("path", [f"stream/{DAG}/theirs", f"streams?run={DAG}/theirs"])
async def test_open_streams_end_with_the_session(database_url: str, airflow: FakeAirflow, end: str, path: str) -> None:
    record(database_url, "theirs", user="uwe")
    airflow.fail("/dags/~/")  # the run is not Airflow's
    async with (
        application(database_url, airflow, account_check_interval=CHECK, **PRODUCTION) as app,
        served(app) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        headers = await sign_in(http, "anna")

        async def end_it() -> None:
            await asyncio.sleep(CHECK)
            match end:
                case "logout":
                    await http.post("/auth/logout", headers=headers)
                case "everywhere":
                    await http.post("/users/me/sign-out", headers=headers)
                case "deleted":
                    del airflow.users["anna"]
                case _:
                    airflow.users["anna"].roles = ["User"]

        ending, began = asyncio.create_task(end_it()), time.monotonic()
        async with http.stream("GET", f"/workflow-status/{path}", headers=headers, timeout=20) as response:
            assert response.status_code == 200
            received = [line async for line in response.aiter_lines()]
        await ending
        assert time.monotonic() - began < 3 + WITHIN
        assert any("may no longer see the run" in line for line in received)
        assert not any(line == "event: end" for line in received)
