"""Many runs with one request: each input has its own outcome, and a batch is always completed."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import create_engine, text

from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, sign_in

Headers = Mapping[str, str]


@pytest.fixture
async def app(database_url: str, airflow: FakeAirflow) -> AsyncIterator[FastAPI]:
    async with application(database_url, airflow, **PRODUCTION, batch_trigger_limit=30) as app:
        yield app


def questions(number: int) -> list[dict[str, Any]]:
    return [{"query": f"Number {index}?", "image_url": "https://example.com/image.jpg"} for index in range(number)]


async def send(http: httpx.AsyncClient, headers: Headers, inputs: Any, key: str | None = None, **more: Any) -> Any:
    body = {"dag_id": "visual_ai_workflow", "inputs": inputs, **more}
    own = {"Idempotency-Key": key} if key else {}
    return await http.post("/workflows/trigger/batch", json=body, headers={**headers, **own})


async def test_each_input_has_its_own_outcome(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    inputs = [*questions(2), {"query": 3}, {"query": "x", "image_url": "y", "_visual_ai": {}}, *questions(1)]
    response = await send(http, ulla, inputs)
    assert response.status_code == 202
    answer = response.json()
    assert (answer["accepted"], answer["refused"]) == (3, 2)
    assert [(entry["index"], entry["status"]) for entry in answer["entries"]] == [
        (0, "accepted"),
        (1, "accepted"),
        (2, "refused"),
        (3, "refused"),
        (4, "accepted"),
    ]
    assert len({entry["dag_run_id"] for entry in answer["entries"] if entry["status"] == "accepted"}) == 3
    assert answer["entries"][0]["status_url"].startswith("/workflow-status/visual_ai_workflow/")
    problem = answer["entries"][2]["problem"]
    assert problem["status"] == 422
    assert problem["errors"][0]["pointer"].startswith("/input_data")
    assert len(airflow.triggers) == 3
    assert {name for name, _ in airflow.triggers} == {"ulla"}


async def test_a_repeated_batch_starts_only_what_is_missing(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    first = (await send(http, ulla, questions(3), "k")).json()
    again = (await send(http, ulla, questions(5), "k")).json()
    assert again["entries"][:3] == first["entries"]
    assert again["accepted"] == 5
    assert len(airflow.triggers) == 5
    other = (await send(http, ulla, list(reversed(questions(3))), "k")).json()
    assert [entry["status"] for entry in other["entries"]] == ["refused", "accepted", "refused"]
    assert other["entries"][0]["problem"]["status"] == 409


async def test_calls_to_airflow_are_bounded(database_url: str, airflow: FakeAirflow) -> None:
    under_way = most = 0
    inner = airflow.transport.handle_async_request

    class Counting(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal under_way, most
            if request.method == "GET" or not request.url.path.endswith("/dagRuns"):
                return await inner(request)
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.01)
            try:
                return await inner(request)
            finally:
                under_way -= 1

    airflow.transport = Counting()  # type: ignore[assignment]  # a transport around the fake's own
    async with (
        application(database_url, airflow, **PRODUCTION, batch_trigger_concurrency=3) as app,
        client_of(app) as http,
    ):
        ulla = await sign_in(http, "ulla")
        most = 0
        batches = await asyncio.gather(send(http, ulla, questions(10)), send(http, ulla, questions(10)))
        assert [batch.json()["accepted"] for batch in batches] == [10, 10]
    assert 1 < most <= 3


async def test_a_batch_is_completed_after_its_client_disconnects(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, app: FastAPI
) -> None:
    sending = asyncio.create_task(send(http, ulla, questions(20), "k"))
    async with asyncio.timeout(20):
        while not airflow.triggers:  # noqa: ASYNC110
            await asyncio.sleep(0)
        sending.cancel()
        while len(airflow.triggers) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await send(http, ulla, questions(20), "k")).json()["accepted"] == 20
    assert len(airflow.triggers) == 20


async def test_the_rate_limit_counts_each_input(database_url: str, airflow: FakeAirflow) -> None:
    async with (
        application(database_url, airflow, **PRODUCTION, trigger_rate_per_minute=3) as app,
        client_of(app) as http,
    ):
        answer = (await send(http, await sign_in(http, "ulla"), questions(5))).json()
    assert (answer["accepted"], answer["refused"]) == (3, 2)
    refused = [entry["problem"] for entry in answer["entries"] if entry["status"] == "refused"]
    assert {problem["status"] for problem in refused} == {429}
    assert all(problem["retry_after"] > 0 for problem in refused)


@pytest.mark.parametrize("inputs", [[], [3], "text", questions(31), [{"query": "\0"}]])
async def test_an_invalid_batch_is_refused_as_a_whole(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, inputs: Any
) -> None:
    response = await send(http, ulla, inputs)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"].startswith("/inputs")
    assert airflow.triggers == []


async def test_a_viewer_may_not_trigger_a_batch(http: httpx.AsyncClient) -> None:
    assert (await send(http, {}, questions(1))).status_code == 401
    assert (await send(http, await sign_in(http, "victor"), questions(1))).status_code == 403


async def test_a_budget_is_stored_in_the_conf(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    await send(http, ulla, questions(1), budget={"max_tokens": 500, "max_cost_usd": 0.5})
    assert airflow.triggers[0][1]["conf"]["_visual_ai"]["budget"] == {"max_tokens": 500, "max_cost_usd": 0.5}
    for budget, pointer in (
        ({"max_tokens": -1}, "/budget/max_tokens"),
        ({"max_token": 1}, "/budget/max_token"),
        ({"max_cost_usd": "NaN"}, "/budget/max_cost_usd"),
    ):
        response = await send(http, ulla, questions(1), budget=budget)
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] == pointer
        body = {"dag_id": "visual_ai_workflow", "input_data": questions(1)[0], "budget": budget}
        assert (await http.post("/workflows/trigger", json=body, headers=ulla)).status_code == 422


async def test_items_of_a_batch_task_are_listed(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    run = (await send(http, ulla, questions(1))).json()["entries"][0]
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO visual_ai.batch_items (execution_id, task_id, item_index, state, try_number, output)"
                " SELECT :id, 'work', n, CASE n WHEN 3 THEN 'failed' ELSE 'success' END, 1, to_jsonb(n)"
                " FROM generate_series(0, 6) AS n"
            ),
            {"id": run["execution_id"]},
        )
    engine.dispose()
    address = f"{run['status_url']}/items/work"
    page = (await http.get(address, params={"limit": 4}, headers=ulla)).json()
    assert [(item["index"], item["state"], item["output"]) for item in page["items"]] == [
        (0, "success", 0),
        (1, "success", 1),
        (2, "success", 2),
        (3, "failed", 3),
    ]
    rest = (await http.get(address, params={"limit": 4, "after": page["next_after"]}, headers=ulla)).json()
    assert [item["index"] for item in rest["items"]] == [4, 5, 6]
    assert rest["next_after"] is None
    assert (await http.get(address, headers=await sign_in(http, "uwe"))).status_code == 404
