"""Whoever has signed in to Airflow, in whatever way, signs in here with the token that Airflow gave them."""

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jwt
import pytest

from tests.kit.airflow import SECRET, FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of


@pytest.fixture
async def http(database_url: str, airflow: FakeAirflow) -> AsyncIterator[httpx.AsyncClient]:
    changes = {**PRODUCTION, "airflow_public_url": "https://airflow.test/", "public_url": "https://api.test"}
    async with (
        application(database_url, airflow, **changes) as app,
        client_of(app, base_url="https://api.test") as client,
    ):
        yield client


def airflow_token(secret: str = SECRET, **changes: Any) -> str:
    claims = {"sub": "ulla", "exp": time.time() + 600, **changes}
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, secret, algorithm="HS256")


async def test_a_token_in_the_body_is_exchanged(http: httpx.AsyncClient) -> None:
    answer = await http.post("/auth/airflow", json={"airflow_token": airflow_token()})
    assert answer.status_code == 200, answer.text
    assert answer.json()["role"] == "User"
    assert 590 <= answer.json()["expires_in"] <= 600
    http.cookies.clear()
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert (await http.get("/users/me", headers=headers)).json()["user_id"] == "ulla"


async def test_airflows_cookie_is_exchanged(http: httpx.AsyncClient) -> None:
    http.cookies.set("_token", airflow_token())
    answer = await http.post("/auth/airflow")
    assert answer.status_code == 200, answer.text
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    http.cookies.delete("_token")
    assert (await http.get("/users/me")).json()["user_id"] == "ulla"


async def test_another_origins_page_can_not_have_the_cookie_exchanged(http: httpx.AsyncClient) -> None:
    http.cookies.set("_token", airflow_token())
    for headers in ({"Origin": "https://sibling.api.test"}, {"Sec-Fetch-Site": "same-site"}):
        assert (await http.post("/auth/airflow", headers=headers)).status_code == 403
    assert (await http.post("/auth/airflow", headers={"Origin": "https://api.test"})).status_code == 200


@pytest.mark.parametrize(
    "token",
    ["x", "x.y.z", airflow_token("another secret, which is long enough"), airflow_token(exp=1), airflow_token(exp=None),
     airflow_token(sub="nobody")],
)  # fmt: skip
async def test_what_airflow_does_not_accept_is_refused(http: httpx.AsyncClient, token: str) -> None:
    for answer in (
        await http.post("/auth/airflow", json={"airflow_token": token}),
        await http.post("/auth/airflow", headers={"Cookie": f"_token={token}"}),
    ):
        assert answer.status_code == 401, answer.text
        assert "set-cookie" not in answer.headers


async def test_without_a_token_or_an_airflow(http: httpx.AsyncClient, airflow: FakeAirflow) -> None:
    assert (await http.post("/auth/airflow")).status_code == 401
    airflow.fail()
    assert (await http.post("/auth/airflow", json={"airflow_token": airflow_token()})).status_code == 503
    malformed = await http.post("/auth/airflow", json={"airflow_token": airflow_token(), "next": "https://evil.test"})
    assert malformed.status_code == 422
    assert airflow_token()[:20] not in malformed.text


async def test_a_browser_is_sent_to_airflow_and_nowhere_else(http: httpx.AsyncClient) -> None:
    for query in ("", "?next=https://evil.test", "?from=//evil.test"):
        answer = await http.get(f"/auth/airflow{query}")
        assert (answer.status_code, answer.headers["location"]) == (307, "https://airflow.test/auth/login/")


async def test_guessing_has_to_wait(http: httpx.AsyncClient) -> None:
    statuses = [(await http.post("/auth/airflow", json={"airflow_token": "x"})).status_code for _ in range(45)]
    assert statuses[:30] == [401] * 30
    assert statuses.count(429) >= 5


async def test_a_user_without_rights_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/auth/airflow", json={"airflow_token": airflow_token(sub="nora")})
    assert answer.status_code == 403
