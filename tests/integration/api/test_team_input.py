"""A run's own team and input are checked when the run is triggered: what can't work starts nothing."""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from backend.core.settings import Settings
from tests.kit.airflow import MULTI_AGENT_PARAMS, FakeAirflow
from tests.kit.pictures import encode, photo

Headers = Mapping[str, str]

GOOD: dict[str, Any] = {"name": "a", "type": "text"}


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag("multi_agent_workflow", params=MULTI_AGENT_PARAMS)
    airflow.add_dag("own", params={"text": MULTI_AGENT_PARAMS["text"]})
    return airflow


async def send(http: httpx.AsyncClient, headers: Headers, given: Any, **more: Any) -> httpx.Response:
    body = {"dag_id": "multi_agent_workflow", "input_data": given, **more}
    return await http.post("/workflows/trigger", json=body, headers=headers)


def team(**keys: Any) -> dict[str, Any]:
    return {"text": "A text.", "agents": [{**GOOD, **keys}]}


@pytest.mark.parametrize(
    ("given", "pointer", "detail"),
    [
        # Empty input
        ({}, "/input_data", "is empty; give at least one of query, image_url and text"),
        ({"query": "  ", "text": "", "image_url": None}, "/input_data", "is empty; give at least one of"),
        ({"agents": [GOOD]}, "/input_data/text", "is missing; the text agent needs it"),
        ({"agents": [GOOD], "text": " \n"}, "/input_data/text", "is missing; the text agent needs it"),
        ({"agents": [{"name": "a", "type": "vision"}], "text": "a"}, "/input_data/image_url", "is missing; the vision"),
        (team(input_data={"text": {"$input": "contract"}}), "/input_data/contract", "is missing; agents[0].input_data"),
        # Long texts
        ({"text": "x" * 1_000_001}, "/input_data/text", "has 1000001 characters, more than the limit of 1000000; send"),
        ({"query": "x" * 1_000_001}, "/input_data/query", "has 1000001 characters, more than the limit of 1000000; s"),
        (
            team(input_data={"text": "x" * 1_000_001}),
            "/input_data/agents/0/input_data/text",
            "has 1000001 characters, more than the limit of 1000000; send a shorter one or raise VISUAL_AI_MAX_TEXT_CH",
        ),
        # Keys that can't act
        (team(context={"a": 1}), "/input_data/agents/0/context", "is for a graph of one's own"),
        (team(configurable={"a": 1}), "/input_data/agents/0/configurable", "is for a graph of one's own"),
        (team(llm_conn_id="models"), "/input_data/agents/0/llm_conn_id", "is an argument of the operator"),
        (team(modle="openai:o3"), "/input_data/agents/0", "the key “modle” is not known; "),
        (team(depends_on=["b"]), "/input_data/agents/0/depends_on", "is for the mode 'graph', not 'parallel'"),
        ({**team(), "supervisor": {"model": "local:text"}}, "/input_data/supervisor", "is for the mode 'supervisor'"),
        ({**team(), "max_steps": 3}, "/input_data/max_steps", "is for the mode 'supervisor', not 'parallel'"),
        # Wrong values
        (team(type="oracle"), "/input_data/agents/0/type", "is 'oracle'; it has to be one of"),
        (team(model="gtp:4"), "/input_data/agents/0/model", "“gtp:4” names the unknown provider"),
        (team(top_p=3), "/input_data/agents/0", "top_p has to be a number from 0 to 1"),
        (team(extra_body={"model": "o3-pro"}), "/input_data/agents/0", "extra_body has to be a dict without 'model'"),
        (
            team(extra_body={"web_search_options": {}}),
            "/input_data/agents/0",
            "extra_body has to be a dict without 'web_",
        ),
        (
            team(extra_body={"plugins": [{"id": "web"}]}),
            "/input_data/agents/0",
            "extra_body has to be a dict without 'pl",
        ),
        (team(extra_body={"tools": []}), "/input_data/agents/0", "extra_body has to be a dict without 'tools'"),
        (team(top_k=3, model="gpt-4o"), "/input_data/agents/0", "top_k is not known to models of openai"),
        (team(system_prompt="{{ x }}"), "/input_data/agents/0/system_prompt", "holds Jinja"),
    ],
)
async def test_what_cannot_work_starts_nothing(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow, given: dict[str, Any], pointer: str, detail: str
) -> None:
    response = await send(http, ulla, given)
    assert response.status_code == 422, response.text
    (error,) = response.json()["errors"]
    assert error["pointer"] == pointer
    assert error["detail"].startswith(detail)
    assert response.json()["detail"].startswith(f"{pointer}: ")
    assert airflow.triggers == []


@pytest.mark.parametrize(
    "given",
    [
        {"query": "What is this?"},
        {"text": "A text."},
        {"image_url": f"data:image/png;base64,{b64encode(encode(photo(1000, 800))).decode()}"},
        team(model="gpt-4o", top_p=0.5, seed=7, output_mapping={"said": "answer"}, name="b", timeout=5),
        {"agents": [{"name": "own", "graph": "only_tasks_know"}]},
    ],
    ids=["query", "text", "picture", "team", "graph"],
)
async def test_what_can_work_is_accepted(http: httpx.AsyncClient, ulla: Headers, given: dict[str, Any]) -> None:
    assert (await send(http, ulla, given)).status_code == 202


async def test_a_batch_names_each_input_that_cannot_work(http: httpx.AsyncClient, ulla: Headers) -> None:
    body = {"dag_id": "multi_agent_workflow", "inputs": [{"text": "a"}, {}, team(context={"a": 1})]}
    response = await http.post("/workflows/trigger/batch", json=body, headers=ulla)
    assert response.status_code == 202
    assert '"/input_data/agents/0/context"' in response.text
    assert "is empty; give at least one of query, image_url and text" in response.text


async def test_other_workflows_decide_about_their_own_input(http: httpx.AsyncClient, ulla: Headers) -> None:
    limit = Settings(_env_file=None).max_text_chars
    for given in ({}, {"text": "x" * (limit + 1)}, {"agents": "several"}):
        assert (await send(http, ulla, given, dag_id="own")).status_code == 202
