"""Every key of an agent in every place where it can stand: it is accepted where it acts, and refused elsewhere.

What the accepted ones do is in `tests/integration/runtime/test_agent_keys.py`.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import count
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException

from backend.agents.config_keys import CONFIG_KEYS
from backend.models.options import OPTIONS
from backend.runtime.spec_keys import AGENT_KEYS, OPERATOR_ARGUMENTS
from visual_ai_decorators import langgraph_task
from visual_ai_operators import LangGraphOperator, MultiAgentOperator

TEXT = {"type": "text"}
GRAPH = "package.module:graph"
SCHEMA = {"type": "object", "properties": {"total": {"type": "number"}}}
NUMBERS = count()


@pytest.fixture(autouse=True)
def dag() -> Iterator[DAG]:
    """The DAG that the operators of a test belong to."""
    with DAG("test", schedule=None, start_date=datetime(2024, 1, 1)) as dag:
        yield dag


def single(**arguments: Any) -> LangGraphOperator:
    return LangGraphOperator(task_id=f"task_{next(NUMBERS)}", **arguments)


def team(**arguments: Any) -> MultiAgentOperator:
    return MultiAgentOperator(**{"task_id": f"task_{next(NUMBERS)}", "agents": [{"name": "a", **TEXT}], **arguments})


def entry(key: str, value: Any, **agent: Any) -> MultiAgentOperator:
    agents: list[dict[str, Any]] = [{"name": "z", **TEXT}, {"name": "a", **agent, key: value}]
    if key == "depends_on":
        return team(agents=agents, orchestration_mode="graph")
    return team(agents=agents)


def decorated(**arguments: Any) -> Any:
    return langgraph_task(lambda: {"text": "a"}, task_id=f"task_{next(NUMBERS)}", **arguments)()


PLACES: dict[str, Callable[[str, Any], Any]] = {
    "agent_config": lambda key, value: single(agent_config={**TEXT, key: value}),
    "argument": lambda key, value: single(agent_config=TEXT, **{key: value}),
    "batch": lambda key, value: single(agent_config={**TEXT, key: value}, inputs=[{"text": "a"}]),
    "decorator": lambda key, value: decorated(agent_config={**TEXT, key: value}),
    "graph's config": lambda key, value: single(agent_config={"graph": GRAPH, key: value}),
    "beside the graph": lambda key, value: single(**{"graph": GRAPH, key: value}),
    "entry": lambda key, value: entry(key, value, **TEXT),
    "graph's entry": lambda key, value: entry(key, value, graph=GRAPH),
    "synthesis": lambda key, value: team(synthesis={key: value}),
    "supervisor": lambda key, value: team(supervisor={key: value}, orchestration_mode="supervisor"),
    "team's argument": lambda key, value: team(**{key: value}),
}

ALONE = {"agent_config", "batch", "decorator"}
BUILT_IN = ALONE | {"entry"}
OWN = {"graph's config", "graph's entry"}
ROLES = {"synthesis", "supervisor"}
ARGUMENTS = {"argument", "beside the graph"}

ACTS: dict[str, tuple[Any, set[str]]] = {
    "name": ("own", BUILT_IN | OWN),
    "type": ("text", BUILT_IN),
    "graph": (GRAPH, OWN | {"beside the graph"}),
    "input_data": ({"text": "a"}, (BUILT_IN | OWN | ARGUMENTS) - {"decorator"}),
    "model": ("openai:gpt-4o", BUILT_IN | ROLES | {"argument", "team's argument"}),
    "timeout": (5, BUILT_IN | OWN | ROLES | ARGUMENTS),
    "error_policy": ({"rate_limit": {"retries": 1}}, BUILT_IN | OWN | ROLES | ARGUMENTS | {"team's argument"}),
    "output_mapping": ({"said": "answer"}, BUILT_IN | OWN | ARGUMENTS),
    "required": (False, {"entry", "graph's entry"}),
    "depends_on": (["z"], {"entry", "graph's entry"}),
    "description": ("Reads.", {"entry", "graph's entry"}),
    "context": ({"language": "en"}, OWN | {"beside the graph"}),
    "configurable": ({"step": 1}, OWN | {"beside the graph"}),
    "config": ({"recursion_limit": 9}, OWN | {"beside the graph"}),
    "thread": ("ann", {"graph's config", "beside the graph"}),
    "output_schema": (SCHEMA, BUILT_IN | {"argument", "synthesis"}),
    "tools": (["package.module:tool"], BUILT_IN),
    "output_method": ("json_mode", {"supervisor"}),  # and wherever there is an output_schema
    **{
        key: (value, BUILT_IN | ROLES)
        for key, value in {
            "system_prompt": "Be brief.",
            "temperature": 0.5,
            "max_tokens": 7,
            "max_completion_tokens": 7,
            "on_incomplete": "accept",
            "streaming": False,
            "top_p": 0.5,
            "top_k": 3,
            "seed": 7,
            "stop": ["END"],
            "presence_penalty": 1,
            "frequency_penalty": -1,
            "logit_bias": {"50256": -100},
            "reasoning_effort": "low",
            "reasoning": {"effort": "low"},
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "verbosity": "low",
            "service_tier": "flex",
            "num_ctx": 8192,
            "num_predict": 9,
            "repeat_penalty": 1.1,
            "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
        }.items()
    },
    "llm_conn_id": ("models", {"argument", "team's argument"}),
    "budget": ({"max_tokens": 5}, ARGUMENTS | {"team's argument"}),
    "inputs": ([{"text": "a"}], ARGUMENTS),
}
"""Each key, a value for it, and the places where it has an effect."""


@pytest.mark.parametrize("place", sorted(BUILT_IN))
def test_a_way_to_structured_answers_needs_a_schema(place: str) -> None:
    assert PLACES[place]("output_schema", SCHEMA)
    with pytest.raises(ValueError, match=r"output_method: needs an output_schema"):
        PLACES[place]("output_method", "prompt")
    assert single(agent_config={**TEXT, "output_method": "prompt"}, output_schema=SCHEMA)


def test_the_table_has_every_key() -> None:
    assert ACTS.keys() >= {*AGENT_KEYS, *CONFIG_KEYS}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", ACTS)
def test_a_key_is_accepted_where_it_acts_and_refused_elsewhere(key: str, place: str) -> None:
    value, acts_in = ACTS[key]
    if place in acts_in:
        assert PLACES[place](key, value)
        return
    with pytest.raises(ValueError, match=r"^[a-z_]+[^:]*: .{20}") as refused:
        PLACES[place](key, value)
    named, _, message = str(refused.value).partition(": ")
    assert key in named or key in message


@pytest.mark.parametrize(
    ("place", "key", "message"),
    [
        ("agent_config", "required", "agent_config.required: is for the agents of a team. To let the tasks after this"),
        (
            "agent_config",
            "depends_on",
            "agent_config.depends_on: is for the agents of a MultiAgentOperator in the mode",
        ),
        (
            "argument",
            "depends_on",
            "depends_on: is for the agents of a MultiAgentOperator in the mode 'graph'; put tas",
        ),
        (
            "agent_config",
            "context",
            "agent_config.context: is for a graph of one's own (graph=…); a built-in agent get",
        ),
        ("argument", "configurable", "configurable: is for a graph of one's own (graph=…); a built-in agent gets what"),
        ("entry", "configurable", "agents[1].configurable: is for a graph of one's own (graph=…)"),
        ("agent_config", "llm_conn_id", "agent_config.llm_conn_id: is an argument of the operator: write llm_conn_id="),
        ("entry", "budget", "agents[1].budget: is an argument of the operator: write budget=… beside agents"),
        (
            "beside the graph",
            "llm_conn_id",
            "llm_conn_id: is for built-in agents; a graph of one's own makes its model",
        ),
        (
            "beside the graph",
            "model",
            "model: is not for a graph of one's own, which makes its models itself; pass the",
        ),
        ("graph's entry", "model", "agents[1].model: is not for a graph of one's own, which makes its models itself"),
        (
            "graph's config",
            "temperature",
            "agent_config.temperature: is for built-in agents: a graph of one's own does",
        ),
        (
            "argument",
            "temperature",
            "temperature: is no argument of this operator, but a key of its agent: agent_config=",
        ),
        (
            "team's argument",
            "timeout",
            "timeout: is no argument of this operator, but a key of its agents: agents=[{",
        ),
        ("team's argument", "inputs", "inputs: is an argument of LangGraphOperator only"),
        (
            "synthesis",
            "depends_on",
            "synthesis: can't set 'depends_on'; it takes model, timeout, error_policy, system_",
        ),
        ("decorator", "input_data", "agent_config.input_data: is what the function returns; return it there"),
    ],
)
def test_a_refusal_names_the_place_and_the_remedy(place: str, key: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        PLACES[place](key, ACTS[key][0])
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        # Two places that disagree
        (
            lambda: single(agent_config={**TEXT, "model": "openai:gpt-4o"}, model="openai:o3"),
            "model: is another one than that of agent_config; give it once",
        ),
        (lambda: single(agent_config={**TEXT, "timeout": 5}, timeout=6), "timeout: is another one than that of"),
        (
            lambda: single(agent_config={**TEXT, "input_data": {"text": "a"}}, input_data={"text": "b"}),
            "input_data: is another one than that of",
        ),
        (lambda: single(agent_config={"graph": GRAPH}, graph="package.module:other"), "graph: is another one than"),
        (
            lambda: single(agent_config={"context": {"a": 1}}, graph=GRAPH, context={"a": 2}),
            "context: is another one than",
        ),
        (
            lambda: single(agent_config={**TEXT, "max_tokens": 5, "max_completion_tokens": 6}),
            "agent_config: max_tokens and max_completion_tokens say the same; give one of them",
        ),
        (
            lambda: single(agent_config={**TEXT, "seed": 1, "extra_body": {"seed": 2}}),
            "agent_config: extra_body has 'seed', which stands beside it as well; give it once",
        ),
        # Wrong values
        (lambda: single(agent_config={**TEXT, "model": 5}), "agent_config.model: has to be a model's name, such as"),
        (lambda: single(agent_config={**TEXT, "model": "gtp:4"}), "agent_config.model: “gtp:4” names the unknown pro"),
        (lambda: single(agent_config=TEXT, model="local:poem"), "model: there is no “local:poem”"),
        (lambda: single(agent_config={**TEXT, "timeout": "soon"}), "agent_config.timeout: has to be a number of sec"),
        (lambda: single(agent_config={**TEXT, "timeout": 1e300}), "agent_config.timeout: has to be a number of sec"),
        (lambda: single(agent_config={**TEXT, "name": "a/b"}), "agent_config.name: is 'a/b'; a name can't hold a sl"),
        (lambda: single(agent_config={**TEXT, "name": 5}), "agent_config.name: is missing; every agent has a name"),
        (lambda: single(agent_config={**TEXT, "name": "a" * 101}), "agent_config.name: has 101 characters; 100 are"),
        (lambda: single(agent_config={**TEXT, "input_data": ["a"]}), "agent_config.input_data: has to be a dict, not"),
        (
            lambda: single(agent_config={**TEXT, "input_data": {"query": "?"}}),
            "agent_config.input_data: lacks 'text', which the agent 'text' needs",
        ),
        (lambda: single(agent_config={**TEXT, "output_mapping": {"a": 1}}), "agent_config.output_mapping: has to map"),
        (
            lambda: single(agent_config={**TEXT, "error_policy": {"server": {"retires": 1}}}),
            "agent_config.error_policy.server.retires: is not known",
        ),
        # Options
        (lambda: single(agent_config={**TEXT, "top_p": 2}), "agent_config: top_p has to be a number from 0 to 1"),
        (lambda: single(agent_config={**TEXT, "seed": 2**63}), "agent_config: seed has to be a whole number of 64"),
        (lambda: single(agent_config={**TEXT, "seed": 1.5}), "agent_config: seed has to be a whole number"),
        (lambda: single(agent_config={**TEXT, "stop": []}), "agent_config: stop has to be text or a list of texts"),
        (lambda: single(agent_config={**TEXT, "reasoning_effort": 3}), "agent_config: reasoning_effort has to be tex"),
        (
            lambda: single(agent_config={**TEXT, "extra_body": {"model": "openai:o3-pro"}}),
            "agent_config: extra_body has to be a dict without 'model', which the product sets itself",
        ),
        (
            lambda: single(agent_config={**TEXT, "top_k": 5}, model="gpt-4o"),
            "agent_config: top_k is not known to models of openai (langchain-openai), which take temperature, max_to",
        ),
        (
            lambda: team(agents=[{"name": "a", **TEXT, "seed": 5, "model": "anthropic:claude-sonnet-5"}]),
            "agents[0]: seed is not known to models of anthropic (langchain-anthropic)",
        ),
        (
            lambda: team(agents=[{"name": "a", **TEXT, "extra_body": {}, "seed": 5}], model="anthropic:claude"),
            "agents[0]: extra_body is not known to models of anthropic",
        ),
        (
            lambda: single(agent_config={**TEXT, "reasoning": True}, model="openai:gpt-5"),
            "agent_config: reasoning has to be a dict",
        ),
        # Misspelt
        (lambda: single(agent_config={**TEXT, "modle": "a"}), "agent_config: the key “modle” is not known; allowed"),
        (lambda: team(agents=[{"name": "a", **TEXT, "depend_on": []}]), "agents[0]: the key “depend_on” is not known"),
        (lambda: single(agent_config=TEXT, output_shema=SCHEMA), "output_shema: is not known; did you mean 'output_"),
        (lambda: single(agent_confg=TEXT), "agent_confg: is not known; did you mean 'agent_config'?"),
        (lambda: team(orchestration="graph"), "orchestration: is not known; did you mean 'orchestration_mode'?"),
        # What can't act beside something else
        (lambda: single(agent_config=TEXT, results_path="a"), "results_path: is for a batch; give its inputs=[…]"),
        (lambda: single(agent_config=TEXT, on_item_error="continue"), "on_item_error: is for a batch"),
        (lambda: single(agent_config=TEXT, max_concurrency=3), "max_concurrency: is for a batch"),
        (lambda: team(supervisor={"model": "openai:o3"}), "supervisor: is for the mode 'supervisor', not 'parallel'"),
        (
            lambda: team(agents=[{"name": "a", "graph": GRAPH}], synthesis=False, model="openai:o3"),
            "model: is not for a graph of one's own",
        ),
        (
            lambda: team(agents=[{"name": "a", "graph": GRAPH}], synthesis=False, llm_conn_id="models"),
            "llm_conn_id: is for built-in agents",
        ),
        (
            lambda: single(graph=GRAPH, error_policy={"fallbacks": ["openai:o3"]}),
            "error_policy.fallbacks: is for built-in agents: a graph of one's own makes its models itself, and takes",
        ),
        (
            lambda: team(agents=[{"name": "a", "graph": GRAPH, "error_policy": {"server": {"fallback": True}}}]),
            "agents[0].error_policy.server.fallback: is for built-in agents",
        ),
        (lambda: decorated(agent_config=TEXT, input_data={"text": "a"}), "input_data: is what the function returns"),
    ],
)
def test_what_cannot_act_is_refused_when_the_dag_is_parsed(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        make()
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("modle", "model"), ("sytem_prompt", "system_prompt"), ("Temperature", "temperature"), ("time_out", "timeout")],
)
def test_a_typo_names_the_nearest_key(typo: str, meant: str) -> None:
    for make in (PLACES["agent_config"], PLACES["entry"], PLACES["synthesis"]):
        with pytest.raises(ValueError, match=f"“{typo}” is not known; .*; did you mean “{meant}”"):
            make(typo, 1)


def test_the_same_value_may_stand_in_both_places() -> None:
    assert single(agent_config={**TEXT, "model": "openai:o3", "timeout": 60}, model="openai:o3", timeout=60.0)
    assert single(agent_config={**TEXT, "context": None, "depends_on": None, "configurable": {}})


def test_templates_are_left_for_the_run_and_checked_there() -> None:
    config = {**TEXT, "timeout": "{{ params.t }}", "model": "{{ params.m }}", "top_p": "{{ params.p }}"}
    known: dict[str, Any] = {"t": "5", "m": "openai:gpt-4o", "p": "0.5"}
    for params, message in (
        ({**known, "t": "soon"}, r"agent_config\.timeout: has to be a number of seconds"),
        ({**known, "m": "gtp:4"}, r"agent_config\.model: “gtp:4” names the unknown provider"),
        ({**known, "p": "7"}, r"agent_config: top_p has to be a number from 0 to 1"),
        (known, r"model: is another one than that of agent_config"),
    ):
        operator = single(agent_config=config, model="openai:o3" if params is known else None)
        operator.render_template_fields({"params": params})
        with pytest.raises(AirflowFailException, match=message):
            operator.execute({})


def test_a_graph_from_the_function_must_not_have_a_connection() -> None:
    with pytest.raises(ValueError, match=r"^llm_conn_id: is for built-in agents"):
        decorated(llm_conn_id="models")


def test_a_functions_graph_is_checked_when_it_is_known() -> None:
    assert decorated(timeout=5, configurable={"step": 1})
    for arguments, message in (
        ({"agent_config": TEXT}, r"^agent_config\.type: can't be given together with graph"),
        ({"graph": "package.module:other"}, r"^graph: is 'package.module:other', but the function returned"),
    ):
        made: Any = langgraph_task(lambda: (GRAPH, {"value": 3}), task_id=f"task_{next(NUMBERS)}", **arguments)
        with pytest.raises(AirflowFailException, match=message):
            made().operator.execute({})


def test_every_option_is_in_the_table() -> None:
    assert set(OPTIONS) <= ACTS.keys()
    assert not OPERATOR_ARGUMENTS & (AGENT_KEYS | set(CONFIG_KEYS))


MAPPED: dict[str, Callable[..., Any]] = {
    "agent": lambda **keys: LangGraphOperator.partial(
        task_id=f"task_{next(NUMBERS)}", agent_config={**TEXT, **keys}
    ).expand(input_data=[{"text": "a"}]),
    "team": lambda **keys: MultiAgentOperator.partial(
        task_id=f"task_{next(NUMBERS)}", agents=[{"name": "a", **TEXT, **keys}]
    ).expand(model=["local:text"]),
    "function": lambda **keys: langgraph_task(agent_config={**TEXT, **keys}, task_id=f"task_{next(NUMBERS)}")(
        lambda text: {"text": text}
    ).expand(text=["a"]),
}


@pytest.mark.parametrize("make", MAPPED.values(), ids=MAPPED)
def test_a_mapped_task_is_checked_when_the_dag_is_parsed(make: Callable[..., Any]) -> None:
    for keys, reason in (
        ({"modle": "openai:o3"}, "the key “modle” is not known"),
        ({"context": {"a": 1}}, "context: is for a graph of one's own"),
        ({"top_k": 3, "model": "openai:o3"}, "top_k is not known to models of openai"),
    ):
        with pytest.raises(ValueError, match=reason):
            make(**keys)
    assert make(top_p=0.5, model="openai:o3", timeout=5)


def test_what_is_mapped_is_left_for_the_run() -> None:
    forms = LangGraphOperator.partial(task_id="forms", agent_config={"type": "extraction"})
    assert forms.expand(output_schema=[SCHEMA], input_data=[{"text": "a"}])
    modes = MultiAgentOperator.partial(
        task_id="modes", agents=[{"name": "a", **TEXT}, {"name": "b", **TEXT, "depends_on": ["a"]}]
    )
    assert modes.expand(orchestration_mode=["graph"])
    assert LangGraphOperator.partial(task_id="agents").expand(agent_config=[TEXT])
