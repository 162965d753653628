"""Runs from templates: which version is used, how it is merged with the request, and what is recorded about it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from tests.kit.airflow import MULTI_AGENT_PARAMS, FakeAirflow
from tests.kit.application import sign_in
from tests.kit.waiting import eventually

Headers = Mapping[str, str]

AGENTS: list[dict[str, Any]] = [
    {"name": "read", "type": "text", "input_data": {"text": {"$input": "contract"}}},
    {"name": "judged", "type": "review", "depends_on": ["read"]},
]
TEAM: dict[str, Any] = {"agents": AGENTS, "orchestration_mode": "graph", "synthesis": False}
JUDGE: dict[str, Any] = {
    "dag_id": "multi_agent_workflow",
    "description": "Judges a contract",
    "input_data": {"query": "Is it fair?", "terms": {"days": 30, "places": ["here"]}},
    "model": "local:text",
    "budget": {"max_tokens": 1000},
    **TEAM,
}
PICTURE: dict[str, Any] = {
    "dag_id": "visual_ai_workflow",
    "input_data": {"query": "What is it?", "options": {"sizes": [1, 2]}},
}


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag("visual_ai_workflow")
    airflow.add_dag("multi_agent_workflow", params=MULTI_AGENT_PARAMS)
    return airflow


@pytest.fixture
async def ulla(http: httpx.AsyncClient) -> Headers:
    headers = await sign_in(http, "ulla")
    for name, definition in (("judge", JUDGE), ("picture", PICTURE)):
        body = {"name": name, "definition": definition}
        assert (await http.post("/templates", json=body, headers=headers)).status_code == 201
    return headers


async def send(
    http: httpx.AsyncClient, headers: Headers, template: Any, key: str | None = None, **more: Any
) -> httpx.Response:
    own = {"Idempotency-Key": key} if key else {}
    body = {"template": template, "input_data": {"contract": "A text."}, **more}
    return await http.post("/workflows/trigger", json=body, headers={**headers, **own})


async def add_version(http: httpx.AsyncClient, headers: Headers, name: str, definition: Any, **more: Any) -> None:
    answer = await http.post(f"/templates/{name}/versions", json={"definition": definition, **more}, headers=headers)
    assert answer.status_code == 201, answer.text


def conf_of(response: httpx.Response, airflow: FakeAirflow) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run's input and what the system adds to it, without what differs between runs."""
    assert response.status_code == 202, response.text
    conf = dict(airflow.runs[response.json()["dag_id"], response.json()["dag_run_id"]].shown["conf"])
    system = dict(conf.pop("_visual_ai"))
    for name in ("execution_id", "user_id", "triggered_by", "idempotency_key", "signature"):
        system.pop(name, None)
    return conf, system


def problem(response: httpx.Response, status: int) -> dict[str, str]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return {error["pointer"]: error["detail"] for error in response.json().get("errors", [])}


async def test_a_run_from_a_template_by_name(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    response = await send(http, ulla, "judge")
    conf, system = conf_of(response, airflow)
    assert response.json()["dag_id"] == "multi_agent_workflow"
    assert conf == {
        "query": "Is it fair?",
        "terms": {"days": 30, "places": ["here"]},
        "contract": "A text.",
        **TEAM,
    }
    assert system == {
        "template": "judge",
        "template_version": 1,
        "model": "local:text",
        "budget": {"max_tokens": 1000},
    }
    snapshot = (await http.get(response.json()["status_url"], headers=ulla)).json()
    assert (snapshot["template_name"], snapshot["template_version"]) == ("judge", 1)
    assert snapshot["input_data"] == conf
    plain = {"dag_id": "multi_agent_workflow", "input_data": {"text": "x"}}
    await http.post("/workflows/trigger", json=plain, headers=ulla)
    listed = (await http.get("/workflow-status", headers=ulla)).json()["executions"]
    assert [(run["template_name"], run["template_version"]) for run in listed] == [(None, None), ("judge", 1)]


async def test_the_request_takes_precedence_over_the_template(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    given = {"contract": "C", "query": "Really?", "terms": {"places": ["there"], "of": {"x": 1}}, "text": None}
    response = await send(
        http, ulla, "judge", dag_id="multi_agent_workflow", input_data=given, model="local:vision", budget={}
    )
    conf, system = conf_of(response, airflow)
    assert conf == {
        "contract": "C",
        "query": "Really?",
        "terms": {"days": 30, "places": ["there"], "of": {"x": 1}},
        "text": None,
        **TEAM,
    }
    assert system == {"template": "judge", "template_version": 1, "model": "local:vision"}


async def test_preferences_apply_where_request_and_template_have_none(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    chosen = {"default_model": "local:vision", "budget": {"max_steps": 3}}
    await http.put("/users/me/preferences", json=chosen, headers=ulla)
    _, system = conf_of(await send(http, ulla, "judge"), airflow)
    assert (system["model"], system["budget"]) == ("local:text", {"max_tokens": 1000})
    _, system = conf_of(await send(http, ulla, "picture", input_data={"image_url": "sample://invoice"}), airflow)
    assert (system["model"], system["budget"]) == ("local:vision", {"max_steps": 3})


async def test_a_reference_may_name_a_version(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    await add_version(http, ulla, "judge", {**JUDGE, "orchestration_mode": "sequential", "agents": AGENTS[:1]})

    async def run(template: str) -> tuple[int, int]:
        conf, system = conf_of(await send(http, ulla, template), airflow)
        return system["template_version"], len(conf["agents"])

    assert await run("judge") == (1, 2)
    assert await run("judge@2") == (2, 1), "a version can be tried before it is activated"
    await http.post("/templates/judge/versions/2/activate", headers=ulla)
    assert await run("judge") == (2, 1)
    assert await run("judge@1") == (1, 2)

    await http.post("/templates/judge/retire", headers=ulla)
    before = len(airflow.triggers)
    for template in ("judge", "judge@1", "judge@2"):
        assert "is retired" in problem(await send(http, ulla, template), 409)["/template"]
    assert len(airflow.triggers) == before
    await http.post("/templates/judge/versions/1/activate", headers=ulla)
    assert await run("judge") == (1, 2)


@pytest.mark.parametrize(
    ("template", "status", "pointer", "detail"),
    [
        ("unknown", 404, "/template", "there is no template 'unknown'"),
        ("unknown@1", 404, "/template", "there is no template 'unknown'"),
        ("judge@2", 404, "/template", "'judge' has no version 2; the latest is 1"),
        ("judge@0", 422, "/template", "match pattern"),
        ("judge@", 422, "/template", "match pattern"),
        ("judge@latest", 422, "/template", "match pattern"),
        ("", 422, "/template", "match pattern"),
        ({"name": "judge"}, 422, "/template", "valid string"),
        (None, 422, "/dag_id", "Field required, unless there is a template"),
    ],
)
async def test_unusable_templates_are_refused(
    http: httpx.AsyncClient, ulla: Headers, template: Any, status: int, pointer: str, detail: str
) -> None:
    found = problem(await send(http, ulla, template), status)
    assert list(found) == [pointer]
    assert detail in found[pointer]


async def test_requests_that_contradict_the_template_are_refused(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    found = problem(await send(http, ulla, "judge", dag_id="visual_ai_workflow"), 422)
    assert "the template 'judge' is for 'multi_agent_workflow'" in found["/dag_id"]
    for key in ("agents", "orchestration_mode", "synthesis"):
        found = problem(await send(http, ulla, "judge", input_data={"contract": "C", key: None}), 422)
        assert found == {f"/input_data/{key}": "comes from the template 'judge'; omit it"}
    assert "/input_data/_visual_ai" in problem(await send(http, ulla, "judge", input_data={"_visual_ai": {}}), 422)
    assert airflow.triggers == []


async def test_missing_input_is_named(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    found = problem(await send(http, ulla, "judge", input_data={}), 422)
    assert found == {"/input_data/contract": "is missing; agents[0].input_data.text refers to it"}
    found = problem(await send(http, ulla, "picture", input_data={}), 422)
    assert found == {"/input_data/image_url": "is required"}
    bad = {"contract": "C", "query": 7}
    assert list(problem(await send(http, ulla, "judge", input_data=bad), 422)) == ["/input_data/query"]
    plain = {**JUDGE, "agents": [{"name": "read", "type": "text"}]}
    await add_version(http, ulla, "judge", plain, activate=True)
    assert list(problem(await send(http, ulla, "judge"), 422)) == ["/input_data/text"]
    assert airflow.triggers == []


async def test_a_template_that_no_longer_matches_its_dag(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    narrow = {"value": "parallel", "schema": {"enum": ["parallel"]}}
    airflow.add_dag("multi_agent_workflow", params={**MULTI_AGENT_PARAMS, "orchestration_mode": narrow})
    otto = await sign_in(http, "otto")  # of whom nothing is cached
    found = problem(await send(http, otto, "judge"), 422)
    assert found["/template"].startswith('judge@1 needs a new version: /orchestration_mode "graph" is not one of')
    del airflow.dags["multi_agent_workflow"]
    anna = await sign_in(http, "anna")
    problem(await send(http, anna, "judge"), 404)


async def test_the_template_is_part_of_an_idempotency_key(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    first = (await send(http, ulla, "judge", "k")).json()
    await add_version(http, ulla, "judge", JUDGE, activate=True)
    again = await send(http, ulla, "judge", "k")
    assert again.json() == first, "whatever version is active now"
    await http.post("/templates/judge/retire", headers=ulla)
    assert (await send(http, ulla, "judge", "k")).json() == first
    assert len(airflow.triggers) == 1
    await http.post("/templates/judge/versions/1/activate", headers=ulla)
    for template, more in (
        ("judge@1", {}),
        ("picture", {}),
        ("judge", {"dag_id": "multi_agent_workflow"}),
        ("judge", {"budget": {}}),
    ):
        problem(await send(http, ulla, template, "k", **more), 409)
    assert len(airflow.triggers) == 1
    system = airflow.triggers[0][1]["conf"]["_visual_ai"]
    assert (system["template"], system["template_version"]) == ("judge", 1)


async def test_a_key_can_be_reused_after_an_unknown_template(http: httpx.AsyncClient, ulla: Headers) -> None:
    problem(await send(http, ulla, "missing", "k"), 404)
    assert (await send(http, ulla, "judge", "k")).status_code == 202


async def test_a_batch_from_a_template(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    body = {"template": "judge", "inputs": [{"contract": f"Text {number}."} for number in range(20)] + [{}]}
    headers = {**ulla, "Idempotency-Key": "b"}
    answer = (await http.post("/workflows/trigger/batch", json=body, headers=headers)).json()
    assert (answer["accepted"], answer["refused"]) == (20, 1)
    assert answer["entries"][20]["problem"]["errors"][0]["pointer"] == "/input_data/contract"
    assert {body["conf"]["_visual_ai"]["template_version"] for _, body in airflow.triggers} == {1}
    await http.post("/templates/judge/retire", headers=ulla)
    again = (await http.post("/workflows/trigger/batch", json=body, headers=headers)).json()
    assert again["entries"][:20] == answer["entries"][:20]
    assert again["entries"][20]["problem"]["status"] == 409
    problem(await http.post("/workflows/trigger/batch", json={"inputs": [{}]}, headers=ulla), 422)


@pytest.mark.parametrize("app", [{"batch_trigger_concurrency": 2}], indirect=True)
async def test_all_runs_of_a_batch_use_one_version(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    body = {"template": "judge", "inputs": [{"contract": f"Text {number}."} for number in range(60)]}
    batch = asyncio.create_task(http.post("/workflows/trigger/batch", json=body, headers=ulla))
    await eventually(lambda: airflow.triggers)  # the rest waits for its turn
    await add_version(http, ulla, "judge", JUDGE, activate=True)
    assert len(airflow.triggers) < 60, "the version was activated too late to affect the batch"
    assert (await batch).json()["accepted"] == 60
    assert {body["conf"]["_visual_ai"]["template_version"] for _, body in airflow.triggers} == {1}


async def test_roles_that_may_run_templates(http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow) -> None:
    uwe = await sign_in(http, "uwe")
    assert (await send(http, uwe, "judge")).status_code == 202, "a template of another user"
    assert airflow.triggers[-1][0] == "uwe", "with their own rights in Airflow"
    problem(await send(http, await sign_in(http, "victor"), "judge"), 403)
    airflow.users["uwe"].forbidden = True
    problem(await send(http, uwe, "judge@1"), 403)
