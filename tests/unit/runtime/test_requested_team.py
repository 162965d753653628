"""Teams that requests bring: what they may say, that they name no code, and what each agent gets of a run's input."""

from typing import Any

import pytest

from backend.core.errors.input_error import InputError
from backend.core.settings import get_settings
from backend.runtime.requested_team import check_team, plan_agents
from tests.unit.runtime.test_team_specs import SCHEMA

PROJECT = "tests/projects/five_steps/langgraph.json"


def agent(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "text", **more}


def test_a_saved_team_may_not_have_jinja_in_its_input() -> None:
    team = {"agents": [agent("a", input_data={"text": "{{ dag_run.conf.text }}"})]}
    check_team(team)
    with pytest.raises(InputError, match=r"agents\[0\].input_data: holds Jinja"):
        check_team(team, kept=True)


def fault(**argument: Any) -> str:
    with pytest.raises(InputError) as refused:
        check_team(argument)
    return str(refused.value)


def test_a_team_with_every_kind_of_argument() -> None:
    team = check_team(
        {
            "agents": [
                agent("a", description="Reads."),
                agent("b", type="extraction", output_schema=SCHEMA, error_policy={"rate_limit": {"retries": 1}}),
            ],
            "orchestration_mode": "supervisor",
            "max_steps": 7,
            "supervisor": {"model": "openai:gpt-4.1", "system_prompt": "Lead."},
            "synthesis": {"model": "local:text", "output_schema": SCHEMA},
            "error_policy": {"server": {"fallback": False}},
        }
    )
    assert [spec.name for spec in team.specs] == ["a", "b"]
    assert (team.mode, team.max_steps, team.supervisor.model) == ("supervisor", 7, "openai:gpt-4.1")
    assert team.synthesis is not None
    assert team.synthesis.config["output_schema"] == SCHEMA
    assert team.specs[1].error_policy == {"server": {"fallback": False}, "rate_limit": {"retries": 1}}
    assert check_team({"agents": [agent("a")], "synthesis": False}).synthesis is None


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"agents": [agent("a"), agent("a")]}, "agents[1].name: is 'a', which another agent has"),
        (
            {"agents": [agent("a", depends_on=["b"]), agent("b", depends_on=["a"])], "orchestration_mode": "graph"},
            "agents[0].depends_on: makes a cycle: a → b → a",
        ),
        ({"agents": [agent("a")], "max_steps": 3}, "max_steps: is for the mode 'supervisor', not 'parallel'"),
        ({"agents": [agent("a")], "synthesis": {"name": "x"}}, "synthesis: can't set 'name'"),
        ({"agents": [agent("a", model="opnai:gpt-4.1")]}, "agents[0].model: “opnai:gpt-4.1” names the unknown"),
        ({"agents": [agent("a")], "synthesis": {"model": "x:y"}}, "synthesis.model: “x:y” names the unknown"),
        ({"agents": [agent("a")], "supervisor": {"model": "x:y"}}, "supervisor.model: “x:y” names the unknown"),
        ({"agents": [agent("a", error_policy={"quotas": {}})]}, "agents[0].error_policy.quotas: is not known"),
        # No code
        ({"agents": [{"name": "a", "graph": "os:system"}]}, "agents[0].graph: names code, which is for DAG files"),
        (
            {"agents": [{"name": "a", "graph": "memory"}]},
            "agents[0].graph: 'memory' is a name in a langgraph.json, but none is set",
        ),
        ({"agents": [agent("a", output_schema="antigravity:X")]}, "agents[0].output_schema: names code"),
        (
            {"agents": [agent("a")], "synthesis": {"output_schema": "antigravity:X"}},
            "synthesis.output_schema: names code",
        ),
        # No Jinja, which would pass by the checks
        ({"agents": [agent("{{ a }}")]}, "agents[0].name: holds Jinja"),
        ({"agents": [agent("a", type="{{ x }}")]}, "agents[0].type: holds Jinja"),
        ({"agents": [agent("a", system_prompt="{% if x %}")]}, "agents[0].system_prompt: holds Jinja"),
        ({"agents": [agent("a", depends_on=["{{ x }}"])]}, "agents[0].depends_on: holds Jinja"),
        ({"agents": [agent("a", context={"{{ x }}": 1})]}, "agents[0].context: holds Jinja"),
        ({"agents": [agent("a")], "orchestration_mode": "{{ x }}"}, "orchestration_mode: holds Jinja"),
        ({"agents": [agent("a")], "supervisor": {"timeout": "{{ x }}"}}, "supervisor: holds Jinja"),
        ({"agents": [agent("a")], "max_steps": "{{ x }}"}, "max_steps: holds Jinja"),
        # References
        ({"agents": [agent("a", input_data={"text": {"$input": 1}})]}, "agents[0].input_data.text: has to read"),
        ({"agents": [agent("a", input_data={"x": [{"$input": "a.b"}]})]}, "agents[0].input_data.x[0]: has to read"),
        (
            {"agents": [agent("a", input_data={"text": {"$input": "x", "default": 1}})]},
            "agents[0].input_data.text: has to read",
        ),
    ],
)
def test_invalid_teams_are_rejected(argument: dict[str, Any], message: str) -> None:
    assert fault(**argument).startswith(message)


def test_a_named_graph_of_the_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL_AI_LANGGRAPH_JSON", PROJECT)
    get_settings.cache_clear()
    try:
        argument: dict[str, Any] = {
            "agents": [{"name": "mine", "graph": "five_steps"}],
            "question": "Why?",
            "_visual_ai": {},
            "text": None,
        }
        assert plan_agents(argument)[0]["input_data"] == {"question": "Why?"}
        own = {"name": "mine", "graph": "five_steps", "input_data": {"topic": {"$input": "question"}}}
        assert plan_agents({**argument, "agents": [own]})[0]["input_data"] == {"topic": "Why?"}
        assert "there is no 'other'" in fault(agents=[{"name": "mine", "graph": "other"}])
    finally:
        get_settings.cache_clear()


def test_agents_receive_their_share_of_the_input() -> None:
    agents = [
        agent("plain"),
        agent("own", input_data={"text": {"$input": "contract"}, "parts": [{"of": {"$input": "order"}}, 1]}),
        agent("literal", input_data={"text": "{{ not rendered }}"}),
    ]
    order = {"$input": "contract", "id": 7}  # a run's own input is data, whatever it looks like
    argument = {"agents": agents, "query": "Why?", "text": "A text.", "image_url": " ", "contract": "C", "order": order}
    assert [entry["input_data"] for entry in plan_agents(argument)] == [
        {"query": "Why?", "text": "A text."},
        {"query": "Why?", "text": "C", "parts": [{"of": order}, 1]},
        {"query": "Why?", "text": "{{ not rendered }}"},
    ]


@pytest.mark.parametrize(
    ("agents", "mode", "message"),
    [
        (
            [agent("a", input_data={"text": {"$input": "contract"}})],
            "parallel",
            "contract: is missing; agents[0].input",
        ),
        ([agent("a")], "parallel", "text: is missing; the text agent needs it"),
        ([agent("a", input_data={"text": "x"}), agent("b")], "graph", "text: is missing"),
        ([agent("a"), agent("b")], "sequential", "text: is missing"),
    ],
)
def test_missing_input_is_named(agents: list[Any], mode: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        plan_agents({"agents": agents, "orchestration_mode": mode, "query": "Why?"})
    assert str(refused.value).startswith(message)


def test_input_that_earlier_agents_may_provide_is_not_required() -> None:
    first = agent("a", input_data={"text": "x"})
    plan_agents({"agents": [first, agent("b")], "orchestration_mode": "sequential"})
    plan_agents({"agents": [first, agent("b", depends_on=["a"])], "orchestration_mode": "graph"})
