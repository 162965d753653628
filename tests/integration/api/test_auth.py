"""Sign-in with Airflow users, the tokens it issues, and who may read without one."""

import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import jwt
import pytest
from pydantic import ValidationError

from backend.core.settings import Settings
from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, sign_in

SECRET = "s" * 32


@pytest.fixture
async def http(database_url: str, airflow: FakeAirflow) -> AsyncIterator[httpx.AsyncClient]:
    """A remote client of a service in production."""
    async with (
        application(database_url, airflow, **PRODUCTION) as app,
        client_of(app, address="192.0.2.7", base_url="https://api.test") as client,
    ):
        yield client


def is_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= problem.keys()
    return problem


async def ask_token(http: httpx.AsyncClient, username: str, password: str = PASSWORD) -> httpx.Response:
    return await http.post("/auth/token", json={"username": username, "password": password})


@pytest.mark.parametrize(
    ("username", "role"), [("victor", "Viewer"), ("ulla", "User"), ("uwe", "User"), ("otto", "Op"), ("anna", "Admin")]
)
async def test_sign_in(http: httpx.AsyncClient, username: str, role: str) -> None:
    response = await ask_token(http, username)
    assert response.status_code == 200
    token = response.json()
    assert (token["token_type"], token["role"], token["expires_in"]) == ("bearer", role, 12 * 3600)
    assert response.headers["cache-control"] == "no-store"
    assert (await http.get("/workflow-status", headers={"Authorization": f"bearer {token['access_token']}"})).is_success


@pytest.mark.parametrize(("public_url", "secure"), [("https://api.test", True), ("http://localhost:8000", False)])
async def test_the_cookie_is_http_only(database_url: str, airflow: FakeAirflow, public_url: str, secure: bool) -> None:
    async with (
        application(database_url, airflow, public_url=public_url, **PRODUCTION) as app,
        client_of(app, address="192.0.2.7", base_url="https://api.test") as http,
    ):
        response = await ask_token(http, "ulla")
        name, _, rest = response.headers["set-cookie"].partition("=")
        flags = {flag.strip().lower() for flag in rest.split(";")[1:]}
        assert {"httponly", "samesite=strict", "path=/", f"max-age={12 * 3600}"} <= flags
        assert ("secure" in flags) is secure
        assert name == ("__Host-visual_ai_session" if secure else "visual_ai_session")
        assert (await http.get("/workflow-status")).is_success
        http.cookies.clear()
        is_problem(await http.get("/workflow-status"), 401)


async def test_a_browser_reads_its_user_and_signs_out(http: httpx.AsyncClient) -> None:
    is_problem(await http.get("/users/me"), 401)
    before = time.time()
    await ask_token(http, "otto")
    response = await http.get("/users/me")
    assert response.headers["cache-control"] == "no-store"
    me = response.json()
    assert (me["user_id"], me["role"]) == ("otto", "Op")
    assert abs(datetime.fromisoformat(me["expires_at"]).timestamp() - before - 12 * 3600) < 60

    signed_out = await http.post("/auth/logout")
    assert signed_out.status_code == 204
    flags = {flag.strip().lower() for flag in signed_out.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", "max-age=0"} <= flags
    assert "visual_ai_session" not in http.cookies
    is_problem(await http.get("/users/me"), 401)
    assert (await http.post("/auth/logout")).status_code == 204


async def test_a_token_expires_no_later_than_airflows(http: httpx.AsyncClient, airflow: FakeAirflow) -> None:
    airflow.token_lifetime = 60
    assert 55 <= (await ask_token(http, "ulla")).json()["expires_in"] <= 60


async def test_the_airflow_token_inside_a_token_is_encrypted(http: httpx.AsyncClient) -> None:
    token = (await ask_token(http, "ulla")).json()["access_token"]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["sub"], claims["role"]) == ("ulla", "User")
    assert not claims["aft"].startswith("ey")
    assert "correct horse" not in str(claims)


@pytest.mark.parametrize(("username", "password"), [("ulla", "wrong"), ("nobody", PASSWORD)])
async def test_wrong_credentials_are_refused(http: httpx.AsyncClient, username: str, password: str) -> None:
    response = await ask_token(http, username, password)
    assert is_problem(response, 401)["detail"] == "Airflow does not accept this username and password."
    assert "set-cookie" not in response.headers


async def test_a_user_without_a_role_is_refused(http: httpx.AsyncClient) -> None:
    is_problem(await ask_token(http, "nora"), 403)


@pytest.mark.parametrize("status", [None, 500, 503])
async def test_sign_in_while_airflow_is_down(http: httpx.AsyncClient, airflow: FakeAirflow, status: int | None) -> None:
    airflow.fail("/auth/", status)
    response = await ask_token(http, "ulla")
    assert "10.9.8.7" not in is_problem(response, 503)["detail"]
    assert int(response.headers["retry-after"]) > 0


async def test_a_wrong_service_account_is_not_reported_as_the_users_fault(
    http: httpx.AsyncClient, airflow: FakeAirflow
) -> None:
    airflow.users["airflow"].password = "changed since"
    is_problem(await ask_token(http, "ulla"), 503)


async def test_a_service_token_that_airflow_rejects_is_replaced(http: httpx.AsyncClient, airflow: FakeAirflow) -> None:
    assert (await ask_token(http, "ulla")).is_success
    airflow.fail("/auth/fab", 401, times=1)
    assert (await ask_token(http, "ulla")).is_success


@pytest.mark.parametrize(
    "body",
    [
        {}, {"username": "ulla"}, {"username": "", "password": "x"}, {"username": "ulla", "password": ""},
        {"username": "ulla", "password": PASSWORD, "role": "Admin"}, [], "text",
    ],
)  # fmt: skip
async def test_a_malformed_request_does_not_repeat_the_password(http: httpx.AsyncClient, body: Any) -> None:
    response = await http.post("/auth/token", json=body)
    assert is_problem(response, 422)["errors"]
    assert PASSWORD not in response.text


def forged(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": "langgraph-flow", "sub": "anna", "role": "Admin", "iat": now, "exp": now + 60, "aft": "x", **changes,
    }  # fmt: skip
    claims = {name: value for name, value in claims.items() if value is not None}
    key: Any = secret if algorithm != "none" else None
    return jwt.encode(claims, key, algorithm=algorithm)


@pytest.mark.parametrize(
    "authorization",
    [
        "", "Bearer", "Bearer ", "Basic YTpi", "Bearer x", "Bearer x.y.z", f"Token {forged()}",
        f"Bearer {forged('t' * 32)}", f"Bearer {forged(algorithm='none')}", f"Bearer {forged(iss='another')}",
        f"Bearer {forged(exp=1)}", f"Bearer {forged(exp=None)}", f"Bearer {forged(aft=None)}", f"Bearer {forged()}",
        f"Bearer {forged(algorithm='HS512', secret='s' * 64)}",
    ],
)  # fmt: skip
async def test_forged_and_expired_tokens_are_refused(http: httpx.AsyncClient, authorization: str) -> None:
    response = await http.get("/workflow-status", headers={"Authorization": authorization})
    is_problem(response, 401)
    assert response.headers["www-authenticate"] == "Bearer"


async def test_a_token_signed_with_an_earlier_secret_is_refused(database_url: str, airflow: FakeAirflow) -> None:
    async with application(database_url, airflow) as app, client_of(app) as http:
        headers = await sign_in(http, "ulla")
        assert (await http.get("/workflow-status", headers=headers)).is_success
    async with application(database_url, airflow) as app, client_of(app) as http:
        is_problem(await http.get("/workflow-status", headers=headers), 401)


@pytest.mark.parametrize(
    ("address", "base_url", "headers", "status"),
    [
        ("172.18.0.1", "http://localhost:8000", {}, 200),
        ("172.18.0.2", "http://localhost:8000", {}, 401),
        ("172.18.0.1", "http://backend:8000", {}, 401),
        ("172.18.0.1", "http://localhost:8000", {"X-Forwarded-For": "172.18.0.1"}, 401),
    ],
)
async def test_in_a_container_the_gateway_counts_as_this_machine(
    database_url: str, airflow: FakeAirflow, address: str, base_url: str, headers: dict[str, str], status: int
) -> None:
    async with (
        application(database_url, airflow, local_networks=("172.18.0.1/32",)) as app,
        client_of(app, address=address, base_url=base_url) as http,
    ):
        assert (await http.get("/workflow-status", headers=headers)).status_code == status
        body = {"dag_id": "visual_ai_workflow", "input_data": {"image_url": "x"}}
        is_problem(await http.post("/workflows/trigger", json=body, headers=headers), 401)


@pytest.mark.parametrize(
    ("address", "base_url", "headers", "status"),
    [
        ("127.0.0.1", "http://localhost:8000", {}, 200),
        ("127.0.0.1", "http://127.0.0.1", {}, 200),
        ("::1", "http://[::1]:8000", {}, 200),
        ("127.0.0.1", "http://localhost", {"X-Forwarded-For": "127.0.0.1"}, 401),
        ("127.0.0.1", "http://localhost", {"Forwarded": "for=127.0.0.1"}, 401),
        ("127.0.0.1", "http://localhost", {"Via": "1.1 proxy"}, 401),
        ("127.0.0.1", "http://localhost", {"X-Real-IP": "127.0.0.1"}, 401),
        ("127.0.0.1", "http://localhost", {"X-Forwarded-Proto": "https"}, 401),
        ("127.0.0.1", "http://localhost", {"X-Forwarded-Host": "localhost"}, 401),
        ("127.0.0.1", "http://attacker.test:8000", {}, 401),
        ("127.0.0.1", "http://localhost.attacker.test", {}, 401),
        ("192.0.2.7", "http://localhost", {}, 401),
        ("127.0.0.1", "http://localhost", {"Authorization": "Bearer x"}, 401),
        ("127.0.0.1", "http://localhost", {"Cookie": "visual_ai_session=x"}, 401),
    ],
)
async def test_in_development_this_machine_may_read_without_a_token(
    database_url: str, airflow: FakeAirflow, address: str, base_url: str, headers: dict[str, str], status: int
) -> None:
    async with (
        application(database_url, airflow) as app,
        client_of(app, address=address, base_url=base_url) as http,
    ):
        assert (await http.get("/workflow-status", headers=headers)).status_code == status
        body = {"dag_id": "visual_ai_workflow", "input_data": {"image_url": "x"}}
        is_problem(await http.post("/workflows/trigger", json=body, headers=headers), 401)


async def test_in_production_reading_requires_a_token(database_url: str, airflow: FakeAirflow) -> None:
    async with application(database_url, airflow, **PRODUCTION) as app, client_of(app) as http:
        is_problem(await http.get("/workflow-status"), 401)


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"jwt_secret": None}, "VISUAL_AI_JWT_SECRET"),
        ({"jwt_secret": ""}, "VISUAL_AI_JWT_SECRET"),
        ({"jwt_secret": "s" * 31}, "VISUAL_AI_JWT_SECRET"),
        ({"airflow_password": "airflow"}, "VISUAL_AI_AIRFLOW_PASSWORD"),
        ({"postgres_password": "airflow"}, "POSTGRES_PASSWORD"),
    ],
)
def test_production_refuses_weak_secrets(changes: dict[str, Any], variable: str) -> None:
    strong = {**PRODUCTION, "postgres_password": "not the default"}
    with pytest.raises(ValidationError, match=variable) as raised:
        Settings(_env_file=None, **{**strong, **changes})
    assert "s" * 31 not in str(raised.value)
    assert Settings(_env_file=None, **strong).development is False


def test_development_needs_no_secret() -> None:
    assert Settings(_env_file=None).development is True


async def test_only_configured_origins_may_call_the_api(database_url: str, airflow: FakeAirflow) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,cache-control"}
    named, other = {"Origin": "https://pages.test"}, {"Origin": "https://elsewhere.test"}
    async with (
        application(database_url, airflow, cors_origins=("https://pages.test",)) as app,
        client_of(app) as http,
    ):
        allowed = await http.options("/workflows/trigger", headers={**asked, **named})
        assert allowed.headers["access-control-allow-origin"] == "https://pages.test"
        assert "Authorization" in allowed.headers["access-control-allow-headers"]
        assert (await http.options("/workflows/trigger", headers={**asked, **other})).status_code == 400
        read = await http.get("/workflow-status", headers=named)
        assert read.headers["access-control-allow-origin"] == "https://pages.test"
        assert "access-control-allow-origin" not in (await http.get("/workflow-status", headers=other)).headers
