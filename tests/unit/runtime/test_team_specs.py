"""What teams, schemas and supervisors may be set up with when a DAG is parsed, and each wrong argument by its name."""

import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from backend.core.errors.input_error import InputError
from backend.runtime.specs import MODES, parse_agent, parse_max_steps, parse_supervisor, parse_team
from visual_ai_operators import LangGraphOperator, MultiAgentOperator

SCHEMA = {"type": "object", "properties": {"total": {"type": "number"}}}


def agent(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "text", "input_data": {"text": "x"}, **more}


def test_a_team_by_dependencies() -> None:
    specs = parse_team(
        [agent("c", depends_on=["a", "b"]), agent("a"), agent("b", depends_on=("a",), description=" Reads. ")], "graph"
    )
    assert [(spec.name, spec.depends_on) for spec in specs] == [("c", ("a", "b")), ("a", ()), ("b", ("a",))]
    assert specs[2].description == "Reads."
    assert specs[2].config == {}


@pytest.mark.parametrize("mode", MODES)
def test_required_timeout_and_model_are_taken_in_each_mode(mode: str) -> None:
    argument = [agent("a", required=False, timeout=timedelta(seconds=3), model="openai:gpt-4.1"), agent("b")]
    first, second = parse_team(argument, mode, model="openai:o3")
    assert (first.required, first.timeout, first.model) == (False, 3.0, "openai:gpt-4.1")
    assert (second.required, second.timeout, second.model) == (True, None, "openai:o3")


@pytest.mark.parametrize(
    ("agents", "mode", "message"),
    [
        ([], "parallel", "agents: is empty; name at least one agent"),
        ("a", "parallel", "agents: has to be a list of agents"),
        ([agent("a")], "swarm", "orchestration_mode: is 'swarm'; it has to be one of parallel, sequential, graph, su"),
        (["a"], "graph", "agents[0]: has to be a dict, not str"),
        ([{"type": "text"}], "graph", "agents[0].name: is missing"),
        ([agent(" ")], "graph", "agents[0].name: is missing"),
        ([agent("a"), agent("a")], "graph", "agents[1].name: is 'a', which another agent has"),
        ([agent("a" * 101)], "graph", "agents[0].name: has 101 characters; 100 are the limit"),
        ([agent("a/2")], "parallel", "agents[0].name: is 'a/2'; a name can't hold a slash"),
        ([agent("supervisor")], "supervisor", "agents[0].name: is 'supervisor', which has a meaning of its own"),
        ([agent("FINISH")], "supervisor", "agents[0].name: is 'FINISH', which has a meaning of its own"),
        ([agent("a", required="no")], "graph", "agents[0].required: has to be True or False"),
        ([agent("a", timeout=0)], "graph", "agents[0].timeout: has to be a number of seconds above 0"),
        ([agent("a", description=" ")], "supervisor", "agents[0].description: has to be text of 1 to 2000"),
        ([agent("a", type="audio")], "graph", "agents[0].type: is 'audio'; it has to be one of vision, text, extra"),
        ([agent("a", temprature=1)], "graph", "agents[0]: the key “temprature” is not known"),
        ([agent("a", depends_on="b"), agent("b")], "graph", "agents[0].depends_on: has to be a list of agents' names"),
        ([agent("a", depends_on=[1])], "graph", "agents[0].depends_on: has to be a list of agents' names"),
        ([agent("a", depends_on=["b", "b"]), agent("b")], "graph", "agents[0].depends_on: names an agent twice"),
        ([agent("a"), agent("b", depends_on=["x"])], "graph", "agents[1].depends_on: names 'x', which is no agent; "),
        ([agent("a", depends_on=["a"])], "graph", "agents[0].depends_on: names 'a', the agent itself"),
        (
            [agent("x"), agent("a", depends_on=["c"]), agent("b", depends_on=["a"]), agent("c", depends_on=["b"])],
            "graph",
            "agents[1].depends_on: makes a cycle: a → c → b → a (each needs the next)",
        ),
        (
            [agent("a", depends_on=["b"]), agent("b", depends_on=["a"])],
            "{{ params.mode }}",
            "agents[0].depends_on: makes a cycle: a → b → a (each needs the next)",
        ),
        ([agent("a"), agent("b", depends_on=["a"])], "parallel", "agents[1].depends_on: is for the mode 'graph', not "),
        ([agent("a"), agent("b", depends_on=["a"])], "supervisor", "agents[1].depends_on: is for the mode 'graph', "),
        ([agent("a", output_schema=3)], "graph", "agents[0].output_schema: has to be a JSON Schema (a dict) or the pa"),
        ([agent("a", type="extraction")], "graph", "agents[0].output_schema: is missing; the agent 'extraction' needs"),
        (
            [agent("a", type="review", output_schema=SCHEMA)],
            "graph",
            "agents[0].output_schema: is given, but the output of the agent 'review' has its own form",
        ),
    ],
)
def test_invalid_team_arguments_are_rejected(agents: Any, mode: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_team(agents, mode)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("schema", [SCHEMA, "package.module:Class", "module:Outer.Inner", None])
def test_output_schemas(schema: Any) -> None:
    spec = parse_agent({"type": "text"}, None, output_schema=schema)
    assert spec.config.get("output_schema") == schema
    both = parse_agent({"type": "text", "output_schema": schema}, None, output_schema=schema)
    assert both.config.get("output_schema") == schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("package.module.Class", "is 'package.module.Class'; it has to be a JSON Schema or the path of a Pydantic mod"),
        ("module:", "is 'module:'; it has to be"),
        (":Class", "is ':Class'; it has to be"),
        ("a b:Class", "is 'a b:Class'; it has to be"),
        ("", "is ''; it has to be"),
        (InputError, "has to be a JSON Schema (a dict) or the path of a Pydantic model, package.module:Class, not Inp"),
        ([SCHEMA], "has to be a JSON Schema (a dict)"),
        ({"type": "object", "properties": {"a": {"type": "money"}}}, "is no valid JSON Schema: $.properties.a.type: "),
        ({"type": "array"}, 'has to describe an object: its "type" has to be "object"'),
        ({}, 'has to describe an object: its "type" has to be "object"'),
        ({**SCHEMA, "$ref": "https://example.com/schema"}, "refers to 'https://example.com/schema'; references have "),
        (
            {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}},
            "is no valid JSON Schema: $: Pointer '/$defs/b'",
        ),
    ],
)
def test_invalid_output_schemas_are_rejected(schema: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_agent({"type": "text"}, None, output_schema=schema)
    assert str(caught.value).startswith(f"output_schema: {message}")
    with pytest.raises(InputError) as caught:
        parse_agent({"type": "text", "output_schema": schema}, None)
    assert str(caught.value).startswith(f"agent_config.output_schema: {message}")


def test_two_different_output_schemas_are_rejected() -> None:
    with pytest.raises(InputError, match=r"^output_schema: is another one than that of agent_config"):
        parse_agent({"type": "text", "output_schema": SCHEMA}, None, output_schema="a:B")


@pytest.mark.parametrize(("value", "steps"), [(None, 8), (1, 1), ("12", 12), (200, 200)])
def test_max_steps(value: Any, steps: int) -> None:
    assert parse_max_steps(value, "supervisor", agents=3) == steps


@pytest.mark.parametrize(
    ("value", "mode", "message"),
    [
        (0, "supervisor", "max_steps: has to be a whole number from 1 to 200"),
        (201, "{{ params.mode }}", "max_steps: has to be a whole number from 1 to 200"),
        (True, "supervisor", "max_steps: has to be a whole number"),
        (1.5, "supervisor", "max_steps: has to be a whole number"),
        ("many", "supervisor", "max_steps: has to be a whole number"),
        (5, "graph", "max_steps: is for the mode 'supervisor', not 'graph'"),
    ],
)
def test_invalid_max_steps_are_rejected(value: Any, mode: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_max_steps(value, mode, agents=3)
    assert str(caught.value).startswith(message)


def test_a_supervisor_can_be_configured() -> None:
    spec = parse_supervisor({"model": "openai:o3", "system_prompt": "Be quick.", "timeout": 5}, model="openai:gpt-4.1")
    assert (spec.name, spec.type, spec.model, spec.timeout) == ("supervisor", "supervisor", "openai:o3", 5.0)
    assert parse_supervisor(None, model="openai:gpt-4.1").model == "openai:gpt-4.1"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("gpt", "supervisor: has to be a dict, not str"),
        ({"type": "text"}, "supervisor: can't set 'type'"),
        ({"temprature": 1}, "supervisor: the key “temprature” is not known"),
        ({"timeout": -1}, "supervisor.timeout: has to be a number of seconds above 0"),
        ({"output_schema": SCHEMA}, "supervisor.output_schema: is given, but"),
    ],
)
def test_invalid_supervisor_arguments_are_rejected(argument: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_supervisor(argument)
    assert str(caught.value).startswith(message)


def test_operators_check_when_the_dag_is_parsed() -> None:
    with pytest.raises(InputError, match=r"^output_schema: has to describe an object"):
        LangGraphOperator(task_id="t", agent_config={"type": "text"}, output_schema={"type": "string"})
    with pytest.raises(InputError, match="lacks 'text or image_url', which the agent 'extraction' needs"):
        LangGraphOperator(
            task_id="t", agent_config={"type": "extraction"}, input_data={"query": "?"}, output_schema=SCHEMA
        )
    with pytest.raises(InputError, match=r"^agents\[0\]\.depends_on: makes a cycle: a → b → a"):
        MultiAgentOperator(
            task_id="t",
            agents=[agent("a", depends_on=["b"]), agent("b", depends_on=["a"])],
            orchestration_mode="graph",
        )
    with pytest.raises(InputError, match=r"^max_steps: is for the mode 'supervisor'"):
        MultiAgentOperator(task_id="t", agents=[agent("a")], max_steps=3)
    with pytest.raises(InputError, match=r"^supervisor: the key “speed” is not known"):
        MultiAgentOperator(task_id="t", agents=[agent("a")], supervisor={"speed": 1})


def test_templated_arguments_are_checked_when_the_task_runs() -> None:
    operator = MultiAgentOperator(
        task_id="t",
        agents=[agent("a"), agent("b", depends_on=["a"], input_data={})],
        orchestration_mode="{{ params.orchestration_mode }}",
        max_steps="{{ params.steps }}",
    )
    assert {"agents", "orchestration_mode", "supervisor", "max_steps"} <= set(operator.template_fields)
    single = LangGraphOperator(task_id="s", agent_config={"type": "text"}, output_schema="{{ params.schema }}")
    assert "output_schema" in single.template_fields


def test_specs_are_light_to_import_and_to_use() -> None:
    heavy = ("langchain", "langchain_core", "langgraph", "PIL", "numpy", "httpx", "sqlalchemy")
    code = (
        "import sys\nfrom backend.runtime.specs import parse_team\n"
        "print([m for m in ('pydantic', 'jsonschema') if m in sys.modules])\n"
        "parse_team([{'name': 'a', 'type': 'text', 'output_schema': {'type': 'object'}}], 'graph')\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]
