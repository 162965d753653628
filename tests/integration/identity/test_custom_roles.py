"""Roles that an Airflow administrator made: they sign in, and see and change what their permissions say."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.kit.airflow import PASSWORD, FakeAirflow, User
from tests.kit.application import PRODUCTION, application, client_of, served, sign_in
from tests.kit.identity import record

READS_A = [("can_read", "DAG:a")]
STARTS_A = [*READS_A, ("can_edit", "DAG:a"), ("can_create", "DAG Runs")]
FLOW_USER = [("can_read", "DAGs"), ("can_edit", "DAGs"), ("can_create", "DAG Runs"), ("can_read", "Website")]
PARAMS: dict[str, Any] = {"query": {"value": "x", "description": None, "schema": {"type": "string"}}}


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.roles |= {
        "Reads a": READS_A,
        "Sees a": [*READS_A, ("can_read", "DAG Runs")],
        "Starts a": STARTS_A,
        "Stops a": [*STARTS_A, ("can_read", "DAG Runs"), ("can_edit", "DAG Runs")],
        "FlowUser": FLOW_USER,
    }
    for name, role in (("rita", "Reads a"), ("sean", "Sees a"), ("stan", "Starts a"), ("stella", "Stops a"),
                       ("flora", "FlowUser"), ("felix", "FlowUser")):  # fmt: skip
        airflow.users[name] = User(PASSWORD, [role])
    airflow.add_dag("a", params=PARAMS)
    airflow.add_dag("b", params=PARAMS)
    return airflow


@pytest.fixture
async def http(database_url: str, airflow: FakeAirflow) -> AsyncIterator[httpx.AsyncClient]:
    for dag_id in ("a", "b"):
        for user in ("anna", "rita", "sean", "stan", "stella", "flora"):
            record(database_url, f"{dag_id} of {user}", user=user, dag_id=dag_id)
            airflow.add_run(dag_id, f"{dag_id} of {user}", tasks={"work": "running"})
    async with application(database_url, airflow, **PRODUCTION) as app, client_of(app) as client:
        yield client


EVERYONE = ["anna", "rita", "sean", "stan", "stella", "flora"]
SEEN = {
    "rita": ["a of rita"],
    "sean": [f"a of {name}" for name in EVERYONE],
    "stan": ["a of stan"],
    "stella": [f"a of {name}" for name in EVERYONE],
    "flora": ["a of flora", "b of flora"],
    "felix": [],
}


@pytest.mark.parametrize("user", SEEN)
async def test_reads_ask_for_access_to_the_dag(http: httpx.AsyncClient, user: str) -> None:
    headers = await sign_in(http, user)
    listed = (await http.get("/workflow-status", headers=headers)).json()["executions"]
    assert sorted(one["dag_run_id"] for one in listed) == sorted(SEEN[user])
    for dag_id in ("a", "b"):
        for owner in EVERYONE:
            run = f"/workflow-status/{dag_id}/{dag_id} of {owner}"
            expected = 200 if f"{dag_id} of {owner}" in SEEN[user] else 404
            for path in (run, f"{run}/input", f"{run}/tasks", f"{run}/agents", f"{run}/errors"):
                assert (await http.get(path, headers=headers)).status_code == expected, path
            stream = await http.head(run.replace("/a/", "/stream/a/").replace("/b/", "/stream/b/"), headers=headers)
            assert stream.status_code in (expected, 405)
    metrics = (await http.get("/monitoring/workflow-metrics", headers=headers)).json()
    assert metrics["total"] == len(SEEN[user])
    assert {one["dag_id"] for one in metrics["by_dag"]} == {name[0] for name in SEEN[user]}
    workflows = (await http.get("/workflows", headers=headers)).json()["workflows"]
    assert [one["dag_id"] for one in workflows] == (["a", "b"] if user in ("flora", "felix") else ["a"])
    assert (await http.get("/workflows/b", headers=headers)).status_code == (200 if user in ("flora", "felix") else 404)


@pytest.mark.parametrize(("user", "a", "b"), [
    ("rita", 403, 403), ("sean", 403, 403), ("stan", 202, 404), ("stella", 202, 404), ("flora", 202, 202),
])  # fmt: skip
async def test_who_may_trigger(http: httpx.AsyncClient, user: str, a: int, b: int) -> None:
    headers = await sign_in(http, user)
    for dag_id, expected in (("a", a), ("b", b)):
        body = {"dag_id": dag_id, "input_data": {"query": "x"}}
        answer = await http.post("/workflows/trigger", json=body, headers=headers)
        assert answer.status_code == expected, answer.text


@pytest.mark.parametrize(("user", "own", "others"), [
    ("rita", 403, 404), ("sean", 403, 403), ("stan", 202, 404), ("stella", 202, 202), ("flora", 202, 404),
])  # fmt: skip
async def test_who_may_stop(http: httpx.AsyncClient, user: str, own: int, others: int) -> None:
    headers = await sign_in(http, user)
    for owner, expected in ((user, own), ("anna", others)):
        answer = await http.post(f"/workflows/a/runs/a of {owner}/cancel", headers=headers)
        assert answer.status_code == expected, answer.text


async def test_airflow_is_asked_with_the_service_account_about_own_runs_only(
    http: httpx.AsyncClient, airflow: FakeAirflow
) -> None:
    airflow.set_log("a", "a of flora", "work", [{"event": "hello"}])
    airflow.set_log("a", "a of anna", "work", [{"event": "hello"}])
    flora, sean, ulla = [await sign_in(http, name) for name in ("flora", "sean", "ulla")]
    airflow.askers.clear()
    assert (await http.get("/workflow-status/a/a of flora/tasks/work/logs", headers=flora)).status_code == 200
    assert (await http.post("/workflows/a/runs/a of flora/cancel", headers=flora)).status_code == 202
    assert {name for name, _ in airflow.askers} == {"airflow"}
    airflow.askers.clear()
    assert (await http.get("/workflow-status/a/a of anna/tasks/work/logs", headers=sean)).status_code == 200
    assert {name for name, call in airflow.askers if "/logs/" in call} == {"sean"}
    body = {"dag_id": "a", "input_data": {"query": "x"}}
    for name, headers in (("flora", flora), ("ulla", ulla)):
        assert (await http.post("/workflows/trigger", json=body, headers=headers)).status_code == 202
        assert airflow.triggers[-1][0] == name


async def test_templates_ask_for_access_to_their_dag(http: httpx.AsyncClient) -> None:
    admin, headers = await sign_in(http, "anna"), await sign_in(http, "stan")
    for dag_id in ("a", "b"):
        body = {"name": f"of-{dag_id}", "definition": {"dag_id": dag_id, "input_data": {"query": "x"}}}
        assert (await http.post("/templates", json=body, headers=admin)).status_code == 201
    listed = (await http.get("/templates", headers=headers)).json()["templates"]
    assert [one["name"] for one in listed] == ["of-a"]
    for path in ("", "/versions", "/versions/1"):
        assert (await http.get(f"/templates/of-a{path}", headers=headers)).status_code == 200
        assert (await http.get(f"/templates/of-b{path}", headers=headers)).status_code == 404
    for path in ("/retire", "/versions/1/activate"):
        assert (await http.post(f"/templates/of-b{path}", headers=headers)).status_code == 404
    body = {"name": "mine", "definition": {"dag_id": "b", "input_data": {"query": "x"}}}
    assert (await http.post("/templates", json=body, headers=headers)).status_code == 422
    started = await http.post("/workflows/trigger", json={"template": "of-b", "input_data": {}}, headers=headers)
    assert started.status_code == 404


async def test_a_stream_of_several_runs_leaves_out_what_is_not_theirs(database_url: str, airflow: FakeAirflow) -> None:
    for dag_id in ("a", "b"):
        record(database_url, "done", user="anna", dag_id=dag_id, state="success")
        airflow.add_run(dag_id, "done", "success")
    async with (
        application(database_url, airflow, **PRODUCTION) as app,
        served(app) as url,
        httpx.AsyncClient(base_url=url, timeout=20) as http,
    ):
        headers = await sign_in(http, "sean")
        answer = await http.get("/workflow-status/streams?run=a/done&run=b/done", headers=headers)
    problems = [json.loads(line[6:]) for line in answer.text.splitlines() if '"status":404' in line.replace(" ", "")]
    assert len(problems) == 1
    assert '"dag_id":"b"' not in answer.text.replace(" ", "")


async def test_a_role_that_permits_nothing_here_is_refused(http: httpx.AsyncClient, airflow: FakeAirflow) -> None:
    airflow.roles["Data Scientist"] = [("can_read", "Website")]
    answer = await http.post("/auth/token", json={"username": "nora", "password": PASSWORD})
    assert answer.status_code == 403
    assert "permits reading a DAG" in answer.json()["detail"]
