"""What a task asks of its agents: each wrong argument is named when the DAG is parsed."""

from datetime import timedelta
from typing import Any

import pytest

from backend.core.errors.input_error import InputError
from backend.runtime.spec_values import is_template, without_ellipsis
from backend.runtime.specs import parse_agent, parse_team

FOREIGN = "tests.kit.graphs.foreign"


@pytest.mark.parametrize(
    ("arguments", "field", "message"),
    [
        ({"agent_config": None}, "agent_config", "is missing"),
        ({"agent_config": "vision"}, "agent_config", "not str"),
        ({"agent_config": {1: 2}}, "agent_config", "no string"),
        ({"agent_config": {}}, "agent_config.type", "one of vision, text, extraction"),
        ({"agent_config": {"type": None}}, "agent_config.type", "is missing"),
        ({"agent_config": {"type": "visoin"}}, "agent_config.type", "'visoin'"),
        ({"agent_config": {"type": "text", "temprature": 1}}, "agent_config", "temprature"),
        ({"agent_config": {"type": "text", "temperature": 3}}, "agent_config", "temperature"),
        ({"agent_config": {"type": "text", "max_tokens": 0}}, "agent_config", "max_tokens"),
        ({"agent_config": {"type": "text", "system_prompt": ""}}, "agent_config", "system_prompt"),
        ({"agent_config": {"type": "text", "streaming": "no"}}, "agent_config", "streaming has to be true or false"),
        ({"agent_config": {"type": "extraction", "output_schema": {"type": "object"}, "output_method": "xml"}},
         "agent_config", "output_method has to be one of json_schema, function_calling, json_mode, prompt"),
        ({"agent_config": {"type": "text", "output_method": "prompt"}}, "agent_config.output_method", "output_schema"),
        ({"agent_config": {"streaming": False}, "graph": f"{FOREIGN}:builder"}, "agent_config.streaming", "built-in"),
        ({"input_data": "hello"}, "input_data", "has to be a dict"),
        ({"input_data": ["a"]}, "input_data", "not list"),
        ({"model": 5}, "model", "a model's name"),
        ({"timeout": 0}, "timeout", "above 0"),
        ({"timeout": -1.5}, "timeout", "above 0"),
        ({"timeout": True}, "timeout", "above 0"),
        ({"timeout": "soon"}, "timeout", "above 0"),
        ({"timeout": float("nan")}, "timeout", "above 0"),
        ({"timeout": timedelta(0)}, "timeout", "above 0"),
    ],
)  # fmt: skip
def test_a_wrong_argument_of_one_agent(arguments: dict[str, Any], field: str, message: str) -> None:
    argument = {"agent_config": {"type": "text"}, "input_data": None, **arguments}
    with pytest.raises(InputError) as raised:
        parse_agent(**argument)
    assert raised.value.field == field
    assert message in raised.value.message


GOOD = {"name": "a", "type": "text"}


@pytest.mark.parametrize(
    ("agents", "mode", "field", "message"),
    [
        ([GOOD], "paralel", "orchestration_mode", "'paralel'"),
        ([GOOD], None, "orchestration_mode", "one of parallel, sequential"),
        (None, "parallel", "agents", "a list"),
        ("text", "parallel", "agents", "a list"),
        (GOOD, "parallel", "agents", "a list"),
        ([], "parallel", "agents", "at least one"),
        (["text"], "parallel", "agents[0]", "has to be a dict"),
        ([GOOD, {"type": "text"}], "parallel", "agents[1].name", "is missing"),
        ([GOOD, {"name": " ", "type": "text"}], "parallel", "agents[1].name", "is missing"),
        ([GOOD, {"name": 3, "type": "text"}], "parallel", "agents[1].name", "is missing"),
        ([GOOD, GOOD], "parallel", "agents[1].name", "unique"),
        ([GOOD, {"name": "b"}], "parallel", "agents[1].type", "is missing"),
        ([GOOD, {"name": "b", "type": "?"}], "parallel", "agents[1].type", "'?'"),
        ([{**GOOD, "required": "no"}], "parallel", "agents[0].required", "True or False"),
        ([{**GOOD, "timeout": -1}], "parallel", "agents[0].timeout", "above 0"),
        ([{**GOOD, "input_data": 1}], "parallel", "agents[0].input_data", "has to be a dict"),
        ([{**GOOD, "model": 1}], "parallel", "agents[0].model", "a model's name"),
        ([{**GOOD, "tone": "warm"}], "parallel", "agents[0]", "tone"),
    ],
)
def test_a_wrong_argument_of_a_team(agents: Any, mode: Any, field: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_team(agents, mode)
    assert raised.value.field == field
    assert message in raised.value.message


def test_one_agent() -> None:
    spec = parse_agent(
        {"type": "vision", "temperature": 0.5}, {"image_url": "x"}, model="gpt-4.1", timeout=timedelta(minutes=2)
    )
    assert (spec.name, spec.type, spec.model, spec.timeout) == ("vision", "vision", "gpt-4.1", 120.0)
    assert (spec.config, spec.input_data, spec.required) == ({"temperature": 0.5}, {"image_url": "x"}, True)


def test_a_team() -> None:
    argument: list[dict[str, Any]] = [
        {"name": "eyes", "type": "vision", "required": False, "timeout": 5, "temperature": 0, "model": "own"},
        {"name": "words", "type": "text", "input_data": {"text": "t"}},
    ]
    before = [dict(entry) for entry in argument]
    eyes, words = parse_team(argument, "sequential", model="shared")
    assert argument == before
    assert (eyes.name, eyes.required, eyes.timeout, eyes.model) == ("eyes", False, 5.0, "own")
    assert (eyes.config, eyes.input_data) == ({"temperature": 0}, None)
    assert (words.required, words.model, words.input_data) == (True, "shared", {"text": "t"})


def test_templates_are_left_for_the_run() -> None:
    spec = parse_agent({"type": "{{ params.kind }}", "temperature": "{{ params.heat }}"}, {"text": "{{ params.t }}"})
    assert spec.type == "{{ params.kind }}"
    assert parse_agent({"type": "text", "temperature": "{{ params.heat }}"}, None).config["temperature"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{{ a }}", True), ("{% if a %}", True), ({"a": ["{{ b }}"]}, True), (("{{ b }}",), True),
        ("{ a }", False), ({"a": 1}, False), (None, False), (3, False),
    ],
)  # fmt: skip
def test_templates_are_recognized(value: Any, expected: bool) -> None:
    assert is_template(value) is expected


def test_an_ellipsis_stands_for_the_runs_input() -> None:
    assert without_ellipsis(...) is None
    assert without_ellipsis({...}) is None
    assert without_ellipsis({"text": "..."}) == {"text": "..."}
