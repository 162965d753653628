"""`/limits`: who sets what, who sees what, and what each limit refuses at the API, in all processes together."""

import asyncio
import io
import json
import re
import shlex
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from PIL import Image
from sqlalchemy import create_engine, text

from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, SCRAPER, application, client_of, served, sign_in
from tests.kit.documents.snippets import snippet
from tests.kit.identity import record
from tests.kit.limits import add_use
from tests.kit.waiting import eventually

DAG = "visual_ai_workflow"
INPUT: dict[str, Any] = {"query": "What is this?", "image_url": "https://example.com/image.jpg"}
Headers = Mapping[str, str]


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    return airflow


@pytest.fixture
async def http(database_url: str, airflow: FakeAirflow) -> AsyncIterator[httpx.AsyncClient]:
    async with application(database_url, airflow, **PRODUCTION) as app, client_of(app) as client:
        yield client


async def put(
    http: httpx.AsyncClient, subject: str, kind: str, limit: float, period: str | None = None, *, user: str = "anna"
) -> dict[str, Any]:
    body = {"subject": subject, "kind": kind, "limit": limit, **({"period": period} if period else {})}
    name = f"{subject.replace(':', '-')}-{kind}"
    answer = await http.put(f"/limits/{name}", json=body, headers=await sign_in(http, user))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def send(http: httpx.AsyncClient, who: Headers, key: str | None = None, **changes: Any) -> httpx.Response:
    own = {"Idempotency-Key": key} if key else {}
    return await http.post(
        "/workflows/trigger", json={"dag_id": DAG, "input_data": INPUT, **changes}, headers={**who, **own}
    )


def problem(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    return str(answer.json()["detail"])


def png(colour: int, side: int = 40) -> bytes:
    content = io.BytesIO()
    Image.effect_noise((side, side), colour).save(content, "PNG")
    return content.getvalue()


async def test_admins_set_limits_operators_see_them_and_users_see_their_own(
    http: httpx.AsyncClient, database_url: str
) -> None:
    anna, otto, ulla, uwe, victor = [await sign_in(http, name) for name in ("anna", "otto", "ulla", "uwe", "victor")]
    body = {"subject": "user:ULLA", "kind": "cost_usd", "period": "day", "limit": 2.5}
    for who in (otto, ulla, victor):
        problem(await http.put("/limits/ulla-daily", json=body, headers=who), 403)
        problem(await http.delete("/limits/ulla-daily", headers=who), 403)
    for who in (ulla, victor):
        problem(await http.get("/limits", headers=who), 403)
    for path in ("/limits", "/limits/mine"):
        problem(await http.get(path), 401)
    add_use(database_url, "ulla", 700, 0.5)
    documented = shlex.split(snippet("limit").replace("\\\n", " "))
    assert json.loads(documented[documented.index("-d") + 1]) == {**body, "subject": "user:ulla"}
    made = await http.put("/limits/ulla-daily", json=body, headers=anna)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")
    shown = {"id": "ulla-daily", **body, "subject": "user:ulla", "used": 0.5, "resets_at": tomorrow}
    assert made.json() == shown
    await put(http, "role:Viewer", "tokens", 1_000, "month")
    await put(http, "each_user", "runs_at_once", 3)
    listed = (await http.get("/limits", headers=otto)).json()["limits"]
    assert [(one["id"], one["used"]) for one in listed] == [
        ("each_user-runs_at_once", None),
        ("role-Viewer-tokens", 0),
        ("ulla-daily", 0.5),
    ]

    async def mine(who: Headers) -> list[str]:
        return [one["id"] for one in (await http.get("/limits/mine", headers=who)).json()["limits"]]

    assert await mine(ulla) == ["each_user-runs_at_once", "ulla-daily"]
    assert await mine(uwe) == await mine(victor) == ["each_user-runs_at_once", "role-Viewer-tokens"]
    raised = await http.put("/limits/ulla-daily", json={**body, "limit": 9}, headers=anna)
    assert raised.json() == {**shown, "limit": 9}
    assert (await http.delete("/limits/ulla-daily", headers=anna)).json() == {**shown, "limit": 9}
    problem(await http.delete("/limits/ulla-daily", headers=anna), 404)
    assert await mine(ulla) == ["each_user-runs_at_once"]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"subject": "alice"}, "/subject", r"user:<name>"),
    ({"subject": "user:"}, "/subject", r"user:<name>"),
    ({"subject": "team:x", "kind": "streams", "period": None}, "/subject", "each_user"),
    ({"kind": "money"}, "/kind", "cost_usd"),
    ({"period": None}, "/period", "day or month"),
    ({"period": "week"}, "/period", "day"),
    ({"kind": "streams"}, "/period", "omit it"),
    ({"limit": -1}, "/limit", "greater than or equal to 0"),
    ({"limit": 1e300}, "/limit", "less than"),
    ({"kind": "tokens", "limit": 1.5}, "/limit", "whole number"),
    ({"limit": None}, "/limit", "number"),
    ({"limit": 0.0000001}, "/limit", "6 decimals"),
    ({"max": 1}, "/max", "[Ee]xtra"),
]


async def test_what_is_wrong_with_a_limit_is_named(http: httpx.AsyncClient) -> None:
    anna = await sign_in(http, "anna")
    for change, pointer, remedy in WRONG:
        body = {"subject": "user:ulla", "kind": "cost_usd", "period": "day", "limit": 1, **change}
        answer = await http.put("/limits/one", json=body, headers=anna)
        problem(answer, 422)
        [fault] = [one for one in answer.json()["errors"] if one["pointer"] == pointer]
        assert re.search(remedy, fault["detail"]), fault


async def test_there_is_one_limit_for_the_same(http: httpx.AsyncClient) -> None:
    await put(http, "user:ulla", "tokens", 5, "day")
    anna = await sign_in(http, "anna")
    body = {"subject": "user:Ulla", "kind": "tokens", "period": "day", "limit": 6}
    assert "'user-ulla-tokens' (5 tokens a day" in problem(await http.put("/limits/x", json=body, headers=anna), 409)
    assert (await http.put("/limits/x", json={**body, "period": "month"}, headers=anna)).status_code == 200
    problem(await http.put("/limits/no%20name", json=body, headers=anna), 422)


@pytest.mark.parametrize("subject", ["user:ulla", "role:User", "each_user", "everybody"])
async def test_who_has_used_up_a_limit_starts_nothing(
    http: httpx.AsyncClient, database_url: str, airflow: FakeAirflow, subject: str
) -> None:
    ulla = await sign_in(http, "ulla")
    first = await send(http, ulla, "k")
    await put(http, subject, "cost_usd", 0.5, "day")
    assert (await send(http, ulla)).status_code == 202
    add_use(database_url, "ulla", 10, 0.75)
    answer = await send(http, ulla)
    detail = problem(answer, 429)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert f"{subject.replace(':', '-')}-cost_usd' (0.5 US dollars a day" in detail
    assert "0.75 used or in progress" in detail
    assert f"resets at {tomorrow:%Y-%m-%dT00:00:00Z}" in detail
    midnight = tomorrow.replace(hour=0, minute=0, second=0, microsecond=0)
    assert abs(int(answer.headers["retry-after"]) - (midnight - datetime.now(UTC)).total_seconds()) < 10
    assert len(airflow.triggers) == 2
    assert (await send(http, ulla, "k")).json() == first.json(), "an accepted request is answered as before"
    batch = await http.post("/workflows/trigger/batch", json={"dag_id": DAG, "inputs": [INPUT, INPUT]}, headers=ulla)
    assert batch.status_code == 202
    assert [one["problem"]["status"] for one in batch.json()["entries"]] == [429, 429]
    problem(await send(http, await sign_in(http, "anna"), user_id="ulla"), 429)
    others = 429 if subject == "everybody" else 202
    assert (await send(http, await sign_in(http, "anna"))).status_code == others
    [mine] = (await http.get("/limits/mine", headers=ulla)).json()["limits"]
    assert (mine["limit"], mine["used"]) == (0.5, 0.75)
    metrics = await http.get("/metrics", headers=SCRAPER)
    assert f'visual_ai_limit_refusals_total{{kind="cost_usd"}} {4.0 + (others == 429)}' in metrics.text
    await put(http, subject, "cost_usd", 1, "day")
    assert (await send(http, ulla)).status_code == 202


async def test_a_failed_run_is_retried_once_the_limit_is_raised(
    http: httpx.AsyncClient, database_url: str, airflow: FakeAirflow
) -> None:
    record(database_url, "failed", user="ulla", state="failed")
    airflow.add_run(DAG, "failed", state="failed", tasks={"work": "failed"})
    await put(http, "user:ulla", "tokens", 100, "month")
    add_use(database_url, "ulla", 100)
    ulla = await sign_in(http, "ulla")
    assert "100 tokens a month" in problem(await http.post(f"/workflows/{DAG}/runs/failed/retry", headers=ulla), 429)
    await put(http, "user:ulla", "tokens", 1_000, "month")
    assert (await http.post(f"/workflows/{DAG}/runs/failed/retry", headers=ulla)).status_code == 202


async def test_a_limit_of_runs_at_once_admits_exactly_that_many(database_url: str, airflow: FakeAirflow) -> None:
    """Twenty triggers arrive at two processes at the same moment."""
    async with (
        application(database_url, airflow, **PRODUCTION) as one,
        application(database_url, airflow, **PRODUCTION) as other,
        client_of(one) as http,
        client_of(other) as other_http,
    ):
        await put(http, "user:ulla", "runs_at_once", 3)
        await asyncio.sleep(1.1)  # the other process learns of it
        headers = [await sign_in(client, "ulla") for client in (http, other_http)]
        answers = await asyncio.gather(
            *(send((http, other_http)[n % 2], headers[n % 2], f"key {n}") for n in range(20))
        )
        statuses = [answer.status_code for answer in answers]
        assert (statuses.count(202), statuses.count(429)) == (3, 17)
        refused = answers[statuses.index(429)]
        assert "3 runs at once" in problem(refused, 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert len(airflow.triggers) == 3
        accepted = statuses.index(202)
        again = await send(http, headers[0], f"key {accepted}")
        assert again.json() == answers[accepted].json()
        # One ends: there is room for one more, under the key that was refused.
        run = again.json()["dag_run_id"]
        engine = create_engine(database_url)
        with engine.begin() as connection:
            ended = text("UPDATE visual_ai.workflow_executions SET state = 'success' WHERE dag_run_id = :run")
            connection.execute(ended, {"run": run})
        engine.dispose()
        assert (await send(http, headers[0], f"key {statuses.index(429)}")).status_code == 202
        problem(await send(http, headers[0]), 429)


async def test_a_trigger_that_airflow_refuses_takes_no_place(http: httpx.AsyncClient, airflow: FakeAirflow) -> None:
    await put(http, "each_user", "runs_at_once", 1)
    ulla = await sign_in(http, "ulla")
    airflow.fail(f"/dags/{DAG}/dagRuns", 400, times=1)
    assert (await send(http, ulla)).status_code == 422
    assert (await send(http, ulla)).status_code == 202


async def test_batches_are_limited_in_size(http: httpx.AsyncClient, airflow: FakeAirflow) -> None:
    await put(http, "role:User", "batch_size", 2)

    async def batch(user: str, size: int) -> httpx.Response:
        body = {"dag_id": DAG, "inputs": [INPUT] * size}
        return await http.post("/workflows/trigger/batch", json=body, headers=await sign_in(http, user))

    assert (await batch("ulla", 2)).status_code == 202
    answer = await batch("ulla", 3)
    assert "'role-User-batch_size' (2 runs in a batch for the role User)" in problem(answer, 422)
    assert [one["pointer"] for one in answer.json()["errors"]] == ["/inputs"]
    assert (await batch("anna", 3)).status_code == 202
    assert len(airflow.triggers) == 5


async def test_uploads_have_a_quota(http: httpx.AsyncClient) -> None:
    ulla, uwe = await sign_in(http, "ulla"), await sign_in(http, "uwe")
    pictures = [png(50 + n) for n in range(12)]
    await put(http, "each_user", "upload_bytes", sum(map(len, pictures[:3])) + 10)

    async def upload(who: Headers, content: bytes) -> httpx.Response:
        return await http.post("/images", files={"file": ("a.png", content)}, headers=who)

    answers = await asyncio.gather(*(upload(ulla, picture) for picture in pictures))
    kept = [answer.status_code for answer in answers].count(201)
    assert 2 <= kept <= 3
    refused = next(answer for answer in answers if answer.status_code != 201)
    assert "bytes of uploads for each user" in problem(refused, 413)
    stored = next(n for n, answer in enumerate(answers) if answer.status_code == 201)
    assert (await upload(ulla, pictures[stored])).status_code == 201, "the same picture is stored already"
    assert (await upload(uwe, pictures[0])).status_code == 201
    [mine] = (await http.get("/limits/mine", headers=ulla)).json()["limits"]
    assert 0 < mine["used"] <= mine["limit"]


async def test_streams_are_limited_across_processes(database_url: str, airflow: FakeAirflow) -> None:
    record(database_url, "running", user="ulla")
    airflow.add_run(DAG, "running", state="running", tasks={"work": "running"})
    path = f"/workflow-status/stream/{DAG}/running"
    several = f"/workflow-status/streams?run={DAG}/running"
    async with (
        application(database_url, airflow, **PRODUCTION) as one,
        application(database_url, airflow, **PRODUCTION) as other,
        served(one) as address,
        served(other) as other_address,
        httpx.AsyncClient(base_url=address, timeout=10) as http,
        httpx.AsyncClient(base_url=other_address, timeout=10) as other_http,
    ):
        await put(http, "each_user", "streams", 2)
        await asyncio.sleep(1.1)
        ulla = await sign_in(http, "ulla")
        otto = await sign_in(http, "otto")
        assert (await sign_in(other_http, "ulla")) != ulla
        theirs = await sign_in(other_http, "ulla")
        async with http.stream("GET", path, headers=ulla) as first:
            assert first.status_code == 200
            async with other_http.stream("GET", several, headers=theirs) as second:
                assert second.status_code == 200
                for client, headers in ((http, ulla), (other_http, theirs)):
                    for wanted in (path, several):
                        refused = await client.get(wanted, headers=headers)
                        assert "2 open streams per user" in problem(refused, 429)
                        assert int(refused.headers["retry-after"]) >= 1
                async with http.stream("GET", path, headers=otto) as another:
                    assert another.status_code == 200

            async def opens() -> bool:
                async with http.stream("GET", path, headers=ulla) as third:
                    return third.status_code == 200

            for _ in range(50):
                if await opens():
                    break
                await asyncio.sleep(0.1)
            else:
                pytest.fail("a stream that was closed still counts")


async def test_processes_share_the_rate_of_triggers_without_redis(database_url: str, airflow: FakeAirflow) -> None:
    limited: dict[str, Any] = {**PRODUCTION, "trigger_rate_per_minute": 3, "redis_url": None}
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
            refused = await send(client, ulla)
            assert problem(refused, 429) == "More than 3 triggers a minute."
            assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (await send(http, uwe)).status_code == 202


async def test_changed_roles_count(http: httpx.AsyncClient, database_url: str, airflow: FakeAirflow) -> None:
    uwe = await sign_in(http, "uwe")
    await put(http, "role:Viewer", "tokens", 0, "day")
    problem(await send(http, uwe), 429)
    airflow.users["uwe"].roles = ["User"]
    engine = create_engine(database_url)

    def roles() -> list[str]:
        query = text("SELECT role FROM visual_ai.account_roles WHERE user_id = 'uwe' ORDER BY role")
        with engine.connect() as connection:
            return list(connection.execute(query).scalars())

    await sign_in(http, "uwe")
    await eventually(lambda: roles() == ["User"])
    engine.dispose()
    assert (await send(http, uwe)).status_code == 202
