"""Agents in the triggerer of a real stack: how they end, what stops them, and Airflow's own features."""

from typing import Any

import httpx
import pytest

from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import RunningStack, finished_run, start_run, wait_for_dag, wait_until
from tests.kit.runs import follow, of_type, snapshot, trigger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def dags(airflow: httpx.Client) -> None:
    """Wait until Airflow and the backend know the DAGs of these tests."""
    wait_for_dag(airflow, "agent_out_of_time")
    wait_for_dag(airflow, "agent_decorated")


def tasks(airflow: httpx.Client, dag_id: str, run_id: str) -> list[tuple[str, int, str, int]]:
    """Task, map index, state and try of each task instance."""
    found = airflow.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances").raise_for_status().json()
    return sorted((t["task_id"], t["map_index"], t["state"], t["try_number"]) for t in found["task_instances"])


def xcom(airflow: httpx.Client, dag_id: str, run_id: str, task_id: str) -> Any:
    """The return value of a task."""
    url = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
    return airflow.get(url).raise_for_status().json()["value"]


def test_a_deferrable_agent_looks_like_any_other(
    airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    openai_server.script(content="Ships.")
    accepted = trigger(backend, "agent_deferrable", {"text": "Ships lay there."})
    found = follow(backend, accepted)
    states = [data["state"] for data in of_type(found, "task_update")]
    assert states[-2:] == ["running", "success"]
    assert "".join(data["text"] for data in of_type(found, "token")) == "Ships."
    now = snapshot(backend, accepted)
    assert now["result"]["output"]["answer"] == "Ships." or now["result"]["output"]["summary"] == "Ships."
    assert xcom(airflow, "agent_deferrable", accepted["dag_run_id"], "agent")["agent"] == "text"
    links = airflow.get(
        f"/api/v2/dags/agent_deferrable/dagRuns/{accepted['dag_run_id']}/taskInstances/agent/links"
    ).json()["extra_links"]
    assert "/workflow-status/agent_deferrable/" in links["Workflow status"]


def test_a_deferrable_agent_can_be_tested_from_the_command_line(
    stack: RunningStack, airflow: httpx.Client, openai_server: OpenAIServer
) -> None:
    tested = stack.command("airflow", "dags", "test", "agent_deferrable", "--conf", '{"text": "Ships lay there."}')
    newest = airflow.get("/api/v2/dags/agent_deferrable/dagRuns", params={"order_by": "-id", "limit": 1})
    (run,) = newest.raise_for_status().json()["dag_runs"]
    assert run["state"] == "success", tested.stdout + tested.stderr
    assert xcom(airflow, "agent_deferrable", run["dag_run_id"], "agent")["agent"] == "text"
    assert len(openai_server.requests) == 1


def test_a_retry_resumes_in_the_triggerer(
    airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    openai_server.script("server_error")
    accepted = trigger(backend, "agent_deferrable", {"text": "Ships lay there."})
    follow(backend, accepted)
    assert tasks(airflow, "agent_deferrable", accepted["dag_run_id"]) == [("agent", -1, "success", 2)]
    now = snapshot(backend, accepted)
    assert [(error["category"], error["action"]) for error in now["errors"]] == [("server", "task_retry")]
    nodes = [(agent["node"], agent["try_number"]) for agent in now["agents"] if agent["node"]]
    assert nodes == [("prepare", 1), ("analyse", 1), ("analyse", 2), ("report", 2)]


@pytest.mark.parametrize("dag_id", ["agent_deferrable", "agent_in_worker"])
def test_stopping_a_run_closes_the_models_connection(
    airflow: httpx.Client, openai_server: OpenAIServer, dag_id: str
) -> None:
    openai_server.script(hang=True)
    run_id = start_run(airflow, dag_id)
    wait_until(lambda: openai_server.requests or None, timeout=60, what="the model call")
    airflow.patch(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}", json={"state": "failed"}).raise_for_status()
    wait_until(lambda: openai_server.requests[0].client_disconnected, timeout=30, what="the end of the model call")
    assert tasks(airflow, dag_id, run_id) == [("agent", -1, "failed", 1)]


def test_execution_timeout_is_enforced(
    airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    openai_server.script(hang=True)
    accepted = trigger(backend, "agent_out_of_time", {})
    follow(backend, accepted)
    (error,) = snapshot(backend, accepted)["errors"]
    assert error["category"] == "timeout"
    assert "execution_timeout" in error["message"]
    wait_until(lambda: openai_server.requests[0].client_disconnected, timeout=30, what="the end of the model call")


def test_mapping_and_results_of_other_tasks(airflow: httpx.Client, openai_server: OpenAIServer) -> None:
    mapped, after = start_run(airflow, "agents_mapped"), start_run(airflow, "agent_after_xcom")
    assert finished_run(airflow, "agents_mapped", mapped, timeout=120)["state"] == "success"
    assert finished_run(airflow, "agent_after_xcom", after, timeout=120)["state"] == "success"
    assert [entry[1:3] for entry in tasks(airflow, "agents_mapped", mapped)][:3] == [(n, "success") for n in range(3)]


def test_assets_carry_their_origin(airflow: httpx.Client, backend: httpx.Client) -> None:
    accepted = trigger(backend, "agent_with_asset", {})
    follow(backend, accepted)
    runs = wait_until(
        lambda: [
            run
            for run in airflow.get("/api/v2/dags/agent_read/dagRuns").json()["dag_runs"]
            if run["state"] == "success"
        ]
        or None,
        timeout=60, what="the run that the asset starts",
    )  # fmt: skip
    (told,) = xcom(airflow, "agent_read", runs[0]["dag_run_id"], "read")
    assert told["execution_id"] == accepted["execution_id"]
    assert told["agent"] == "text"
    assert told["usage"]["output_tokens"] > 0


def test_a_function_and_a_connection(airflow: httpx.Client, openai_server: OpenAIServer) -> None:
    connection = {
        "connection_id": "test_models", "conn_type": "langchain", "password": "of-the-connection",
        "host": openai_server.base_url, "extra": '{"model": "openai:gpt-4.1"}',
    }  # fmt: skip
    airflow.post("/api/v2/connections", json=connection).raise_for_status()
    run_id = start_run(airflow, "agent_decorated", {"subject": "ships"})
    assert finished_run(airflow, "agent_decorated", run_id)["state"] == "success"
    assert openai_server.requests[0].model == "gpt-4.1"
    assert "About ships" in openai_server.requests[0].prompt
