"""Stopping runs and running again what failed: who may, what Airflow is told, and what the timeline then says."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from backend.db.address import plain_url
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, sign_in

DAG = "visual_ai_workflow"
Headers = Mapping[str, str]


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    return airflow


@pytest.fixture
async def app(database_url: str, airflow: FakeAirflow) -> AsyncIterator[FastAPI]:
    async with application(database_url, airflow, **PRODUCTION) as app:
        yield app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


@pytest.fixture
async def ulla(http: httpx.AsyncClient) -> Headers:
    return await sign_in(http, "ulla")


async def started(http: httpx.AsyncClient, headers: Headers, airflow: FakeAirflow) -> str:
    """A run of ulla's in the middle of its work; gives its id."""
    body = {"dag_id": DAG, "input_data": {"query": "q", "image_url": "https://example.com/i.png"}}
    run_id = str((await http.post("/workflows/trigger", json=body, headers=headers)).json()["dag_run_id"])
    for task, state in {"validate": "success", "analyse": "running", "store": None}.items():
        airflow.set_task(DAG, run_id, task, state)
    airflow.set_run(DAG, run_id, "running")
    return run_id


async def act(http: httpx.AsyncClient, headers: Headers, run_id: str, what: str) -> httpx.Response:
    return await http.post(f"/workflows/{DAG}/runs/{run_id}/{what}", headers=headers)


async def now(http: httpx.AsyncClient, headers: Headers, run_id: str) -> dict[str, Any]:
    snapshot: dict[str, Any] = (await http.get(f"/workflow-status/{DAG}/{run_id}", headers=headers)).json()
    return snapshot


def events(url: str) -> list[tuple[str, str | None]]:
    query = "SELECT event_type, payload ->> 'state' FROM visual_ai.workflow_events ORDER BY seq"
    with psycopg.connect(plain_url(url)) as connection:
        return [(kind, state) for kind, state in connection.execute(query)]


async def test_a_cancelled_run_is_cancelled_whatever_airflow_calls_it(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    run_id = await started(http, ulla, airflow)
    answer = await act(http, ulla, run_id, "cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert answer.headers["location"] == answer.json()["status_url"]
    assert airflow.runs[DAG, run_id].shown["state"] == "failed"
    assert (await now(http, ulla, run_id))["state"] == "cancelled"
    assert events(database_url)[-2:] == [("workflow_update", "cancelled"), ("end", "cancelled")]
    again = await act(http, ulla, run_id, "cancel")
    assert (again.status_code, again.json()["state"]) == (202, "cancelled")
    assert [kind for kind, _ in events(database_url)].count("end") == 1


async def test_a_cancelled_run_goes_on_where_it_was_stopped(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    run_id = await started(http, ulla, airflow)
    await act(http, ulla, run_id, "cancel")
    answer = await act(http, ulla, run_id, "retry")
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    states = {task["task_id"]: task["state"] for task in airflow.runs[DAG, run_id].tasks.values()}
    assert states == {"validate": "success", "analyse": None, "store": None}
    snapshot = await now(http, ulla, run_id)
    assert (snapshot["state"], snapshot["attempt"], snapshot["progress"]) == ("queued", 2, 33)


async def test_what_cannot_be_stopped_or_repeated_is_a_conflict(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    run_id = await started(http, ulla, airflow)
    assert (await act(http, ulla, run_id, "retry")).status_code == 409
    airflow.add_run(DAG, "over", "success", {"validate": "success"})
    otto = await sign_in(http, "otto")
    for what in ("cancel", "retry"):
        answer = await act(http, otto, "over", what)
        assert answer.status_code == 409, answer.text
        assert "success" in answer.json()["detail"]


@pytest.mark.parametrize(("what", "call"), [("cancel", "PATCH"), ("retry", "clearTaskInstances")])
async def test_a_conflict_in_airflow_is_a_conflict_with_its_reason(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, what: str, call: str
) -> None:
    run_id = await started(http, ulla, airflow)
    if what == "retry":
        assert (await act(http, ulla, run_id, "cancel")).status_code == 202
    airflow.fail(call, 409, detail="The run is being changed by another request")
    answer = await act(http, ulla, run_id, what)
    assert answer.status_code == 409, answer.text
    assert answer.json()["detail"].endswith("The run is being changed by another request")
    assert "retry-after" not in answer.headers
    state = (await now(http, ulla, run_id))["state"]
    assert (state == "cancelled") is (what == "retry"), "a run keeps the state that Airflow did not change"


async def test_only_ones_own_runs_or_all_for_op(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    run_id = await started(http, ulla, airflow)
    for name, status in {"uwe": 404, "victor": 403, "otto": 202}.items():
        headers = await sign_in(http, name)
        assert (await act(http, headers, run_id, "cancel")).status_code == status, name
    assert (await act(http, ulla, "no-such-run", "cancel")).status_code == 404


async def test_a_run_that_airflow_did_not_stop_goes_on(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    run_id = await started(http, ulla, airflow)
    airflow.fail("PATCH")
    answer = await act(http, ulla, run_id, "cancel")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    with psycopg.connect(plain_url(database_url)) as connection:
        row = connection.execute("SELECT state, cancel_requested_at FROM visual_ai.workflow_executions").fetchone()
    assert row is not None
    assert row[0] != "cancelled"
    assert row[1] is None
