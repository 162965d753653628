"""Guessing passwords is slowed down, in all processes, and hardly anybody else."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import create_engine, text

from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of

WRONG = "wrong"


@pytest.fixture
async def replicas(database_url: str, airflow: FakeAirflow) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients, of which the first two are at one address, of two processes."""
    async with (
        application(database_url, airflow, **PRODUCTION) as app,
        application(database_url, airflow, **PRODUCTION) as another,
        client_of(app, address="192.0.2.7") as one,
        client_of(another, address="192.0.2.7") as two,
        client_of(another, address="198.51.100.9") as elsewhere,
    ):
        yield [one, two, elsewhere]


async def attempt(http: httpx.AsyncClient, username: str, password: str = WRONG, **headers: str) -> httpx.Response:
    body = {"username": username, "password": password}
    answer = await http.post("/auth/token", json=body, headers=headers)
    http.cookies.clear()
    return answer


async def test_wrong_passwords_in_a_row_have_to_wait(replicas: list[httpx.AsyncClient], airflow: FakeAirflow) -> None:
    statuses = [(await attempt(replicas[number % 2], "ulla")).status_code for number in range(60)]
    assert statuses[:5] == [401] * 5
    assert statuses.count(401) <= 9
    assert airflow.log.count("POST /auth/token") <= 10  # and the service account's
    refused = await attempt(replicas[0], "ULLA", PASSWORD)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["content-type"] == "application/problem+json"


async def test_attempts_at_the_same_time_count(replicas: list[httpx.AsyncClient]) -> None:
    answers = await asyncio.gather(*(attempt(replicas[number % 2], "ulla") for number in range(40)))
    assert sum(answer.status_code == 401 for answer in answers) <= 6


async def test_its_owner_signs_in_from_another_address(replicas: list[httpx.AsyncClient]) -> None:
    for _ in range(12):
        await attempt(replicas[0], "ulla")
    assert (await attempt(replicas[2], "ulla", PASSWORD)).status_code == 200


async def test_guessing_from_many_addresses_delays_a_known_address_not_at_all(
    database_url: str, airflow: FakeAirflow
) -> None:
    async with application(database_url, airflow, **PRODUCTION) as app, client_of(app, address="127.0.0.1") as http:
        home = {"X-Forwarded-For": "203.0.113.1"}
        assert (await attempt(http, "ulla", PASSWORD, **home)).status_code == 200
        statuses = [
            (await attempt(http, "ulla", **{"X-Forwarded-For": f"198.51.100.{number}"})).status_code
            for number in range(40)
        ]
        assert 429 in statuses
        assert (await attempt(http, "ulla", PASSWORD, **home)).status_code == 200
        elsewhere = await attempt(http, "ulla", PASSWORD, **{"X-Forwarded-For": "203.0.113.2"})
        assert elsewhere.status_code == 200 or int(elsewhere.headers["retry-after"]) <= 30


async def test_trying_many_accounts_from_one_address_has_to_wait(replicas: list[httpx.AsyncClient]) -> None:
    statuses = [(await attempt(replicas[0], f"user{number}")).status_code for number in range(45)]
    assert statuses[:30] == [401] * 30
    assert statuses.count(429) >= 5


async def test_signing_in_again_and_again_is_no_guessing(replicas: list[httpx.AsyncClient]) -> None:
    statuses = [(await attempt(replicas[0], "ulla", PASSWORD)).status_code for _ in range(40)]
    assert statuses == [200] * 40


async def test_an_airflow_that_is_away_is_no_wrong_password(
    replicas: list[httpx.AsyncClient], airflow: FakeAirflow
) -> None:
    airflow.fail("/auth/token", 503)
    assert [(await attempt(replicas[0], "ulla", PASSWORD)).status_code for _ in range(8)] == [503] * 8
    airflow.heal()
    assert (await attempt(replicas[0], "ulla", PASSWORD)).status_code == 200


async def test_attempts_are_recorded_without_the_password(
    replicas: list[httpx.AsyncClient], database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await attempt(replicas[0], "Ulla", "a guess, in plain text")
    engine = create_engine(database_url)
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT account, address, failures FROM visual_ai.sign_in_attempts")).all()
    engine.dispose()
    assert set(rows) == {("ulla", "192.0.2.7", 1), ("ulla", "", 1), ("", "192.0.2.7", 1)}
    assert "'Ulla' from 192.0.2.7" in caplog.text
    assert "a guess" not in caplog.text


@pytest.mark.parametrize(
    ("peer", "forwarded", "counted"),
    [
        ("192.0.2.7", "203.0.113.1", "192.0.2.7"),
        ("127.0.0.1", "203.0.113.1", "203.0.113.1"),
        ("127.0.0.1", "10.0.0.1, 203.0.113.1", "203.0.113.1"),
        ("10.1.1.1", "203.0.113.1, 10.2.2.2", "203.0.113.1"),
        ("10.1.1.1", "", "10.1.1.1"),
    ],
)
async def test_only_trusted_proxies_name_the_client(
    database_url: str, airflow: FakeAirflow, peer: str, forwarded: str, counted: str
) -> None:
    trusted = ("127.0.0.0/8", "10.0.0.0/8") if peer.startswith("10.") else ("127.0.0.0/8",)
    async with (
        application(database_url, airflow, trusted_proxies=trusted, **PRODUCTION) as app,
        client_of(app, address=peer) as http,
    ):
        await attempt(http, "ulla", **({"X-Forwarded-For": forwarded} if forwarded else {}))
    engine = create_engine(database_url)
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT address FROM visual_ai.sign_in_attempts WHERE account = ''"))
        assert list(rows.scalars()) == [counted]
    engine.dispose()
