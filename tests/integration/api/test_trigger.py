"""Triggering runs: every status of the contract, and one run for each request however often it is sent."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
import redis
from fastapi import FastAPI
from sqlalchemy import Engine

from backend.db.address import plain_url
from backend.services.triggering import catalog, rate
from backend.services.triggering import trigger as trigger_module
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, raw_request, served, sign_in
from tests.kit.recorded_runs import RecordedRun
from tests.kit.servers.postgres import Postgres, locked_out
from tests.kit.servers.redis import RedisServer

INPUT: dict[str, Any] = {"query": "What is this?", "image_url": "https://example.com/image.jpg"}
BODY: dict[str, Any] = {"dag_id": "visual_ai_workflow", "input_data": INPUT}

Headers = Mapping[str, str]


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag("visual_ai_workflow")
    airflow.add_dag("multi agent/workflow", params={})
    return airflow


def rows(url: str) -> dict[str, int]:
    """The number of rows in each table that a trigger writes to."""
    tables = ("workflow_executions", "workflow_events", "idempotency_keys")
    with psycopg.connect(plain_url(url)) as connection:
        counts = [connection.execute(f"SELECT count(*) FROM visual_ai.{table}").fetchone() for table in tables]
    return {table: count[0] for table, count in zip(tables, counts, strict=True) if count}


NOTHING = {"workflow_executions": 0, "workflow_events": 0, "idempotency_keys": 0}


async def send(http: httpx.AsyncClient, headers: Headers, key: str | None = None, **changes: Any) -> httpx.Response:
    own = {"Idempotency-Key": key} if key else {}
    return await http.post("/workflows/trigger", json={**BODY, **changes}, headers={**headers, **own})


def is_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"]
    problem: dict[str, Any] = response.json()
    assert (problem["status"], problem["type"]) == (status, "about:blank")
    assert problem["title"]
    assert problem["detail"]
    for secret in ("10.9.8.7", "Traceback", "pw-of-nobody"):
        assert secret not in response.text
    if status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return problem


def pointers(response: httpx.Response) -> list[str]:
    return [error["pointer"] for error in is_problem(response, 422)["errors"]]


async def test_a_trigger_is_accepted(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    response = await send(http, {**ulla, "X-Request-ID": "req-7"}, model="local:vision")
    assert response.status_code == 202
    accepted = response.json()
    run_id = accepted["dag_run_id"]
    assert accepted == {
        "execution_id": str(UUID(accepted["execution_id"])),
        "dag_id": "visual_ai_workflow",
        "dag_run_id": run_id,
        "state": "queued",
        "status_url": f"/workflow-status/visual_ai_workflow/{run_id}",
        "stream_url": f"/workflow-status/stream/visual_ai_workflow/{run_id}",
        "airflow_url": f"http://127.0.0.1:8080/dags/visual_ai_workflow/runs/{run_id}",
    }
    assert response.headers["location"] == accepted["status_url"]
    assert response.headers["x-request-id"] == "req-7"
    assert len(airflow.triggers[0][1]["conf"]["_visual_ai"].pop("signature")) == 64
    assert airflow.triggers == [
        (
            "ulla",  # under the user's own name
            {
                "dag_run_id": run_id,
                "logical_date": None,
                "conf": {
                    **INPUT,
                    "_visual_ai": {
                        "execution_id": accepted["execution_id"],
                        "user_id": "ulla",
                        "triggered_by": "ulla",
                        "model": "local:vision",
                    },
                },
            },
        )
    ]
    assert rows(database_url) == {"workflow_executions": 1, "workflow_events": 1, "idempotency_keys": 0}
    snapshot = await http.get(accepted["status_url"], headers=ulla)
    assert snapshot.status_code == 200
    assert snapshot.json() | {"input_data": INPUT, "state": "queued", "progress": 0, "last_event_id": 1} == (
        snapshot.json()
    )


async def test_names_in_urls_are_quoted(http: httpx.AsyncClient, ulla: Headers) -> None:
    response = await send(http, ulla, dag_id="multi agent/workflow")
    assert response.headers["location"].startswith("/workflow-status/multi%20agent%2Fworkflow/api__")


async def test_a_run_can_start_later(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    assert (await send(http, ulla, run_after=later.isoformat())).status_code == 202
    assert airflow.triggers[0][1]["run_after"] == later.isoformat()
    assert pointers(await send(http, ulla, run_after="2026-01-01T00:00:00")) == ["/run_after"]


@pytest.mark.parametrize("username", ["otto", "anna"])
async def test_an_operator_triggers_on_behalf_of_another_user(
    http: httpx.AsyncClient, username: str, airflow: FakeAirflow
) -> None:
    headers = await sign_in(http, username)
    accepted = (await send(http, headers, user_id="ulla")).json()
    assert airflow.triggers[0][1]["conf"]["_visual_ai"]["user_id"] == "ulla"
    ulla = await sign_in(http, "ulla")
    assert (await http.get(accepted["status_url"], headers=ulla)).json()["user_id"] == "ulla"


# Refusals


async def test_a_trigger_without_a_token_is_refused(
    http: httpx.AsyncClient, airflow: FakeAirflow, database_url: str
) -> None:
    for headers in ({}, {"Authorization": "Bearer forged"}, {"Cookie": "visual_ai_session=forged"}):
        is_problem(await send(http, headers, "k"), 401)
    assert (rows(database_url), airflow.triggers) == (NOTHING, [])


async def test_a_trigger_with_an_expired_token_is_refused(http: httpx.AsyncClient, airflow: FakeAirflow) -> None:
    await sign_in(http, "ulla")  # the service account has its token now
    airflow.token_lifetime = 1
    headers = await sign_in(http, "ulla")
    await asyncio.sleep(1.1)
    is_problem(await send(http, headers), 401)


async def test_a_token_that_airflow_no_longer_accepts_is_refused(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    del airflow.users["ulla"]
    is_problem(await send(http, ulla, "k"), 401)
    assert rows(database_url) == NOTHING


async def test_a_viewer_may_not_trigger(http: httpx.AsyncClient, airflow: FakeAirflow, database_url: str) -> None:
    is_problem(await send(http, await sign_in(http, "victor"), "k"), 403)
    assert (rows(database_url), airflow.triggers) == (NOTHING, [])


async def test_a_user_may_not_trigger_on_behalf_of_another(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    assert "user_id" in is_problem(await send(http, ulla, "k", user_id="uwe"), 403)["detail"]
    assert (rows(database_url), airflow.triggers) == (NOTHING, [])
    assert (await send(http, ulla, user_id="ulla")).status_code == 202


@pytest.mark.parametrize("where", ["/details", "POST /api/v2/dags/visual_ai_workflow/dagRuns"])
async def test_airflow_forbids_the_trigger(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str, where: str
) -> None:
    airflow.fail(where, 403)
    is_problem(await send(http, ulla, "k"), 403)
    assert rows(database_url) == NOTHING
    airflow.heal()
    assert (await send(http, ulla, "k", model="another body")).status_code == 202, "the key was released"


async def test_simultaneous_triggers_share_one_look_up(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    answers = await asyncio.gather(*(send(http, ulla) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert sum("/details" in call for call in airflow.log) == 1


async def test_a_look_up_in_the_background_delays_no_trigger(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "FRESH", 3600)
    monkeypatch.setattr(catalog, "REFRESH", 0)
    assert (await send(http, ulla)).status_code == 202
    airflow.dags["visual_ai_workflow"]["is_paused"] = True
    airflow.fail("/details", 500, delay=0.5)
    assert (await send(http, ulla)).status_code == 202, "the known details are still used"
    airflow.heal()
    async with asyncio.timeout(10):
        while (await send(http, ulla)).status_code == 202:  # noqa: ASYNC110  # each look tells the state of that moment
            await asyncio.sleep(0.05)
    is_problem(await send(http, ulla), 409)


async def test_an_unknown_dag_is_not_found(http: httpx.AsyncClient, ulla: Headers, database_url: str) -> None:
    is_problem(await send(http, ulla, "k", dag_id="none"), 404)
    is_problem(await send(http, ulla, "k", dag_id="../config"), 404)
    is_problem(await send(http, ulla, "k", dag_id="a\x00b"), 404)
    assert rows(database_url) == NOTHING


@pytest.mark.parametrize(
    "shown",
    [{"is_paused": True}, {"is_stale": True}, {"has_import_errors": True}, {"allowed_run_types": ["scheduled"]}],
)
async def test_a_dag_that_can_not_be_triggered_is_a_conflict(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str, shown: dict[str, Any]
) -> None:
    airflow.add_dag("visual_ai_workflow", **shown)
    detail = is_problem(await send(http, ulla, "k"), 409)["detail"]
    assert ("unpause" in detail) is ("is_paused" in shown)
    assert (rows(database_url), airflow.triggers) == (NOTHING, [])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"query": "?"}, ["/input_data/image_url"]),
        ({"image_url": 7}, ["/input_data/image_url"]),
        ({"image_url": None}, ["/input_data/image_url"]),
        ({"image_url": ""}, ["/input_data/image_url"]),
        ({"image_url": "x", "query": ""}, ["/input_data/query"]),
        ({"query": 5}, ["/input_data/query", "/input_data/image_url"]),
        ({"image_url": "x", "options": {"a/b": "no"}}, ["/input_data/options/a~1b"]),
        ({"image_url": "x", "options": {"sizes": [1, "two"]}}, ["/input_data/options/sizes/1"]),
        ({"image_url": "x", "_visual_ai": {}}, ["/input_data/_visual_ai"]),
        (None, ["/input_data"]),
        ([], ["/input_data"]),
    ],
)
async def test_input_that_violates_the_schema_is_refused(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str, given: Any, expected: list[str]
) -> None:
    assert sorted(pointers(await send(http, ulla, "k", input_data=given))) == sorted(expected)
    assert (rows(database_url), airflow.triggers) == (NOTHING, [])


async def test_keys_that_are_not_parameters_are_accepted(http: httpx.AsyncClient, ulla: Headers) -> None:
    assert (await send(http, ulla, input_data={**INPUT, "extra": [1, {"a": None}]})).status_code == 202


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"dag_id": "visual_ai_workflow"}', ["/input_data"]),
        ('{"input_data": {}}', ["/dag_id"]),
        ('{"dag_id": "", "input_data": {}}', ["/dag_id"]),
        ('{"dag_id": "x", "input_data": {}, "surprise": 1, "a/b": 2}', ["/surprise", "/a~1b"]),
        ('{"dag_id": "x", "input_data": {}, "user_id": 5}', ["/user_id"]),
        ('{"dag_id": "x"', [""]),
        ("", [""]),
        ("[]", [""]),
        ('"text"', [""]),
    ],
)
async def test_an_invalid_body_is_refused(
    http: httpx.AsyncClient, ulla: Headers, content: str, expected: list[str]
) -> None:
    response = await http.post(
        "/workflows/trigger", content=content, headers={**ulla, "Content-Type": "application/json"}
    )
    assert pointers(response) == expected


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("NaN", ""),
        ("[Infinity]", "/0"),
        ('{"deep": [1, -Infinity]}', "/deep/1"),
        ("1e999", ""),
        ('"\\u0000"', ""),
        ('"\\ud83d"', ""),
        ('{"\\udc00": 1}', "/\\udc00"),
        ('{"a/b\\u0000": 1}', "/a~1b\x00"),
        (str(2**63), ""),
        (f"[{-(2**63) - 1}]", "/0"),
        ("[" * 64 + "]" * 64, "/0" * 63),
        ("[" * 500 + "]" * 500, "/0" * 63),
    ],
)
async def test_values_that_json_does_not_allow_are_refused(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str, value: str, place: str
) -> None:
    """Python's parser accepts it, Airflow's and PostgreSQL's don't."""
    content = json.dumps(BODY).replace('"What is this?"', f'"?", "extra": {value}')
    headers = {**ulla, "Content-Type": "application/json", "Idempotency-Key": "k"}
    response = await http.post("/workflows/trigger", content=content, headers=headers)
    assert pointers(response) == [f"/input_data/extra{place}"]
    assert (rows(database_url), airflow.triggers) == (NOTHING, [])


async def test_deeply_nested_input_is_accepted_up_to_the_limit(http: httpx.AsyncClient, ulla: Headers) -> None:
    deepest: Any = 1
    for _ in range(63):
        deepest = [deepest]
    assert (await send(http, ulla, input_data={**BODY["input_data"], "extra": deepest})).status_code == 202


@pytest.mark.parametrize("value", ["[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000, "9" * 5000])
async def test_what_python_can_not_even_parse_is_refused(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, value: str
) -> None:
    content = json.dumps(BODY).replace('"What is this?"', f'"?", "extra": {value}')
    response = await http.post(
        "/workflows/trigger", content=content, headers={**ulla, "Content-Type": "application/json"}
    )
    assert pointers(response)
    assert airflow.triggers == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"budget": {"max_tokens": 2**64}}, "/budget/max_tokens"),
        ({"budget": {"max_steps": 2**63}}, "/budget/max_steps"),
        ({"budget": {"max_cost_usd": 2**64}}, "/budget/max_cost_usd"),
        ({"run_after": "0001-01-01T00:00:00+14:00"}, "/run_after"),
        ({"run_after": "9999-12-31T23:59:59Z"}, "/run_after"),
        ({"run_after": "0000-01-01T00:00:00Z"}, "/run_after"),
        ({"run_after": 0}, "/run_after"),
        ({"logical_date": "0001-01-01T00:00:00Z"}, "/logical_date"),
        ({"logical_date": "9999-12-31T23:59:59-12:00"}, "/logical_date"),
        ({"dag_id": "d" * 251}, "/dag_id"),
        ({"a\ud800b": 1}, ""),
    ],
)
async def test_what_can_never_work_is_refused_with_its_place(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, changes: dict[str, Any], expected: str
) -> None:
    response = await http.post(
        "/workflows/trigger",
        content=json.dumps({**BODY, **changes}),
        headers={**ulla, "Content-Type": "application/json"},
    )
    assert pointers(response) == [expected]
    assert airflow.triggers == []


async def test_the_limits_of_64_bits_are_accepted(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    extra = [2**63 - 1, -(2**63), 0.1, True]
    response = await send(http, ulla, input_data={**INPUT, "extra": extra}, budget={"max_tokens": 2**63 - 1})
    assert response.status_code == 202
    assert (await http.get(response.json()["status_url"], headers=ulla)).json()["input_data"]["extra"] == extra


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/workflows/{}"),
        ("GET", "/workflow-status/{}/run"),
        ("GET", "/workflow-status/visual_ai_workflow/{}"),
        ("GET", "/workflow-status/stream/visual_ai_workflow/{}"),
        ("GET", "/workflow-status/visual_ai_workflow/{}/result"),
        ("GET", "/workflow-status/visual_ai_workflow/{}/items/task"),
        ("GET", "/workflow-status/visual_ai_workflow/{}/tasks/task/logs"),
        ("GET", "/workflow-status/visual_ai_workflow/known/tasks/{}/logs"),
        ("POST", "/workflows/visual_ai_workflow/runs/{}/cancel"),
        ("POST", "/workflows/visual_ai_workflow/runs/{}/retry"),
    ],
)
async def test_names_that_nothing_can_have_are_not_found(
    app: FastAPI, ulla: Headers, airflow: FakeAirflow, method: str, path: str
) -> None:
    """Over a connection: clients resolve `..` in URLs, however it is quoted."""
    airflow.add_run("visual_ai_workflow", "known", "running", {"task": "running"}, triggering_user_name="ulla")
    async with served(app) as address:
        for name in ("%2e%2e", "%2E", "a%00b", "x" * 251):
            status, _, response = await raw_request(address, method, path.format(name), ulla)
            assert status == 404, response
            assert b"application/problem+json" in response


async def test_a_run_has_a_logical_date(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    date = "2026-02-28T00:00:00+00:00"
    first = await send(http, ulla, "k", logical_date=date)
    assert first.status_code == 202
    assert airflow.triggers[0][1]["logical_date"] == date
    assert (await send(http, ulla, "k", logical_date=date)).json() == first.json(), "the same request"
    is_problem(await send(http, ulla, "k"), 409)

    taken = is_problem(await send(http, ulla, "l", logical_date=date), 409)
    assert taken["errors"][0]["pointer"] == "/logical_date"
    assert (await send(http, ulla, "l", logical_date="2026-03-01T00:00:00Z")).status_code == 202, (
        "the key is free again"
    )

    airflow.fail("POST /api/v2/dags/visual_ai_workflow/dagRuns", lose_answer=True, times=1)
    assert (await send(http, ulla, logical_date="2026-03-02T00:00:00Z")).status_code == 202, "it is our own run"
    assert len(airflow.runs) == 3


@pytest.mark.parametrize("key", ["", "k" * 257])
async def test_an_invalid_idempotency_key_is_refused(http: httpx.AsyncClient, ulla: Headers, key: str) -> None:
    is_problem(await http.post("/workflows/trigger", json=BODY, headers={**ulla, "Idempotency-Key": key}), 422)


async def test_a_body_that_is_too_large_is_refused(
    database_url: str, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        application(database_url, airflow, **PRODUCTION, max_body_bytes=2000) as app,
        client_of(app) as http,
    ):
        ulla = await sign_in(http, "ulla")
        big = json.dumps({**BODY, "input_data": {**INPUT, "query": "x" * 3000}}).encode()
        read = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal read
            for start in range(0, len(big), 500):
                read += 1
                yield big[start : start + 500]

        headers = {**ulla, "Content-Type": "application/json", "Idempotency-Key": "k"}
        declared = await http.post("/workflows/trigger", content=big, headers=headers)
        assert "POST /images" in is_problem(declared, 413)["detail"]
        is_problem(await http.post("/workflows/trigger", content=chunks(), headers=headers), 413)
        assert read < len(big) / 500, "the rest was not read"
        fitting = json.dumps(BODY).encode()
        assert (await http.post("/workflows/trigger", content=fitting, headers=headers)).status_code == 202
    assert len(airflow.triggers) == 1


async def test_triggers_above_the_limit_are_refused(database_url: str, airflow: FakeAirflow) -> None:
    async with (
        application(database_url, airflow, **PRODUCTION, trigger_rate_per_minute=3) as app,
        client_of(app) as http,
    ):
        ulla, uwe = await sign_in(http, "ulla"), await sign_in(http, "uwe")
        first = await send(http, ulla, "k")
        assert [(await send(http, ulla)).status_code for _ in range(3)] == [202, 202, 429]
        response = await send(http, ulla)
        is_problem(response, 429)
        assert int(response.headers["retry-after"]) <= 60
        assert (await send(http, uwe)).status_code == 202, "each user has a limit of their own"
        assert (await send(http, ulla, "k")).json() == first.json(), "a repeated request does not count"
    assert rows(database_url)["workflow_executions"] == 4


async def test_processes_share_a_users_limit_through_redis(
    database_url: str, airflow: FakeAirflow, redis_server: RedisServer
) -> None:
    limited: dict[str, Any] = {**PRODUCTION, "trigger_rate_per_minute": 3, "redis_url": redis_server.url}
    async with (
        application(database_url, airflow, **limited) as one,
        application(database_url, airflow, **limited) as other,
        client_of(one) as http,
        client_of(other) as other_http,
    ):
        ulla, uwe = await sign_in(http, "ulla"), await sign_in(other_http, "uwe")
        for client in (http, other_http, http):
            assert (await send(client, ulla)).status_code == 202
        for client in (other_http, http):
            response = await send(client, ulla)
            is_problem(response, 429)
            assert 1 <= int(response.headers["retry-after"]) <= 60
        assert (await send(http, uwe)).status_code == 202, "each user has a limit of their own"
    with redis.Redis.from_url(redis_server.url) as client:
        assert all(client.ttl(key) > 0 for key in client.scan_iter("visual_ai:limits*")), "no counter stays for ever"


async def test_each_process_counts_by_itself_while_redis_is_down(
    database_url: str, airflow: FakeAirflow, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "PAUSE", 0.3)
    limited: dict[str, Any] = {**PRODUCTION, "trigger_rate_per_minute": 2, "redis_url": redis_server.url}
    async with application(database_url, airflow, **limited) as app, client_of(app) as http:
        ulla = await sign_in(http, "ulla")
        assert [(await send(http, ulla)).status_code for _ in range(3)] == [202, 202, 429]
        redis_server.kill()
        assert [(await send(http, ulla)).status_code for _ in range(3)] == [202, 202, 429]
        redis_server.start()  # with empty counters
        await asyncio.sleep(0.4)
        assert (await send(http, ulla)).status_code == 202, "Redis counts again"


async def test_every_detail_that_airflow_lists_is_reported(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    """FastAPI, on which Airflow's API is built, reports validation errors as a list of objects."""
    listed = [
        {"type": "string_type", "loc": ["body", "dag_run_id"], "msg": "Input should be a valid string", "input": 1},
        {"type": "extra_forbidden", "loc": ["body", "x"], "msg": "Extra inputs are not permitted", "input": 2},
    ]
    airflow.fail("POST /api/v2/dags/visual_ai_workflow/dagRuns", 422, detail=listed)
    problem = is_problem(await send(http, ulla), 422)
    reasons = "Input should be a valid string; Extra inputs are not permitted"
    assert problem["detail"] == f"Airflow refused the run: {reasons}"
    assert problem["errors"] == [{"pointer": "/input_data", "detail": reasons}]


async def test_a_refusal_after_a_lost_response_does_not_release_the_key(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    where = "POST /api/v2/dags/visual_ai_workflow/dagRuns"
    airflow.fail(where, lose_answer=True, times=1)
    airflow.fail(where, 403)
    is_problem(await send(http, ulla, "k"), 503)
    airflow.heal()
    assert (await send(http, ulla, "k")).status_code == 202
    assert len(airflow.runs) == 1


@pytest.mark.parametrize("status", [None, 500, 502, 503])
async def test_triggers_while_airflow_is_down(
    http: httpx.AsyncClient,
    ulla: Headers,
    airflow: FakeAirflow,
    database_url: str,
    status: int | None,
) -> None:
    airflow.fail("/dags", status)
    is_problem(await send(http, ulla), 503)
    assert rows(database_url) == NOTHING
    airflow.heal()
    assert (await send(http, ulla)).status_code == 202


async def test_airflow_goes_down_before_the_run_starts(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    airflow.fail("POST /api/v2/dags/visual_ai_workflow/dagRuns")
    is_problem(await send(http, ulla, "k"), 503)
    assert rows(database_url) == {**NOTHING, "idempotency_keys": 1}, "the key keeps the run's id"
    airflow.heal()
    assert (await send(http, ulla, "k")).status_code == 202
    assert len(airflow.runs) == 1


async def test_airflow_recovers_within_the_attempts(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    airflow.fail("POST /api/v2/dags/visual_ai_workflow/dagRuns", 503, times=2)
    assert (await send(http, ulla)).status_code == 202
    assert len(airflow.runs) == 1


@pytest.mark.parametrize("status", [400, 422])
async def test_airflow_refuses_the_conf(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str, status: int
) -> None:
    airflow.fail("POST /api/v2/dags/visual_ai_workflow/dagRuns", status, times=1, detail="no such picture")
    response = await send(http, ulla, "k")
    assert pointers(response) == ["/input_data"]
    assert "no such picture" in response.text
    assert rows(database_url) == NOTHING
    assert (await send(http, ulla, "k", model="corrected")).status_code == 202


async def test_an_internal_error_is_a_problem_too(
    http: httpx.AsyncClient, ulla: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("10.9.8.7 said Traceback")

    monkeypatch.setattr(trigger_module, "_new_claim", broken)
    is_problem(await send(http, {**ulla, "X-Request-ID": "req-8"}), 500)
    assert (await send(http, {**ulla, "X-Request-ID": "req-8"})).headers["x-request-id"] == "req-8"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing/here", 404), ("DELETE", "/workflows", 405)])
async def test_unknown_paths_and_methods_are_problems(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    is_problem(await http.request(method, path), status)


# Idempotency


async def test_the_same_key_and_body_return_the_same_run(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    first = await send(http, ulla, "k")
    again = await send(http, ulla, "k", input_data=dict(reversed(INPUT.items())))
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["location"] == first.headers["location"]
    assert len(airflow.triggers) == 1


@pytest.mark.parametrize("change", [{"input_data": {**INPUT, "query": "else"}}, {"model": "m"}, {"user_id": "ulla"}])
async def test_the_same_key_with_another_body_is_a_conflict(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str, change: dict[str, Any]
) -> None:
    assert (await send(http, ulla, "k")).status_code == 202
    before = rows(database_url)
    is_problem(await send(http, ulla, "k", **change), 409)
    assert (rows(database_url), len(airflow.triggers)) == (before, 1)


async def test_keys_are_separate_for_each_user(http: httpx.AsyncClient, ulla: Headers) -> None:
    uwe = await sign_in(http, "uwe")
    first, second = await send(http, ulla, "k"), await send(http, uwe, "k", model="m")
    assert first.json()["dag_run_id"] != second.json()["dag_run_id"]


async def test_without_a_key_each_request_starts_a_run(http: httpx.AsyncClient, ulla: Headers) -> None:
    ids = {(await send(http, ulla)).json()["dag_run_id"] for _ in range(3)}
    assert len(ids) == 3


async def test_simultaneous_requests_with_one_key_start_one_run(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    responses = await asyncio.gather(*(send(http, ulla, "k") for _ in range(30)))
    assert {response.status_code for response in responses} == {202}
    assert len({json.dumps(response.json()) for response in responses}) == 1
    assert len(airflow.runs) == 1
    assert rows(database_url) == {"workflow_executions": 1, "workflow_events": 1, "idempotency_keys": 1}


async def test_a_response_is_lost_once(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    airflow.fail("POST /api/v2/dags/visual_ai_workflow/dagRuns", lose_answer=True, times=1)
    response = await send(http, ulla)
    assert response.status_code == 202
    assert list(airflow.runs) == [("visual_ai_workflow", response.json()["dag_run_id"])]


@pytest.mark.parametrize("paused_since", [False, True])
async def test_every_response_is_lost(database_url: str, airflow: FakeAirflow, paused_since: bool) -> None:
    """The client's retry, after a restart of the service, finds the run that was started."""
    airflow.fail("/dags/~/")  # so that nobody else records the run
    airflow.fail("POST /api/v2/dags/visual_ai_workflow/dagRuns", lose_answer=True)
    async with application(database_url, airflow, **PRODUCTION) as app, client_of(app) as http:
        is_problem(await send(http, await sign_in(http, "ulla"), "k"), 503)
    [(_, dag_run_id)] = airflow.runs
    airflow.heal()
    airflow.fail("/dags/~/")
    async with application(database_url, airflow, **PRODUCTION) as app, client_of(app) as http:
        if paused_since:
            airflow.add_dag("visual_ai_workflow", is_paused=True)
        assert rows(database_url)["workflow_executions"] == 0
        response = await send(http, await sign_in(http, "ulla"), "k")
        assert (response.status_code, response.json()["dag_run_id"]) == (202, dag_run_id)
    assert len(airflow.runs) == 1
    assert rows(database_url)["workflow_executions"] == 1


async def test_triggers_while_the_database_is_down(airflow: FakeAirflow, pg: Postgres, database_url: str) -> None:
    async with (
        application(database_url, airflow, **PRODUCTION) as app,
        client_of(app) as http,
        AsyncExitStack() as stack,
    ):
        ulla = await sign_in(http, "ulla")
        assert (await send(http, await sign_in(http, "otto"))).status_code == 202
        airflow.triggers.clear()
        airflow.runs.clear()
        stack.enter_context(locked_out(pg, "visual_ai_backend"))
        problem = is_problem(await send(http, ulla), 503)
        assert "name `model` and `budget`" in problem["detail"], (
            "a run never starts without a budget that can't be read"
        )
        response = await send(http, ulla, model="local:vision", budget={})
        assert response.status_code == 202, "Airflow has it; the record follows"
        conf = airflow.triggers[0][1]["conf"]
        assert conf["_visual_ai"]["execution_id"] == response.json()["execution_id"]
        is_problem(await send(http, ulla, "k"), 503)  # without a place for the key nothing may start
        assert len(airflow.runs) == 1
        is_problem(await http.get("/workflow-status", headers=ulla), 503)


@pytest.mark.parametrize(
    "path",
    [
        "/workflow-status/a%00b/c", "/workflow-status/a/b%00c", "/workflow-status/stream/a%00/b",
        "/workflow-status/none/none",
    ],
)  # fmt: skip
async def test_a_name_that_no_run_can_have_is_not_found(http: httpx.AsyncClient, ulla: Headers, path: str) -> None:
    is_problem(await http.get(path, headers=ulla), 404)


@pytest.mark.parametrize(
    "query",
    [
        "?cursor=x", "?cursor=%00", "?limit=0", "?limit=201", "?state=unknown", "?since=yesterday", "?dag_id=%00",
        "?user_id=%00", "?cursor=MjAyNi0wMS0wMVQwMDowMDowMCswMDowMHx4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg",
    ],
)  # fmt: skip
async def test_invalid_list_queries_are_refused(http: httpx.AsyncClient, ulla: Headers, query: str) -> None:
    assert pointers(await http.get(f"/workflow-status{query}", headers=ulla)) == [query.partition("=")[0]]


async def test_the_list_is_paged(http: httpx.AsyncClient, ulla: Headers) -> None:
    started = [(await send(http, ulla)).json()["dag_run_id"] for _ in range(5)]
    await send(http, await sign_in(http, "uwe"))
    seen, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await http.get("/workflow-status", headers=ulla, params=params)).json()
        seen += [execution["dag_run_id"] for execution in page["executions"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == started[::-1], "newest first, the user's own only"


async def test_an_unrecorded_run_while_airflow_is_down_is_unavailable(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    """It is unknown whether the run exists, so the response is not 404."""
    airflow.fail("GET /api/v2/dags/visual_ai_workflow/dagRuns")
    is_problem(await http.get("/workflow-status/visual_ai_workflow/run", headers=ulla), 503)


async def test_workflows_are_listed(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    airflow.add_dag("stale", is_stale=True)
    listed = (await http.get("/workflows", headers=ulla)).json()["workflows"]
    assert [workflow["dag_id"] for workflow in listed] == ["multi agent/workflow", "visual_ai_workflow"]
    assert listed[1]["input_schema"]["required"] == ["image_url"]
    airflow.followers["visual_ai_workflow"] = {"first": ["third", "second"], "second": [], "third": []}
    detail = (await http.get("/workflows/visual_ai_workflow", headers=ulla)).json()
    assert [(task["task_id"], task["downstream"]) for task in detail.pop("tasks")] == [
        ("first", ["second", "third"]),
        ("second", []),
        ("third", []),
    ]
    assert detail == listed[1]
    is_problem(await http.get("/workflows/none", headers=ulla), 404)


async def test_a_listing_costs_a_bounded_number_of_calls(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    for number in range(332):
        airflow.add_dag(f"dag_{number:03}")

    async def calls() -> list[str]:
        before = len(airflow.log)
        assert len((await http.get("/workflows", headers=ulla)).json()["workflows"]) == 334
        return [call for call in airflow.log[before:] if "/auth/" not in call]

    await calls()
    assert await calls() == ["GET /api/v2/dags"] * 5, "four pages, and the broken ones"
    airflow.dags["dag_007"] |= {"last_parsed_time": "2030-01-01T00:00:00Z", "params": {}}
    assert [call for call in await calls() if "details" in call] == ["GET /api/v2/dags/dag_007/details"]


async def test_a_paused_workflow_is_listed_as_paused_at_once(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    for paused in (False, True, False):
        airflow.dags["visual_ai_workflow"]["is_paused"] = paused
        listed = (await http.get("/workflows", headers=ulla)).json()["workflows"]
        assert [workflow["paused"] for workflow in listed] == [False, paused]


@pytest.mark.parametrize("status", [403, 404])
async def test_a_workflow_that_disappears_during_the_listing_is_left_out(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, status: int
) -> None:
    airflow.add_dag("gone")
    airflow.fail("/dags/gone/details", status)
    listed = await http.get("/workflows", headers=ulla)
    assert listed.status_code == 200
    assert [workflow["dag_id"] for workflow in listed.json()["workflows"]] == [
        "multi agent/workflow",
        "visual_ai_workflow",
    ]
    airflow.fail("/details", 500)
    airflow.add_dag("new")
    is_problem(await http.get("/workflows", headers=ulla), 503)


async def test_a_workflow_with_an_import_error_is_listed_with_it(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "FRESH", 0)
    airflow.add_dag("broken", has_import_errors=True)
    airflow.add_dag("broken_for_long", has_import_errors=True, is_stale=True)
    airflow.add_dag("deleted", has_import_errors=True, is_stale=True)
    trace = "Traceback (most recent call last):\n  File \"x.py\"\nModuleNotFoundError: No module named 'pandsa'\n"
    airflow.import_errors = {"broken.py": trace, "broken_for_long.py": "SyntaxError: invalid syntax"}

    async def errors() -> dict[str, str | None]:
        listed = (await http.get("/workflows", headers=ulla)).json()["workflows"]
        return {workflow["dag_id"]: workflow["import_error"] for workflow in listed}

    reason = "broken.py: ModuleNotFoundError: No module named 'pandsa'"
    assert await errors() == {
        "broken": reason,
        "broken_for_long": "broken_for_long.py: SyntaxError: invalid syntax",
        "multi agent/workflow": None,
        "visual_ai_workflow": None,
    }
    assert (await http.get("/workflows/broken", headers=ulla)).json()["import_error"] == reason
    assert reason in is_problem(await send(http, ulla, dag_id="broken"), 409)["detail"]
    assert airflow.triggers == []

    airflow.fail("importErrors", 403)
    assert (await errors())["broken"] == catalog.UNKNOWN_ERROR
    airflow.dags["broken"]["has_import_errors"] = False
    assert (await errors())["broken"] is None, "repaired"


async def test_tasks_are_read_again_after_the_dag_was_parsed_again(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "FRESH", 0)

    async def tasks() -> list[str] | None:
        found = (await http.get("/workflows/visual_ai_workflow", headers=ulla)).json()["tasks"]
        return None if found is None else [task["task_id"] for task in found]

    airflow.followers["visual_ai_workflow"] = {"a": []}
    refusal = airflow.fail("/visual_ai_workflow/tasks", 403, times=1)
    assert await tasks() is None, "Airflow keeps them from this user: the workflow itself is shown"
    assert refusal.times == 0
    assert await tasks() == ["a"]
    airflow.followers["visual_ai_workflow"] = {"b": []}
    assert await tasks() == ["a"]
    airflow.dags["visual_ai_workflow"]["last_parsed_time"] = "2030-01-01T00:00:00Z"
    assert await tasks() == ["b"]
    airflow.dags["visual_ai_workflow"]["last_parsed_time"] = "2030-01-01T00:00:01Z"
    airflow.fail("/visual_ai_workflow/tasks", 503)
    is_problem(await http.get("/workflows/visual_ai_workflow", headers=ulla), 503)


async def test_the_sample_picture_can_be_read(http: httpx.AsyncClient, ulla: Headers) -> None:
    sample = await http.get("/images/samples/invoice", headers=ulla)
    assert sample.headers["content-type"] == "image/png"
    assert sample.content.startswith(b"\x89PNG")
    assert "invoice" in is_problem(await http.get("/images/samples/none", headers=ulla), 404)["detail"]


# HTTP


async def test_a_connection_stays_usable_after_a_server_error(app: FastAPI) -> None:
    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError

    async with served(app) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        for path, status in (("/broken", b"500"), ("/healthz", b"200"), ("/broken", b"500")):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert status in head.splitlines()[0]
            length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
        writer.close()


async def test_head_is_answered_like_get_without_a_body(app: FastAPI, ulla: Headers, airflow: FakeAirflow) -> None:
    airflow.add_run("visual_ai_workflow", "known", "running", {"task": "running"}, triggering_user_name="ulla")
    run = "visual_ai_workflow/known"
    logs = f"/workflow-status/{run}/tasks/task/logs?follow=true"
    async with served(app) as address:
        for path in ("/workflows", f"/workflow-status/{run}", f"/workflow-status/stream/{run}", logs):
            status, head, response = await raw_request(address, "HEAD", path, ulla)
            assert (status, response) == (200, head + b"\r\n\r\n"), path
        assert (await raw_request(address, "HEAD", "/workflows/visual_ai_workflow/runs/known/cancel", ulla))[0] == 405
        assert (await raw_request(address, "HEAD", "/workflow-status/stream/none/none", ulla))[0] == 404
    assert app.state.application.streams.open_streams == 0


async def test_http_1_0_clients_get_no_chunks(app: FastAPI, ulla: Headers, airflow: FakeAirflow) -> None:
    airflow.add_run("visual_ai_workflow", "known", "success", {"task": "success"}, triggering_user_name="ulla")
    async with served(app) as address:
        path = "/workflow-status/stream/visual_ai_workflow/known"
        status, head, response = await raw_request(address, "GET", path, ulla, version="1.0")
        assert status == 200
        assert b"transfer-encoding" not in head.lower()
        body = response[len(head) + 4 :]
        assert body.startswith((b"id:", b"event:", b"retry:", b":", b"data:")), body[:100]
        assert b"event: end" in body
        assert (await raw_request(address, "GET", "/workflows", ulla, version="1.0"))[0] == 200


@pytest.mark.parametrize("app", [{"max_input_bytes": 2_000}], indirect=True)
async def test_an_input_beyond_its_limit_is_413(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    response = await send(http, ulla, input_data={**INPUT, "query": "x" * 2_000})
    problem = is_problem(response, 413)
    assert problem["errors"][0]["pointer"] == "/input_data"
    assert "VISUAL_AI_MAX_INPUT_BYTES" in problem["detail"]
    assert not airflow.triggers


async def test_a_request_may_wait_for_its_result(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, engine: Engine
) -> None:
    async def wait(seconds: float) -> httpx.Response:
        headers = {**ulla, "Idempotency-Key": "once"}
        return await http.post("/workflows/trigger", params={"wait": seconds}, json=BODY, headers=headers)

    late = await wait(0.2)
    assert (late.status_code, set(late.json())) == (202, set((await send(http, ulla)).json()))
    waiting = asyncio.create_task(wait(30))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    run = RecordedRun(engine, BODY["dag_id"], late.json()["dag_run_id"])
    run.returns({"output": {"answer": 42}})
    run.is_now("success")
    done = await waiting
    assert (done.status_code, done.json()["state"]) == (200, "success"), done.text
    assert done.json()["result"] == {"output": {"answer": 42}}
    assert done.headers["location"] == late.json()["status_url"]
    assert (await wait(30)).json()["result"] == done.json()["result"], "of a run that has ended it comes at once"
    for seconds in (0, 301):
        assert pointers(await wait(seconds)) == ["?wait"]
