"""The review and supervisor agents without a hosted model, and the input that they refuse."""

from typing import Any

import pytest

from backend.agents import review, supervisor
from backend.agents.config import AgentDeps
from backend.agents.registry import get_agent
from backend.core.errors.input_error import InputError
from backend.core.settings import Settings
from backend.models.offline.text import LocalText

SETTINGS = Settings(_env_file=None)
DEPS = AgentDeps(SETTINGS, offline=True)
TEXT = "The harbour was quiet. Two ships lay at anchor. The third had left at dawn for the north."


async def run(kind: str, given: dict[str, Any], *, offline: bool = True) -> dict[str, Any]:
    graph = get_agent(kind).build({}, LocalText(), AgentDeps(SETTINGS, offline=offline)).compile()
    output: dict[str, Any] = await graph.ainvoke(given)
    return output


async def test_a_review_offline_compares_words_and_says_so() -> None:
    criteria = ["It mentions the ships.", "It names the captain and the ship."]
    output = await run("review", {"subject": TEXT, "criteria": criteria})
    assert [(one["criterion"], one["ok"]) for one in output["findings"]] == [
        ("It is not empty.", True),
        ("It has at least 5 words.", True),
        ("It mentions the ships.", False),
        ("It names the captain and the ship.", False),
    ]
    assert output["findings"][2]["comment"] == "Not in the text: mentions. Only words were compared."
    assert "captain" in output["findings"][3]["comment"]
    assert (output["verdict"], output["score"]) == ("revise", 0.5)
    assert (output["offline"], output["notice"]) == (True, review.NOTICE)


async def test_a_review_offline_approves_what_passes() -> None:
    results = {"reader": {"answer": TEXT}, "counter": {"ships": 3}}
    output = await run("review", {"results": results, "criteria": ["harbour", "dawn"]})
    assert (output["verdict"], output["score"]) == ("approve", 1.0)
    assert len(output["findings"]) == 4


@pytest.mark.parametrize("offline", [True, False])
async def test_nothing_to_review_is_rejected_without_a_model(offline: bool) -> None:
    output = await run("review", {"subject": "  "}, offline=offline)
    assert (output["verdict"], output["score"], output["offline"]) == ("reject", 0.0, offline)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "subject: is missing; the agent needs it, or text, or results"),
        ({"subject": 5}, "subject: has to be text, not int"),
        ({"results": [1]}, "results: has to hold the result of at least one agent"),
        ({"subject": TEXT, "criteria": "short"}, "criteria: has to be a list of texts"),
        ({"subject": TEXT, "criteria": [""]}, "criteria: has to be a list of texts"),
        ({"subject": TEXT, "criteria": ["x"] * 51}, "criteria: has 51 entries, more than the limit of 50"),
    ],
)
async def test_a_review_names_the_wrong_field(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        await run("review", given)
    assert str(caught.value).startswith(message)


def test_one_of_several_fields_is_enough() -> None:
    definition = get_agent("review")
    definition.check_input({"text": ""})
    definition.check_input({"results": {"a": 1}})
    with pytest.raises(InputError, match=r"^subject: is missing; the review agent needs it, or text, or results"):
        definition.check_input({})
    with pytest.raises(InputError, match=r"^text: is blank; the extraction agent needs it, or image_url"):
        get_agent("extraction").check_input({"text": " "})
    assert definition.lacks({"criteria": []}) == "subject or text or results"
    assert definition.lacks({"subject": ""}) is None


def test_extraction_asks_for_vision_only_with_a_picture() -> None:
    definition = get_agent("extraction")
    assert definition.purpose_for({"text": "x"}) == "text"
    assert definition.purpose_for({"text": "x", "image_url": "https://example.com/a.png"}) == "vision"
    assert get_agent("vision").purpose_for({}) == "vision"
    assert get_agent("text").purpose_for({"image_url": "https://example.com/a.png"}) == "text"


async def test_an_offline_supervisor_calls_every_agent_in_turn() -> None:
    agents = {"a": "reads", "b": "writes"}
    chosen = [(await run("supervisor", {"agents": agents, "called": called}))["next"] for called in ([], ["a"])]
    last = await run("supervisor", {"agents": agents, "called": ["a", "b"]})
    assert [*chosen, last["next"]] == ["a", "b", "FINISH"]
    assert (last["offline"], last["notice"], last["instruction"]) == (True, supervisor.NOTICE, None)
    assert (await run("supervisor", {"agents": ["x"]}))["next"] == "x"


@pytest.mark.parametrize("agents", [None, {}, [], "a", {"FINISH": ""}, {"": "x"}])
async def test_a_supervisor_needs_agents(agents: Any) -> None:
    with pytest.raises(InputError, match=r"^agents: "):
        await run("supervisor", {"agents": agents})
