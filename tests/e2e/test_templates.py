"""A workflow as data: created through the API and run by name on the real stack, without a DAG file."""

from typing import Any

import httpx
import pytest

from tests.kit.openai.server import OpenAIServer
from tests.kit.runs import check_order, follow, of_type, snapshot

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

CONTRACT = "The buyer pays within thirty days. {{ 7 * 7 }} boats are delivered in May. {% raw %}"

FIRST: dict[str, Any] = {
    "dag_id": "multi_agent_workflow",
    "description": "Reads an invoice and a contract, and judges what was found",
    "model": "local:text",
    "budget": {"max_steps": 40},
    "input_data": {"query": "What is the total?", "image_url": "sample://invoice"},
    "orchestration_mode": "graph",
    "agents": [
        {"name": "seen", "type": "vision", "model": "local:vision"},
        {"name": "terms", "type": "text", "input_data": {"text": {"$input": "contract"}}},
        {
            "name": "checked",
            "type": "review",
            "input_data": {"criteria": ["It says when the buyer pays, within thirty days."]},
            "depends_on": ["seen", "terms"],
        },
    ],
}
SECOND: dict[str, Any] = {
    **FIRST,
    "orchestration_mode": "supervisor",
    "agents": [
        FIRST["agents"][1],
        {"name": "mine", "graph": "five_steps", "input_data": {"topic": {"$input": "contract"}}},
    ],
    "max_steps": 5,
    "supervisor": {"timeout": 60},
    "synthesis": False,
    "error_policy": {"server": {"retries": 1}},
}


def finished(backend: httpx.Client, accepted: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The finished run, and the order of its agents' starts and ends."""
    found = follow(backend, accepted)
    check_order(found)
    moments = [(data["agent"], data["state"]) for data in of_type(found, "agent_update") if data["node"] is None]
    return snapshot(backend, accepted), moments


def run(backend: httpx.Client, template: str, **input_data: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """A run of a template."""
    answer = backend.post("/workflows/trigger", json={"template": template, "input_data": input_data})
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return finished(backend, answer.json())


def test_a_workflow_without_a_dag_file(backend: httpx.Client, openai_server: OpenAIServer) -> None:
    made = backend.post("/templates", json={"name": "invoice-and-contract", "definition": FIRST})
    assert made.status_code == httpx.codes.CREATED, made.text
    now, moments = run(backend, "invoice-and-contract", contract=CONTRACT)
    assert now["state"] == "success", now["errors"]
    assert (now["template_name"], now["template_version"]) == ("invoice-and-contract", 1)
    result = now["result"]
    assert set(result["results"]) == {"seen", "terms", "checked"}
    assert "811.80" in result["results"]["seen"]["text"]
    # It received the contract; Airflow renders no template in a run's input.
    assert "{{ 7 * 7 }} boats" in result["results"]["terms"]["summary"]
    assert result["results"]["checked"]["verdict"]
    assert result["summary"]
    at = moments.index
    assert at(("checked", "running")) > max(at(("seen", "success")), at(("terms", "success")))
    assert max(at(("seen", "running")), at(("terms", "running"))) < at(("checked", "running"))

    assert openai_server.requests == []

    answer = backend.post("/templates/invoice-and-contract/versions", json={"definition": SECOND, "base_version": 1})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    assert run(backend, "invoice-and-contract", contract="Short.")[0]["template_version"] == 1, "not active yet"
    backend.post("/templates/invoice-and-contract/versions/2/activate").raise_for_status()
    now, _ = run(backend, "invoice-and-contract", contract=CONTRACT)
    assert now["state"] == "success", now["errors"]
    assert (now["template_name"], now["template_version"]) == ("invoice-and-contract", 2)
    result = now["result"]
    assert [decision["next"] for decision in result["decisions"]] == ["terms", "mine", "FINISH"]
    assert set(result["results"]) == {"terms", "mine"}
    assert result["summary"] is None
    assert {agent["agent"] for agent in now["agents"]} == {"supervisor", "terms", "mine"}
    assert now["input_data"]["orchestration_mode"] == "supervisor"
    assert ["{{ 7 * 7 }} boats" in request.prompt for request in openai_server.requests] == [True] * 5

    backend.post("/templates/invoice-and-contract/retire").raise_for_status()
    body = {"template": "invoice-and-contract", "input_data": {"contract": "x"}}
    refused = backend.post("/workflows/trigger", json=body)
    assert refused.status_code == httpx.codes.CONFLICT
    assert snapshot(backend, now)["template_version"] == 2


@pytest.mark.parametrize(
    ("changes", "pointer", "detail"),
    [
        ({"agents": [{"name": "a", "graph": "tests.kit.graphs.foreign:anything"}]}, "agents/0/graph", "names code"),
        ({"agents": [{"name": "a", "type": "text", "output_schema": "a:X"}]}, "agents/0/output_schema", "names code"),
        ({"agents": [{"name": "{{ 1 }}", "type": "text"}]}, "agents/0/name", "holds Jinja"),
        ({"agents": [{"name": "a", "type": "text"}], "error_policy": {"x": 1}}, "error_policy/x", "is not known"),
        ({"agents": [{"name": "a", "type": "text"}], "supervisor": {"name": "x"}}, "supervisor", "can't set 'name'"),
    ],
)
def test_a_run_with_its_own_team_is_checked_in_the_same_way(
    backend: httpx.Client, changes: dict[str, Any], pointer: str, detail: str
) -> None:
    body = {"dag_id": "multi_agent_workflow", "input_data": {"text": "Some text.", **changes}}
    answer = backend.post("/workflows/trigger", json=body)
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    (error,) = answer.json()["errors"]
    assert error["pointer"] == f"/input_data/{pointer}"
    assert error["detail"].startswith(detail)
