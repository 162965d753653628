"""Schedules on the real stack: Airflow decides when a run is due, and the run is one of the workflow, for its user."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.kit.processes.accounts import change_accounts
from tests.kit.processes.stack import RunningStack, wait_until
from tests.kit.runs import snapshot

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DAG = "visual_ai_workflow"
INPUT = {"query": "What is the total?", "image_url": "sample://invoice"}
PATH = f"/workflows/{DAG}/schedule"
USER, PASSWORD = "sabine", "the password of sabine"
PROMPT = 12.0
"""Seconds within which a new schedule takes effect. Without the request to parse its file, it may be half a minute."""


@pytest.fixture(scope="module")
def user(stack: RunningStack) -> Iterator[httpx.Client]:
    """The backend, as a User."""
    change_accounts(stack, users={USER: "User"}, password=PASSWORD)
    client = stack.backend(USER, PASSWORD)
    yield client
    client.close()


def put(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = client.put(path, json=body)
    assert response.status_code == httpx.codes.OK, response.text
    found: dict[str, Any] = response.json()
    return found


def latest(client: httpx.Client, path: str, count: int, *, timeout: float = 90) -> list[dict[str, Any]]:
    """What came of a schedule's latest times, when there are as many."""

    def settled() -> list[dict[str, Any]]:
        return [one for one in client.get(path).json()["latest"] if one["outcome"] is not None]

    wait_until(lambda: len(settled()) >= count, timeout=timeout, what=f"{count} firings of {path}")
    return settled()


def finished(client: httpx.Client, firing: dict[str, Any]) -> dict[str, Any]:
    wait_until(lambda: snapshot(client, firing)["state"] in ("success", "failed"), timeout=120, what="the run's end")
    return snapshot(client, firing)


def test_a_template_runs_at_its_time_for_its_user(user: httpx.Client, airflow: httpx.Client) -> None:
    definition = {"dag_id": DAG, "input_data": INPUT, "model": "local:vision"}
    assert user.post("/templates", json={"name": "timed", "definition": definition}).status_code == 201
    path = "/templates/timed/schedule"
    due = datetime.now(UTC) + timedelta(seconds=15)
    made = put(user, path, {"timetable": {"kind": "events", "dates": [due.isoformat()]}})
    assert datetime.fromisoformat(made["next_run_date"]) == due
    [firing] = latest(user, path, 1)
    assert firing["outcome"] == "started", firing
    late = (datetime.fromisoformat(firing["requested_at"]) - due).total_seconds()
    assert 0 <= late < 10, late
    run = finished(user, firing)
    assert run["state"] == "success", run["errors"]
    assert (run["user_id"], run["template_name"], run["template_version"]) == (USER, "timed", 1)
    assert run["input_data"] == INPUT
    in_airflow = airflow.get(f"/api/v2/dags/{DAG}/dagRuns/{firing['dag_run_id']}").json()
    assert datetime.fromisoformat(in_airflow["logical_date"]) == due
    assert in_airflow["conf"]["_visual_ai"]["schedule"]["id"] == made["id"]
    # What carries it out isn't shown as a workflow, nor are its runs recorded.
    assert made["airflow_dag_id"] not in {one["dag_id"] for one in user.get("/workflows").json()["workflows"]}
    assert user.get("/workflow-status", params={"dag_id": made["airflow_dag_id"]}).json()["executions"] == []
    assert user.delete(path).status_code == 204


def test_a_schedule_takes_effect_soon_catches_up_and_ends(user: httpx.Client, airflow: httpx.Client) -> None:
    began = time.monotonic()
    start = datetime.now(UTC) - timedelta(days=3)
    body = {"cron": "0 0 * * *", "start_date": start.isoformat(), "catchup": True, "input_data": INPUT,
            "model": "local:vision"}  # fmt: skip
    made = put(user, PATH, body)
    dag = f"/api/v2/dags/{made['airflow_dag_id']}"
    wait_until(lambda: airflow.get(dag).status_code == 200, timeout=60, poll=0.1, what="the schedule's DAG")
    took = time.monotonic() - began
    assert took < PROMPT, took
    firings = latest(user, PATH, 3)
    assert [one["outcome"] for one in firings] == ["started"] * 3
    days = [datetime.fromisoformat(one["due"]) for one in reversed(firings)]
    assert [day - days[0] for day in days] == [timedelta(days=number) for number in range(3)]
    for firing in firings:
        run = finished(user, firing)
        assert (run["state"], run["user_id"]) == ("success", USER)
    # Paused, it starts nothing, whatever Airflow does.
    soon = datetime.now(UTC) + timedelta(seconds=4)
    events = {**body, "cron": None, "start_date": None, "catchup": False,
              "timetable": {"kind": "events", "dates": [soon.isoformat()]}}  # fmt: skip
    put(user, PATH, {name: value for name, value in events.items() if value is not None})
    paused = put(user, PATH, {name: value for name, value in {**events, "enabled": False}.items() if value is not None})
    assert paused["next_run_date"] is None
    time.sleep(12)
    assert [one for one in user.get(PATH).json()["latest"] if one["outcome"] == "started"] == firings
    assert user.delete(PATH).status_code == 204
    listed = {"dag_id_pattern": made["airflow_dag_id"]}
    wait_until(
        lambda: airflow.get("/api/v2/dags", params=listed).json()["total_entries"] == 0,
        timeout=120, poll=1, what="the end of the schedule's DAG",
    )  # fmt: skip


def test_a_schedule_waits_for_an_asset(user: httpx.Client, backend: httpx.Client, airflow: httpx.Client) -> None:
    known = {"name_pattern": "invoices"}
    wait_until(
        lambda: airflow.get("/api/v2/assets", params=known).json()["total_entries"] == 1, timeout=60, what="the asset"
    )
    path = "/workflows/five_steps.five_steps/schedule"
    made = put(user, path, {"assets": ["invoices"], "input_data": {"topic": "tides"}})
    dag = f"/api/v2/dags/{made['airflow_dag_id']}"
    wait_until(lambda: airflow.get(dag).status_code == 200, timeout=60, poll=0.2, what="the schedule's DAG")
    started = backend.post("/workflows/trigger", json={"dag_id": "invoice_source", "input_data": {}})
    assert started.status_code == httpx.codes.ACCEPTED, started.text
    [firing] = latest(user, path, 1)
    assert (firing["outcome"], firing["assets"]) == ("started", ["s3://example/invoices"])
    run = finished(user, firing)
    assert (run["state"], run["user_id"]) == ("success", USER)
    assert len(run["result"]["output"]["answers"]) == 5
    assert user.delete(path).status_code == 204
