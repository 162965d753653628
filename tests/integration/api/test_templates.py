"""Templates: creation, versions, activation, retirement, access, and checks like those of a DAG's arguments."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator

from backend.agents.config_keys import CONFIG_KEYS
from backend.agents.registry import AGENTS
from backend.api.schemas.templates import AgentEntry, Definition, SynthesisSetup
from backend.db.address import plain_url
from backend.runtime.spec_keys import AGENT_KEYS, ROLE_KEYS
from backend.runtime.specs import MODES
from backend.runtime.team.arguments import TEAM_ARGUMENTS
from backend.services.templates import MAX_BYTES
from tests.kit.airflow import MULTI_AGENT_PARAMS, FakeAirflow
from tests.kit.application import sign_in
from tests.kit.servers.postgres import Postgres

Headers = Mapping[str, str]

DEFINITION: dict[str, Any] = {
    "dag_id": "multi_agent_workflow",
    "description": "Judges what a text says",
    "input_data": {"query": "Is it true?"},
    "orchestration_mode": "graph",
    "agents": [
        {"name": "read", "type": "text"},
        {"name": "judged", "type": "review", "depends_on": ["read"]},
    ],
}
PLAIN: dict[str, Any] = {"dag_id": "visual_ai_workflow"}


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag("visual_ai_workflow")
    airflow.add_dag("multi_agent_workflow", params=MULTI_AGENT_PARAMS)
    return airflow


async def create(http: httpx.AsyncClient, headers: Headers, name: str, definition: Any = PLAIN) -> dict[str, Any]:
    answer = await http.post("/templates", json={"name": name, "definition": definition}, headers=headers)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def add(http: httpx.AsyncClient, headers: Headers, name: str, **body: Any) -> httpx.Response:
    return await http.post(f"/templates/{name}/versions", json={"definition": PLAIN, **body}, headers=headers)


def problem(response: httpx.Response, status: int) -> dict[str, str]:
    """The errors of a response, by pointer."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return {error["pointer"]: error["detail"] for error in response.json().get("errors", [])}


async def faults(http: httpx.AsyncClient, headers: Headers, definition: Any) -> dict[str, str]:
    """The errors of a definition, which are the same for a new template and for a new version."""
    found = problem(await http.post("/templates", json={"name": "new", "definition": definition}, headers=headers), 422)
    assert found == problem(await add(http, headers, "old", definition=definition), 422)
    return found


async def test_a_template_is_created_versioned_activated_and_retired(http: httpx.AsyncClient, ulla: Headers) -> None:
    answer = await http.post("/templates", json={"name": "judge", "definition": DEFINITION}, headers=ulla)
    assert (answer.status_code, answer.headers["location"]) == (201, "/templates/judge/versions/1")
    made = answer.json()
    moment = made["created_at"]
    assert made == {
        "name": "judge",
        "version": 1,
        "dag_id": "multi_agent_workflow",
        "description": "Judges what a text says",
        "definition": DEFINITION,
        "active": True,
        "owner": "ulla",
        "latest_version": 1,
        "created_by": "ulla",
        "created_at": moment,
        "activated_by": "ulla",
        "activated_at": made["activated_at"],
        "deactivated_by": None,
        "deactivated_at": None,
    }
    assert (await http.get("/templates/judge", headers=ulla)).json() == made

    changed = {**DEFINITION, "orchestration_mode": "sequential", "agents": DEFINITION["agents"][:1]}
    otto = await sign_in(http, "otto")
    answer = await add(http, otto, "judge", definition=changed, base_version=1)
    assert (answer.status_code, answer.headers["location"]) == (201, "/templates/judge/versions/2")
    second = answer.json()
    assert (second["version"], second["active"], second["created_by"]) == (2, False, "otto")
    shown = (await http.get("/templates/judge", headers=ulla)).json()
    assert shown == {**made, "latest_version": 2}, "the active version stays active"

    answer = await http.post("/templates/judge/versions/2/activate", headers=ulla)
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["version"], shown["active"], shown["definition"], shown["owner"]) == (2, True, changed, "ulla")
    assert (shown["created_by"], shown["activated_by"]) == ("otto", "ulla")
    history = (await http.get("/templates/judge/versions", headers=ulla)).json()
    assert [(row["version"], row["active"], row["deactivated_by"]) for row in history["versions"]] == [
        (2, True, None),
        (1, False, "ulla"),
    ]
    assert "definition" not in history["versions"][0]
    first = (await http.get("/templates/judge/versions/1", headers=ulla)).json()
    assert (first["definition"], first["created_at"]) == (DEFINITION, moment)
    again = await http.post("/templates/judge/versions/2/activate", headers=ulla)
    assert again.json() == shown, "activating the active version changes nothing"

    retired = (await http.post("/templates/judge/retire", headers=otto)).json()
    assert (retired["version"], retired["active"], retired["deactivated_by"]) == (2, False, "otto")
    assert (await http.post("/templates/judge/retire", headers=ulla)).json() == retired
    problem(await http.post("/templates", json={"name": "judge", "definition": PLAIN}, headers=ulla), 409)

    back = (await http.post("/templates/judge/versions/1/activate", headers=ulla)).json()
    assert (back["version"], back["active"], back["latest_version"]) == (1, True, 2)
    third = (await add(http, ulla, "judge", activate=True)).json()
    assert (third["version"], third["active"]) == (3, True)
    assert (await http.get("/templates/judge", headers=ulla)).json()["version"] == 3


async def test_templates_and_versions_are_listed(http: httpx.AsyncClient, ulla: Headers) -> None:
    for name, definition in (
        ("b-judge", DEFINITION),
        ("a_1", {**PLAIN, "description": "Reads 50% of it"}),
        ("c", PLAIN),
        ("d", DEFINITION),
    ):
        await create(http, ulla, name, definition)
    await add(http, ulla, "c", definition=DEFINITION)
    await http.post("/templates/d/retire", headers=ulla)

    async def names(**params: Any) -> list[str]:
        page = (await http.get("/templates", params=params, headers=ulla)).json()
        assert page["next_cursor"] is None
        return [template["name"] for template in page["templates"]]

    assert await names() == ["a_1", "b-judge", "c", "d"]
    assert await names(active=True) == ["a_1", "b-judge", "c"]
    assert await names(active=False) == ["d"]
    assert await names(dag_id="visual_ai_workflow") == ["a_1", "c"], "the DAG of the active version counts"
    assert await names(q="JUDGE") == ["b-judge", "d"]
    assert await names(q="50%") == ["a_1"]
    assert await names(q="%") == ["a_1"], "it is not a pattern"
    assert await names(q="_") == ["a_1"]
    assert await names(q="nothing") == []
    found: list[str] = []
    params: dict[str, Any] = {"limit": 3}
    while True:
        page = (await http.get("/templates", params=params, headers=ulla)).json()
        found += [template["name"] for template in page["templates"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert found == ["a_1", "b-judge", "c", "d"]
    summary = (await http.get("/templates", params={"q": "c"}, headers=ulla)).json()["templates"][-1]
    assert (summary["name"], summary["version"], summary["latest_version"], summary["owner"]) == ("c", 1, 2, "ulla")
    assert "definition" not in summary

    await add(http, ulla, "c")
    page = (await http.get("/templates/c/versions", params={"limit": 2}, headers=ulla)).json()
    assert ([row["version"] for row in page["versions"]], page["next_cursor"]) == ([3, 2], "2")
    page = (await http.get("/templates/c/versions", params={"limit": 2, "cursor": "2"}, headers=ulla)).json()
    assert ([row["version"] for row in page["versions"]], page["next_cursor"]) == ([1], None)
    for params in ({"limit": 0}, {"limit": 201}, {"cursor": "Ä"}, {"q": ""}, {"active": "perhaps"}):
        problem(await http.get("/templates", params=params, headers=ulla), 422)
    problem(await http.get("/templates/c/versions", params={"cursor": "x"}, headers=ulla), 422)


async def test_unknown_templates_and_versions_are_not_found(http: httpx.AsyncClient, ulla: Headers) -> None:
    await create(http, ulla, "known")
    for method, path, body in (
        ("GET", "/templates/unknown", None),
        ("GET", "/templates/unknown/versions", None),
        ("GET", "/templates/unknown/versions/1", None),
        ("GET", "/templates/known/versions/2", None),
        ("POST", "/templates/unknown/versions", {"definition": PLAIN}),
        ("POST", "/templates/unknown/versions/1/activate", None),
        ("POST", "/templates/known/versions/2/activate", None),
        ("POST", "/templates/unknown/retire", None),
    ):
        response = await http.request(method, path, json=body, headers=ulla)
        problem(response, 404)
        assert "known" in response.json()["detail"]
    assert (await http.get("/templates/known", headers=ulla)).json()["active"], "a wrong version retires nothing"
    problem(await http.get("/templates/known/versions/0", headers=ulla), 422)
    problem(await http.get(f"/templates/known/versions/{2**31}", headers=ulla), 422)


async def test_roles_that_may_change_templates(app: FastAPI, http: httpx.AsyncClient, ulla: Headers) -> None:
    await create(http, ulla, "ullas")
    await add(http, ulla, "ullas")
    changes: list[tuple[str, Any]] = [
        ("/templates/ullas/versions", {"definition": PLAIN}),
        ("/templates/ullas/versions/2/activate", None),
        ("/templates/ullas/retire", None),
    ]
    reads = ("/templates", "/templates/schema", "/templates/ullas", "/templates/ullas/versions/2")
    victor, uwe = await sign_in(http, "victor"), await sign_in(http, "uwe")
    for path, body in [*changes, ("/templates", {"name": "mine", "definition": PLAIN})]:
        problem(await http.post(path, json=body, headers=victor), 403)
        problem(await http.post(path, json=body), 401)
    for path, body in changes:
        problem(await http.post(path, json=body, headers=uwe), 403)
    for path in reads:
        assert (await http.get(path, headers=victor)).status_code == 200
        problem(await http.get(path), 401)
    shown = (await http.get("/templates/ullas", headers=uwe)).json()
    assert (shown["version"], shown["active"], shown["latest_version"]) == (1, True, 2)
    for name in ("otto", "anna"):
        headers = await sign_in(http, name)
        for path, body in changes:
            assert (await http.post(path, json=body, headers=headers)).is_success
    await create(http, uwe, "uwes")


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("schema", "is reserved"),
        ("Judge", "match pattern"),
        ("1st", "match pattern"),
        ("a b", "match pattern"),
        ("a@2", "match pattern"),
        ("a/b", "match pattern"),
        ("a\n", "match pattern"),
        ("a" * 64, "match pattern"),
        ("", "match pattern"),
        (7, "valid string"),
    ],
)
async def test_names_of_templates_are_checked(http: httpx.AsyncClient, ulla: Headers, name: Any, detail: str) -> None:
    found = problem(await http.post("/templates", json={"name": name, "definition": PLAIN}, headers=ulla), 422)
    assert detail in found["/name"]


def changed(**changes: Any) -> dict[str, Any]:
    """The definition with some keys changed, or removed with `...`."""
    return {key: value for key, value in {**DEFINITION, **changes}.items() if value is not ...}


def with_agent(**entry: Any) -> dict[str, Any]:
    return changed(agents=[{"name": "a", **entry}])


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    ("definition", "pointer", "detail"),
    [
        ("text", "/definition", "valid dictionary"),
        ({}, "/definition/dag_id", "required"),
        (changed(dag="x"), "/definition/dag", "not permitted"),
        (changed(dag_id="unknown"), "/definition/dag_id", "there is no workflow 'unknown' that you may see"),
        (changed(model="opnai:gpt-4.1"), "/definition/model", "unknown provider"),
        (changed(budget={"max_tokens": -1}), "/definition/budget/max_tokens", "greater than or equal to 0"),
        (changed(budget={"max_token": 1}), "/definition/budget/max_token", "not permitted"),
        (changed(orchestration_mode="swarm"), "/definition/orchestration_mode", "'parallel'"),
        (changed(agents=[]), "/definition/agents", "at least 1 item"),
        (changed(agents=["a"]), "/definition/agents/0", "valid dictionary"),
        (with_agent(type="oracle"), "/definition/agents/0/type", "'vision'"),
        (with_agent(), "/definition/agents/0/type", "is missing; it has to be one of vision, text"),
        (with_agent(type="text", temprature=1), "/definition/agents/0/temprature", "not permitted"),
        (with_agent(type="text", temperature=3), "/definition/agents/0/temperature", "less than or equal to 2"),
        (with_agent(type="text", required="yes"), "/definition/agents/0/required", "valid boolean"),
        (with_agent(type="text", timeout=0), "/definition/agents/0/timeout", "greater than 0"),
        (with_agent(type="text", model="x:y"), "/definition/agents/0/model", "unknown provider"),
        (with_agent(type="text", depends_on=["b"]), "/definition/agents/0/depends_on", "names 'b', which is no agent"),
        (with_agent(type="text", depends_on=["a"]), "/definition/agents/0/depends_on", "the agent itself"),
        (with_agent(type="extraction"), "/definition/agents/0/output_schema", "is missing"),
        (with_agent(type="review", output_schema={"type": "object"}), "/definition/agents/0/output_schema", "own form"),
        (with_agent(type="text", output_schema={"type": 1}), "/definition/agents/0/output_schema", "no valid JSON Sch"),
        (with_agent(type="text", output_schema="os:x"), "/definition/agents/0/output_schema", "valid dictionary"),
        (
            with_agent(type="text", error_policy={"rate_limit": {"retrys": 1}}),
            "/definition/agents/0/error_policy/rate_limit/retrys",
            "is not known",
        ),
        (with_agent(graph="os:system"), "/definition/agents/0/graph", "names code"),
        (with_agent(graph="mine"), "/definition/agents/0/graph", "none is set"),
        (with_agent(type="text", system_prompt="{{ x }}"), "/definition/agents/0/system_prompt", "holds Jinja"),
        (
            with_agent(type="text", input_data={"text": "{{ dag_run.conf.text }}"}),
            "/definition/agents/0/input_data",
            "holds Jinja",
        ),
        (
            with_agent(type="text", input_data={"text": {"$input": ""}}),
            "/definition/agents/0/input_data/text",
            "has to read",
        ),
        (changed(agents=DEFINITION["agents"][:1] * 2), "/definition/agents/1/name", "names are unique"),
        (
            changed(agents=[{"name": "a", "type": "text", "depends_on": ["b"]},
                            {"name": "b", "type": "text", "depends_on": ["a"]}]),
            "/definition/agents/0/depends_on",
            "makes a cycle: a → b → a",
        ),
        (changed(max_steps=3), "/definition/max_steps", "is for the mode 'supervisor'"),
        (changed(max_steps=0), "/definition/max_steps", "greater than or equal to 1"),
        (changed(error_policy={"x": 1}), "/definition/error_policy/x", "is not known"),
        (changed(supervisor={"name": "x"}), "/definition/supervisor/name", "not permitted"),
        (changed(supervisor={"model": "x:y"}), "/definition/supervisor/model", "unknown provider"),
        (changed(agents=..., orchestration_mode="graph"), "/definition/orchestration_mode", "but it has none"),
        # What the DAG takes
        (changed(input_data={"query": 7}), "/definition/input_data/query", "not of type"),
        ({**PLAIN, "input_data": {"query": ""}}, "/definition/input_data/query", "is shorter than 1 character"),
        ({**PLAIN, "input_data": {"options": {"a/b": "x"}}}, "/definition/input_data/options/a~1b", "not of type"),
        (changed(dag_id="visual_ai_workflow"), "/definition/agents", "is not a parameter of the workflow"),
        (changed(input_data={"agents": []}), "/definition/input_data/agents", "is a key of the definition itself"),
        (changed(input_data={"_visual_ai": {}}), "/definition/input_data/_visual_ai", "is reserved"),
        # What can't be kept, or must not be seen
        (changed(input_data={"x": "a\x00b"}), "/definition/input_data/x", "NUL"),
        (changed(input_data={"x": "y" * MAX_BYTES}), "/definition", f"the limit is {MAX_BYTES}"),
        (changed(input_data=deep(60)), "/definition", "more than 50 levels"),
        (
            with_agent(type="text", system_prompt="Use sk-proj-0123456789abcdef."),
            "/definition/agents/0/system_prompt",
            "looks like a secret",
        ),
        (changed(input_data={"api_key": "hunter2"}), "/definition/input_data/api_key", "looks like a secret"),
        (
            changed(input_data={"image_url": f"data:image/png;base64,{'A' * 80}"}),
            "/definition/input_data/image_url",
            "POST /images",
        ),
    ],
)  # fmt: skip
async def test_an_invalid_definition_is_refused_with_pointers(
    http: httpx.AsyncClient, ulla: Headers, definition: Any, pointer: str, detail: str
) -> None:
    await create(http, ulla, "old")
    found = await faults(http, ulla, definition)
    assert detail in found.get(pointer, ""), found
    assert "hunter2" not in str(found)
    listed = (await http.get("/templates", headers=ulla)).json()["templates"]
    assert [(template["name"], template["latest_version"]) for template in listed] == [("old", 1)]


async def test_valid_definitions_are_accepted(http: httpx.AsyncClient, ulla: Headers) -> None:
    await create(http, ulla, "partial", {**PLAIN, "input_data": {"options": {"sizes": [1]}}})
    whole = {
        **DEFINITION,
        "model": "local:text",
        "budget": {"max_cost_usd": 0.5, "max_tokens": 100},
        "orchestration_mode": "supervisor",
        "max_steps": 4,
        "synthesis": {"system_prompt": "Be short."},
        "supervisor": {"timeout": 20, "temperature": 0},
        "error_policy": {"server": {"retries": 1}},
        "agents": [
            {
                "name": "form",
                "type": "extraction",
                "description": "Fills the form",
                "input_data": {"text": {"$input": "contract"}},
                "output_schema": {"type": "object", "properties": {"api_key": {"type": "string"}}},
                "required": False,
            }
        ],
    }
    assert (await create(http, ulla, "whole", whole))["definition"] == whole
    await create(http, ulla, "silent", changed(synthesis=False))


async def test_concurrent_versions_get_consecutive_numbers(http: httpx.AsyncClient, ulla: Headers) -> None:
    answers = await asyncio.gather(
        *(http.post("/templates", json={"name": "one", "definition": PLAIN}, headers=ulla) for _ in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    answers = await asyncio.gather(*(add(http, ulla, "one", activate=True) for _ in range(8)))
    assert sorted(answer.json()["version"] for answer in answers) == list(range(2, 10))
    versions = (await http.get("/templates/one/versions", headers=ulla)).json()["versions"]
    assert [row["version"] for row in versions if row["active"]] == [9]

    answers = await asyncio.gather(*(add(http, ulla, "one", base_version=9) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    late = problem(await add(http, ulla, "one", base_version=9), 409)
    assert late == {"/base_version": "is 9, but the latest is now 10; read it and try again"}

    paths = [f"/templates/one/versions/{version}/activate" for version in range(1, 8)] + ["/templates/one/retire"]
    answers = await asyncio.gather(*(http.post(path, headers=ulla) for path in paths * 2))
    assert {answer.status_code for answer in answers} == {200}
    versions = (await http.get("/templates/one/versions", headers=ulla)).json()["versions"]
    assert sum(row["active"] for row in versions) <= 1


async def test_the_database_rejects_changes_to_versions(http: httpx.AsyncClient, ulla: Headers, pg: Postgres) -> None:
    await create(http, ulla, "kept")
    for url in (pg.backend_url, pg.worker_url):
        with psycopg.connect(plain_url(url), autocommit=True) as connection:
            for statement in (
                "UPDATE visual_ai.workflow_templates SET definition = '{}'",
                "UPDATE visual_ai.workflow_templates SET version = 2",
                "UPDATE visual_ai.workflow_templates SET created_by = 'uwe'",
                "DELETE FROM visual_ai.workflow_templates",
                "TRUNCATE visual_ai.workflow_templates",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)


async def test_nothing_is_created_while_the_dag_can_not_be_looked_up(
    http: httpx.AsyncClient, ulla: Headers, airflow: FakeAirflow
) -> None:
    await create(http, ulla, "known")
    airflow.add_dag("later", params={})
    airflow.fail("/details")
    body = {"name": "new", "definition": {"dag_id": "later"}}
    answer = await http.post("/templates", json=body, headers=ulla)
    problem(answer, 503)
    assert answer.headers["retry-after"]
    assert (await http.get("/templates/known", headers=ulla)).status_code == 200
    assert (await http.post("/templates/known/retire", headers=ulla)).status_code == 200


async def test_the_schema_validates_definitions_in_an_editor(http: httpx.AsyncClient, ulla: Headers) -> None:
    schema = (await http.get("/templates/schema", headers=ulla)).json()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid(DEFINITION)
    assert validator.is_valid(schema["example"])
    await create(http, ulla, "example", schema["example"])
    assert not validator.is_valid(with_agent(type="oracle"))
    assert not validator.is_valid(changed(dag="x"))
    assert "sequential" in schema["properties"]["orchestration_mode"]["description"]


def test_the_schema_covers_the_operators_arguments() -> None:
    config = set(CONFIG_KEYS) - {"tools"}  # they name code
    of_one_agent = {"thread"}  # no team takes turns in a conversation
    assert set(AgentEntry.model_fields) == (AGENT_KEYS - of_one_agent) | config
    assert set(SynthesisSetup.model_fields) == set(ROLE_KEYS)
    assert set(Definition.model_fields) == {"dag_id", "description", "input_data", "model", "budget", *TEAM_ARGUMENTS}
    schema = Definition.model_json_schema()
    assert schema["$defs"]["AgentEntry"]["properties"]["type"]["anyOf"][0]["enum"] == list(AGENTS)
    assert schema["properties"]["orchestration_mode"]["anyOf"][0]["enum"] == list(MODES)
