"""Batches in Airflow: their arguments come from other tasks, and each instance of a mapped task is a batch."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import wait_for_dag, wait_until
from tests.kit.runs import follow, snapshot, trigger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def dags(airflow: httpx.Client, backend: httpx.Client) -> None:
    """Wait until Airflow and the backend know the DAGs of these tests."""
    last = "batches_mapped"
    wait_for_dag(airflow, last)
    wait_until(lambda: backend.get(f"/workflows/{last}").is_success, timeout=30, what=f"{last} in the backend")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def xcom(airflow: httpx.Client, dag_id: str, run_id: str, map_index: int = -1) -> dict[str, Any]:
    url = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/batch/xcomEntries/return_value"
    found = airflow.get(url, params={"map_index": map_index}).raise_for_status().json()["value"]
    return dict(found)


def test_inputs_budget_and_path_come_from_other_tasks(
    airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    accepted = trigger(backend, "batch_of_another_task", {"folder": str(tmp_path)})
    follow(backend, accepted)
    now = snapshot(backend, accepted)
    assert now["state"] == "success", now["errors"]
    result = xcom(airflow, "batch_of_another_task", accepted["dag_run_id"])
    assert result["batch"] == {"items": 3, "succeeded": 3, "failed": 0, "failures": []}
    written = read_lines(tmp_path / "results" / "all.jsonl")
    assert [line["state"] for line in written] == ["success"] * 3
    assert [line["output"] for line in written] == result["results"]
    for number in range(3):
        assert f"Ship {number} lay" in str(written[number]["output"])
    items = backend.get(result["results_url"]).raise_for_status().json()["items"]
    assert [item["output"] for item in items] == result["results"]
    assert len(openai_server.requests) == 3


def test_a_budget_of_another_task_is_enforced(
    backend: httpx.Client, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    accepted = trigger(backend, "batch_of_another_task", {"folder": str(tmp_path), "max_tokens": 1})
    follow(backend, accepted)
    now = snapshot(backend, accepted)
    assert now["state"] == "failed"
    assert {error["category"] for error in now["errors"]} == {"budget"}
    assert {task["task_id"]: task["try_number"] for task in now["tasks"]}["batch"] == 1
    assert openai_server.requests == []


def test_a_mapped_task_runs_a_batch_for_each_list(
    airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    accepted = trigger(backend, "batches_mapped", {"folder": str(tmp_path)})
    follow(backend, accepted)
    now = snapshot(backend, accepted)
    assert now["state"] == "success", now["errors"]
    for batch in range(2):
        result = xcom(airflow, "batches_mapped", accepted["dag_run_id"], batch)
        assert result["batch"]["succeeded"] == batch + 1
        written = read_lines(tmp_path / f"{batch}.jsonl")
        assert [f"Ship {batch}-{number} left." in str(line["output"]) for number, line in enumerate(written)] == [
            True
        ] * (batch + 1)
        assert f"map_index={batch}" in result["results_url"]
        assert len(backend.get(result["results_url"]).raise_for_status().json()["items"]) == batch + 1
    assert len(openai_server.requests) == 3
