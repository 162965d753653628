"""Runs that fail outside of any agent say why, as a real Airflow knows it."""

import httpx
import pytest

from tests.kit.processes.stack import RunningStack, start_run, wait_for_dag, wait_until
from tests.kit.runs import snapshot

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

LONG = "x" * 250


def test_a_run_that_fails_without_an_error_gets_one_that_says_why(
    stack: RunningStack, backend: httpx.Client, airflow: httpx.Client
) -> None:
    expected = {
        "fails_when_killed": "Task 'work' was killed (SIGKILL), most likely because the machine",
        "fails_by_hand": "The run was marked as failed in Airflow by airflow. Note: wrong customer",
        "fails_by_timeout": "The run exceeded its DAG's dagrun_timeout of 5 s, so Airflow stopped it.",
        "fails_before_it_starts": "Its run id is too long for the name of a folder",
    }
    for dag_id in expected:
        wait_for_dag(airflow, dag_id, timeout=120)
    body = {"logical_date": None, "dag_run_id": LONG}
    airflow.post("/api/v2/dags/fails_before_it_starts/dagRuns", json=body).raise_for_status()
    runs = {dag_id: start_run(airflow, dag_id) for dag_id in list(expected)[:3]} | {"fails_before_it_starts": LONG}
    by_hand = f"/api/v2/dags/fails_by_hand/dagRuns/{runs['fails_by_hand']}"
    wait_until(
        lambda: airflow.get(f"{by_hand}/taskInstances/work").json()["state"] == "running", timeout=60, what="a task"
    )
    airflow.patch(by_hand, json={"state": "failed", "note": "wrong customer"}).raise_for_status()
    for dag_id, run_id in runs.items():
        run = {"dag_id": dag_id, "dag_run_id": run_id}
        wait_until(lambda run=run: snapshot(backend, run)["reason"], timeout=90, what=f"the reason of {dag_id}")  # type: ignore[misc]  # mypy can't infer the lambda
        now = snapshot(backend, run)
        assert now["state"] == "failed"
        assert expected[dag_id] in now["reason"]
        assert [error["message"] for error in now["errors"]] == [now["reason"]]
        shown = stack.command("watch", dag_id, run_id)
        assert (shown.returncode, f"Reason: {now['reason']}" in shown.stderr) == (1, True), shown.stderr
