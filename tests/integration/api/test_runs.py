"""Cancelling and retrying runs: who may, what Airflow is asked to do, and what the timeline then shows."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import Connection, create_engine, select

from backend.core.jsonable import dumps
from backend.db.address import plain_url
from backend.db.runs import executions, observations
from backend.db.runs.executions import RunState
from backend.db.tables import workflow_executions
from tests.kit.airflow import FakeAirflow
from tests.kit.application import sign_in

DAG = "visual_ai_workflow"
Headers = Mapping[str, str]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    engine = create_engine(database_url, json_serializer=dumps)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection
    engine.dispose()


async def started(http: httpx.AsyncClient, headers: Headers, airflow: FakeAirflow) -> str:
    """Start a run of ulla's that is in progress; returns its id."""
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


async def test_a_cancelled_run_can_be_retried_where_it_was_stopped(
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


async def test_runs_that_can_not_be_cancelled_or_retried_are_a_conflict(
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


async def test_a_cancellation_that_comes_too_late_changes_nothing(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str
) -> None:
    """Airflow has finished the run, and nobody has reported it yet. Airflow would mark it as failed all the same."""
    run_id = await started(http, ulla, airflow)
    for task in ("analyse", "store"):
        airflow.set_task(DAG, run_id, task, "success")
    airflow.set_run(DAG, run_id, "success")
    answer = await act(http, ulla, run_id, "cancel")
    assert (answer.status_code, answer.json()["detail"]) == (409, "The run has already finished: success.")
    assert airflow.runs[DAG, run_id].shown["state"] == "success"
    assert events(database_url)[-2:] == [("workflow_update", "success"), ("end", "success")]


async def test_a_run_that_ends_while_it_is_cancelled_stays_as_it_ended(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, database_url: str, connection: Connection
) -> None:
    """The listener reports the end between the request and Airflow's answer to it."""
    run_id = await started(http, ulla, airflow)
    await now(http, ulla, run_id)

    def end_while_it_is_cancelled() -> None:
        [execution] = connection.execute(select(workflow_executions)).mappings()
        assert executions.request_cancel(connection, execution["id"], by="ulla")
        for state in ("success", "cancelled"):
            observations.observe(connection, RunState(DAG, run_id, state))
        late = RunState(DAG, run_id, "failed")
        observations.observe(connection, late, observed_at=executions.clock(connection))
        assert [event for event in events(database_url) if event[0] == "end"] == [("end", "success")]
        assert not executions.request_cancel(connection, execution["id"], by="ulla")

    # In a thread: the backend may hold a lock on these rows, and it runs on this event loop.
    await asyncio.to_thread(end_while_it_is_cancelled)
    assert (await act(http, ulla, run_id, "cancel")).status_code == 409


async def test_users_may_change_their_own_runs_and_op_all(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    run_id = await started(http, ulla, airflow)
    for name, status in {"uwe": 404, "victor": 403, "otto": 202}.items():
        headers = await sign_in(http, name)
        assert (await act(http, headers, run_id, "cancel")).status_code == status, name
    assert (await act(http, ulla, "no-such-run", "cancel")).status_code == 404


async def test_a_run_that_airflow_did_not_stop_is_not_cancelled(
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
