"""The graphs of a project are DAGs: they appear, are started with a form's input, and run like any other."""

import httpx
import pytest

from tests.kit.fixtures.projects import PINNED
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import RunningStack, wait_for_dag
from tests.kit.runs import check_order, follow, snapshot, trigger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DAG = "five_steps.five_steps"


def test_a_graph_runs_without_a_dag_file(backend: httpx.Client, openai_server: OpenAIServer) -> None:
    workflow = backend.get(f"/workflows/{DAG}").json()
    assert set(workflow["input_schema"]["properties"]) == {"topic", "answers"}
    refused = backend.post("/workflows/trigger", json={"dag_id": DAG, "input_data": {"topic": 7}})
    assert refused.status_code == 422
    assert "/input_data/topic" in refused.text
    accepted = trigger(backend, DAG, {"topic": "tides"})
    check_order(follow(backend, accepted))
    now = snapshot(backend, accepted)
    assert len(now["result"]["output"]["answers"]) == 5
    assert now["result"]["output"]["topic"] == "tides"
    assert [request for request in openai_server.requests if "tides" in request.prompt]
    assert {agent["node"] for agent in now["agents"]} >= {None, "step_1", "step_5"}


def test_an_added_project_runs_in_its_environment_without_a_restart(
    stack: RunningStack, airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    added = stack.command("projects", "add", str(PINNED), "--name", "foreign")
    assert added.returncode == 1, added.stderr  # one of its graphs is broken
    wait_for_dag(airflow, "foreign.steps", timeout=90)
    openai_server.script(contains="Step 1 of harbours", content="One harbour.")
    openai_server.script(contains="Step 2 of harbours", content="Two harbours.")
    accepted = trigger(backend, "foreign.steps", {"topic": "harbours"})
    check_order(follow(backend, accepted))
    now = snapshot(backend, accepted)
    assert now["result"]["output"]["answers"] == ["One harbour.", "Two harbours."]
    assert now["result"]["usage"]["output_tokens"] > 0
    assert {agent["node"] for agent in now["agents"]} >= {None, "first", "second"}
    assert stack.command("projects", "remove", "foreign").returncode == 0
