"""What a `FlowUser` reaches through Airflow's own API, and what the backend does for them instead."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.kit.processes.accounts import change_accounts
from tests.kit.processes.stack import RunningStack, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DAG = "visual_ai_workflow"
PASSWORD = "a password of the test"  # of an account that lives as long as the test
INPUT = {"query": "nobody else may read this", "image_url": "sample://invoice"}


@pytest.fixture(scope="module")
def people(stack: RunningStack) -> None:
    """Two users with the role FlowUser, and one with a role of the administrator's."""
    change_accounts(
        stack,
        roles={"Auditor": [("can_read", "DAGs"), ("can_read", "DAG Runs"), ("can_read", "Website")]},
        users={"flora": "FlowUser", "felix": "FlowUser", "ada": "Auditor"},
        password=PASSWORD,
    )


@contextmanager
def signed_in(stack: RunningStack, name: str) -> Iterator[httpx.Client]:
    """The backend, as a user."""
    with httpx.Client(base_url=stack.backend_url, timeout=60) as client:
        answer = client.post("/auth/token", json={"username": name, "password": PASSWORD})
        assert answer.status_code == httpx.codes.OK, answer.text
        client.cookies.clear()
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


def start(client: httpx.Client) -> str:
    body = {"dag_id": DAG, "input_data": INPUT, "model": "local:vision"}
    answer = client.post("/workflows/trigger", json=body)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return str(answer.json()["dag_run_id"])


def finished(client: httpx.Client, run_id: str) -> dict[str, Any]:
    snapshot: dict[str, Any] = {}

    def done() -> bool:
        nonlocal snapshot
        snapshot = client.get(f"/workflow-status/{DAG}/{run_id}").json()
        return snapshot["state"] in ("success", "failed", "cancelled")

    wait_until(done, timeout=120, poll=0.3, what="the run")
    return snapshot


def test_a_flow_user_sees_only_their_own_runs_everywhere(
    stack: RunningStack, people: None, airflow: httpx.Client
) -> None:
    with signed_in(stack, "FLORA") as flora, signed_in(stack, "felix@example.com") as felix:
        assert flora.get("/users/me").json()["role"] == "User"
        run_id = start(flora)
        snapshot = finished(flora, run_id)
        assert snapshot["state"] == "success"
        task = snapshot["tasks"][0]["task_id"]
        log = flora.get(f"/workflow-status/{DAG}/{run_id}/tasks/{task}/logs")
        assert log.status_code == httpx.codes.OK, log.text
        graph = flora.get(f"/workflows/{DAG}").json()
        assert graph["tasks"]
        for path in ("", "/result", "/input", f"/tasks/{task}/logs"):
            assert felix.get(f"/workflow-status/{DAG}/{run_id}{path}").status_code == httpx.codes.NOT_FOUND, path
        assert felix.post(f"/workflows/{DAG}/runs/{run_id}/cancel").status_code == httpx.codes.NOT_FOUND
        assert run_id not in felix.get("/workflow-status").text
    # Airflow's audit log says who started it.
    assert airflow.get(f"/api/v2/dags/{DAG}/dagRuns/{run_id}").json()["triggering_user_name"] == "flora"

    run = f"/api/v2/dags/{DAG}/dagRuns/{run_id}"
    instance = f"{run}/taskInstances/{task}"
    for name in ("flora", "felix"):  # not even one's own, as Airflow doesn't know whose a run is
        with stack.airflow(name, PASSWORD) as client:
            assert client.get(f"/api/v2/dags/{DAG}/details").status_code == httpx.codes.OK
            for path in (
                run, f"/api/v2/dags/{DAG}/dagRuns", "/api/v2/dags/~/dagRuns", f"{run}/taskInstances", instance,
                f"{instance}/tries", f"{instance}/logs/1", f"{instance}/xcomEntries",
                f"{instance}/xcomEntries/return_value", "/api/v2/dags/~/dagRuns/~/taskInstances",
                "/api/v2/eventLogs", f"{run}/wait?interval=1", f"{instance}/externalLogUrl/1", "/ui/dags",
                f"/ui/grid/runs/{DAG}", f"/ui/gantt/{DAG}/{run_id}", f"/ui/calendar/{DAG}",
                "/ui/dashboard/historical_metrics_data?start_date=2020-01-01T00:00:00Z", "/api/v2/hitlDetails",
                f"{run}/hitlDetails", "/api/v2/connections", "/api/v2/variables", "/api/v2/config",
                "/auth/fab/v1/users", f"/api/v2/dagSources/{DAG}",
            ):  # fmt: skip
                answer = client.get(path)
                assert answer.status_code in (httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND), (path, answer.text)
                assert "nobody else may read" not in answer.text
            for method, path, body in (
                ("PATCH", run, {"state": "failed"}),
                ("DELETE", run, None),
                ("POST", f"{run}/clear", {"dry_run": False}),
                ("POST", f"/api/v2/dags/{DAG}/clearTaskInstances", {"dry_run": False, "dag_run_id": run_id}),
                ("PATCH", instance, {"new_state": "failed"}),
                ("POST", "/api/v2/dags/~/dagRuns/list", {"dag_ids": [DAG]}),
                ("POST", "/api/v2/dags/~/dagRuns/~/taskInstances/list", {"dag_ids": [DAG]}),
                ("DELETE", f"/api/v2/dags/{DAG}", None),
            ):
                answer = client.request(method, path, json=body)
                assert answer.status_code == httpx.codes.FORBIDDEN, (method, path, answer.text)


def test_a_flow_user_cancels_and_retries_their_own_run(stack: RunningStack, people: None) -> None:
    with signed_in(stack, "flora") as flora:
        run_id = start(flora)
        cancelled = flora.post(f"/workflows/{DAG}/runs/{run_id}/cancel")
        if cancelled.status_code == httpx.codes.CONFLICT:  # it was quicker
            pytest.skip("the run had finished")
        assert cancelled.status_code == httpx.codes.ACCEPTED, cancelled.text
        assert finished(flora, run_id)["state"] == "cancelled"
        assert flora.post(f"/workflows/{DAG}/runs/{run_id}/retry").status_code == httpx.codes.ACCEPTED
        assert finished(flora, run_id)["state"] == "success"


def test_a_role_of_the_administrators_means_what_it_permits(
    stack: RunningStack, people: None, backend: httpx.Client
) -> None:
    body = {"dag_id": DAG, "input_data": INPUT, "model": "local:vision"}
    run_id = backend.post("/workflows/trigger", json=body).json()["dag_run_id"]
    with signed_in(stack, "ada") as ada:
        me = ada.get("/users/me").json()
        assert (me["role"], me["may_trigger"], me["sees_all"]) == ("Viewer", False, True)
        assert ada.get(f"/workflow-status/{DAG}/{run_id}").status_code == httpx.codes.OK
        assert ada.post("/workflows/trigger", json=body).status_code == httpx.codes.FORBIDDEN
    finished(backend, run_id)


def test_rights_end_within_a_minute(stack: RunningStack, people: None) -> None:
    with signed_in(stack, "ada") as ada:
        assert ada.get("/workflow-status").status_code == httpx.codes.OK
        change_accounts(stack, deleted=["ada"])
        began = time.monotonic()
        wait_until(
            lambda: ada.get("/workflow-status").status_code == httpx.codes.UNAUTHORIZED,
            timeout=60, poll=1.0, what="the end of the session",
        )  # fmt: skip
        assert time.monotonic() - began < 60
