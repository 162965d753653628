"""What the keys of an agent do, wherever they stand: in the model's request, in the result, or in the records.

Which key is accepted where is in `tests/unit/operators/test_agent_keys.py`.
"""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from backend.core.errors.input_error import InputError
from backend.runtime.batch.plan import BatchPlan, parse_inputs
from backend.runtime.batch.run import run_batch
from backend.runtime.runner import AgentRunner
from tests.kit.failures.raised import raises_failure
from tests.kit.fixtures.tasks import MakeRunner
from tests.kit.openai.server import OpenAIServer, RequestRecord
from visual_ai_operators import LangGraphOperator, MultiAgentOperator
from visual_ai_tasks import parse_single, work_of

TEXT: dict[str, Any] = {"type": "text", "input_data": {"text": "The harbour was quiet."}}
HERE = "tests.kit.graphs.foreign"
SCHEMA = {"type": "object", "properties": {"ships": {"type": "integer"}}, "required": ["ships"]}

Result = dict[str, Any]


@pytest.fixture
def limited_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL_AI_MAX_TEXT_CHARS", "30")


async def done(runner: AgentRunner, operator: LangGraphOperator | MultiAgentOperator) -> Result:
    """The result of a task, as a worker and a triggerer run it."""
    arguments = {name: getattr(operator, name) for name in operator.arguments}
    async with runner:
        if isinstance(operator, LangGraphOperator) and operator.inputs is not None:
            return await run_batch(runner, parse_single(arguments, None), parse_inputs(operator.inputs), BatchPlan())
        return await work_of(type(operator).__name__, arguments, operator.llm_conn_id)(runner)


def alone(**keys: Any) -> LangGraphOperator:
    return LangGraphOperator(task_id="task", agent_config={**TEXT, **keys})


def argument(**keys: Any) -> LangGraphOperator:
    return LangGraphOperator(task_id="task", **{"agent_config": {"type": "text"}, **_input(keys), **keys})


def _input(keys: dict[str, Any]) -> dict[str, Any]:
    return {} if "input_data" in keys else {"input_data": TEXT["input_data"]}


def batch(**keys: Any) -> LangGraphOperator:
    own = {key: value for key, value in keys.items() if key != "input_data"}
    given = keys.get("input_data", TEXT["input_data"])
    return LangGraphOperator(task_id="task", agent_config={"type": "text", **own}, inputs=[given])


def entry(**keys: Any) -> MultiAgentOperator:
    return MultiAgentOperator(task_id="task", agents=[{"name": "a", **TEXT, **keys}], synthesis=False)


def synthesis(**keys: Any) -> MultiAgentOperator:
    local = {"name": "a", **TEXT, "model": "local:text"}
    return MultiAgentOperator(task_id="task", agents=[local], synthesis=keys)


EVERYWHERE = (alone, argument, batch, entry, synthesis)
AS_KEYS = (alone, batch, entry, synthesis)

OPTIONS: dict[str, tuple[Any, Any]] = {
    "model": ("openai:gpt-4o", {"model": "gpt-4o"}),
    "temperature": (0.25, {"temperature": 0.25}),
    "max_tokens": (77, {"max_completion_tokens": 77}),
    "max_completion_tokens": (78, {"max_completion_tokens": 78}),
    "top_p": ("0.5", {"top_p": 0.5}),
    "seed": ("7", {"seed": 7}),
    "stop": ("END", {"stop": ["END"]}),
    "presence_penalty": (1, {"presence_penalty": 1.0}),
    "frequency_penalty": (-1, {"frequency_penalty": -1.0}),
    "logit_bias": ({"50256": -100}, {"logit_bias": {"50256": -100}}),
    "reasoning_effort": ("low", {"reasoning_effort": "low"}),
    "verbosity": ("low", {"verbosity": "low"}),
    "service_tier": ("flex", {"service_tier": "flex"}),
    "extra_body": ({"chat_template_kwargs": {"thinking": False}}, {"chat_template_kwargs": {"thinking": False}}),
}
"""Keys, values, and what they add to the body of the model's request."""


@pytest.mark.parametrize("make", AS_KEYS)
async def test_model_and_options_reach_the_models_request(
    make_runner: MakeRunner, openai_server: OpenAIServer, make: Callable[..., Any]
) -> None:
    chosen = {key: value for key, (value, _) in OPTIONS.items() if key != "max_completion_tokens"}
    result = await done(make_runner(), make(**chosen))
    (request,) = openai_server.requests
    expected: dict[str, Any] = {}
    for key in chosen:
        expected |= OPTIONS[key][1]
    assert request.params == request.params | expected
    models = [result.get("model"), *(agent["model"] for agent in result.get("agents", {}).values())]
    assert "openai:gpt-4o" in models


async def test_each_option_alone(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    for number, (key, (value, expected)) in enumerate(OPTIONS.items()):
        await done(make_runner(task=f"task_{number}"), alone(**{key: value}))
        request = openai_server.requests[-1]
        assert request.params == request.params | expected, key


def _said(request: RequestRecord) -> bool:
    return "Speak like a sailor." in request.prompt


@pytest.mark.parametrize("make", EVERYWHERE)
async def test_what_else_an_agent_is_asked(
    make_runner: MakeRunner, openai_server: OpenAIServer, make: Callable[..., Any]
) -> None:
    if make is argument:
        await done(make_runner(), make(input_data={"text": "Two ships."}, model="gpt-4o"))
        (request,) = openai_server.requests
        assert request.model == "gpt-4o"
    else:
        own = {} if make is synthesis else {"input_data": {"text": "Two ships."}}
        await done(make_runner(), make(system_prompt="Speak like a sailor.", **own))
        (request,) = openai_server.requests
        assert _said(request)
    assert make is synthesis or "Two ships." in request.prompt


@pytest.mark.parametrize("make", EVERYWHERE)
async def test_a_timeout_ends_the_agent(
    make_runner: MakeRunner, openai_server: OpenAIServer, make: Callable[..., Any]
) -> None:
    openai_server.script(hang=True)
    if make is synthesis:  # a team without its summary has not failed
        ended = (await done(make_runner(), make(timeout=0.2)))["agents"]["synthesis"]
        assert (ended["state"], ended["error"][-36:]) == ("failed", "took longer than its timeout of 0.2 s"[-36:])
        return
    with raises_failure(Exception, match="took longer than its timeout of 0.2 s"):
        await done(make_runner(), make(timeout=0.2))


@pytest.mark.parametrize("make", EVERYWHERE)
async def test_an_error_policy_counts(
    make_runner: MakeRunner, openai_server: OpenAIServer, make: Callable[..., Any]
) -> None:
    openai_server.script("server_error", times=2)
    await done(make_runner(), make(error_policy={"server": {"retries": 2, "backoff": 0, "max_backoff": 0}}))
    assert [request.status for request in openai_server.requests] == [500, 500, 200]


@pytest.mark.parametrize("make", [alone, argument, batch, entry])
async def test_an_output_mapping_picks_parts_of_the_output(
    make_runner: MakeRunner, openai_server: OpenAIServer, make: Callable[..., Any]
) -> None:
    openai_server.script(content="There are two.")
    result = await done(make_runner(), make(output_mapping={"said": "answer"}))
    outputs = result.get("results", [result.get("output")])
    assert (outputs["a"] if isinstance(outputs, dict) else outputs[0]) == {"said": "There are two."}


@pytest.mark.parametrize("make", [alone, argument, batch, entry, synthesis])
async def test_an_output_schema_shapes_the_answer(
    make_runner: MakeRunner, openai_server: OpenAIServer, make: Callable[..., Any]
) -> None:
    openai_server.script(content="There are two.")
    openai_server.script(contains="There are two.", content={"ships": 2})
    result = await done(make_runner(), make(output_schema=SCHEMA))
    found = result if make is synthesis else result.get("results", [result.get("output")])
    found = found["a"] if make is entry else found[0] if isinstance(found, list) else found
    assert found["data"] == {"ships": 2}


@pytest.mark.parametrize("make", [alone, batch, entry])
async def test_a_name_is_the_agents_in_result_and_records(
    make_runner: MakeRunner, openai_server: OpenAIServer, make: Callable[..., Any]
) -> None:
    runner = make_runner()
    result = await done(runner, make(name="harbour"))
    assert "harbour" in result.get("agents", [result.get("agent")])
    async with runner.database.engine.connect() as connection:
        names = await connection.execute(text("SELECT DISTINCT agent_name FROM visual_ai.agent_traces"))
        assert [row[0] for row in names] == ["harbour"]


async def test_the_keys_of_a_team(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script("bad_request", contains="FIRST")
    agents: list[dict[str, Any]] = [
        {"name": "a", "type": "text", "input_data": {"text": "FIRST"}, "required": False, "description": "Reads."},
        {"name": "b", "type": "text", "input_data": {"text": "SECOND"}, "depends_on": ["a"]},
    ]
    result = await done(
        make_runner(), MultiAgentOperator(task_id="task", agents=agents, orchestration_mode="graph", synthesis=False)
    )
    assert [(name, agent["state"]) for name, agent in result["agents"].items()] == [("a", "failed"), ("b", "success")]
    assert result["agents"]["a"]["description"] == "Reads."
    assert [request.prompt.count("FIRST") for request in openai_server.requests] == [1, 0]


@pytest.mark.parametrize(
    ("graph", "input_data", "keys", "output"),
    [
        ("async_factory", {"value": 3}, {"configurable": {"step": 10}}, {"value": 13}),
        ("builder", {"value": 3}, {"output_mapping": {"it": "value"}}, {"it": 8}),
        ("fanned", {"words": ["one"]}, {"context": {"name": "C"}, "output_mapping": {"it": "verdict"}},
         {"it": "3 letters in C"}),
    ],
)  # fmt: skip
async def test_the_keys_of_a_graph(
    make_runner: MakeRunner, graph: str, input_data: dict[str, Any], keys: dict[str, Any], output: Any
) -> None:
    own = {"graph": f"{HERE}:{graph}", "input_data": input_data, **keys}
    in_config = await done(make_runner(), LangGraphOperator(task_id="task", agent_config={**own, "name": "mine"}))
    beside = await done(make_runner(task="beside"), LangGraphOperator(task_id="task", **own))
    several = MultiAgentOperator(task_id="task", agents=[{"name": "mine", **own}], synthesis=False)
    in_team = await done(make_runner(task="team"), several)
    assert in_config["output"] == beside["output"] == in_team["results"]["mine"] == output
    assert (in_config["agent"], beside["agent"]) == ("mine", graph)


async def test_a_graph_is_not_recorded_with_a_model_that_it_did_not_call(make_runner: MakeRunner) -> None:
    runner = make_runner(system={"model": "openai:o3"})
    own = LangGraphOperator(task_id="task", graph=f"{HERE}:builder", input_data={"value": 3})
    assert (await done(runner, own))["model"] is None


@pytest.mark.parametrize(
    ("model", "options", "body"),
    [
        ("anthropic:claude-sonnet-5", {"top_k": 3, "stop": ["END"]}, {"top_k": 3, "stop_sequences": ["END"]}),
        ("anthropic:claude-sonnet-5", {"max_tokens": 99}, {"max_tokens": 99}),
    ],
)
async def test_other_providers_have_their_own_options(
    make_runner: MakeRunner,
    openai_server: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    options: dict[str, Any],
    body: dict[str, Any],
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    monkeypatch.setenv("ANTHROPIC_API_URL", openai_server.root_url)
    await done(make_runner(), alone(model=model, **options))
    (request,) = openai_server.requests
    assert request.params == request.params | body


async def test_ollama_has_its_own_name_for_the_limit(
    make_runner: MakeRunner, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", openai_server.root_url)
    await done(make_runner(), alone(model="ollama:llama3", max_tokens=99, num_ctx=8192))
    (request,) = openai_server.requests
    assert request.params["options"] == request.params["options"] | {"num_predict": 99, "num_ctx": 8192}


async def test_an_option_that_the_integration_lacks_is_refused_without_a_request(
    make_runner: MakeRunner, openai_server: OpenAIServer
) -> None:
    """The agent names no model, so it is known only when the task runs that it is OpenAI's."""
    with raises_failure(InputError, match="top_k is not known to models of openai"):
        await done(make_runner(), alone(top_k=3))
    assert openai_server.requests == []


async def test_a_fallback_model_is_asked_without_the_options_that_it_lacks(
    make_runner: MakeRunner, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    monkeypatch.setenv("ANTHROPIC_API_URL", openai_server.root_url)
    openai_server.script("server_error", api="chat")
    policy = {"server": {"retries": 0, "fallback": True}, "fallbacks": ["anthropic:claude-sonnet-5"]}
    result = await done(make_runner(), alone(seed=7, top_p=0.5, error_policy=policy))
    first, second = openai_server.requests
    assert (first.params["seed"], first.params["top_p"]) == (7, 0.5)
    assert "seed" not in second.params
    assert second.params["top_p"] == 0.5
    assert result["model"] == "anthropic:claude-sonnet-5"


async def test_offline_models_say_that_options_had_no_effect(make_runner: MakeRunner) -> None:
    options = {"temperature": 0.5, "top_p": 0.5, "stop": ["END"], "extra_body": {"a": 1}}
    result = await done(make_runner(), alone(model="local:text", **options))
    assert result["notice"] == (
        "temperature, top_p, stop, extra_body had no effect: local:text is an offline model, which has no options"
    )


@pytest.mark.usefixtures("limited_texts")
@pytest.mark.parametrize(
    ("config", "input_data", "field"),
    [
        ({"type": "text"}, {"text": "a" * 31}, "text"),
        ({"type": "text"}, {"text": "a", "query": "a" * 31}, "query"),
        ({"type": "review"}, {"subject": "a", "criteria": ["a", "a" * 31]}, "criteria"),
        ({"type": "extraction", "output_schema": SCHEMA}, {"text": "a", "query": "a" * 31}, "query"),
    ],
)
async def test_a_text_above_the_limit_names_its_field_and_the_setting(
    make_runner: MakeRunner,
    openai_server: OpenAIServer,
    config: dict[str, Any],
    input_data: dict[str, Any],
    field: str,
) -> None:
    reason = r"has 31 characters, more than the limit of 30; .* raise VISUAL_AI_MAX_TEXT_CHARS"
    one = LangGraphOperator(task_id="task", agent_config=config, input_data=input_data)
    with raises_failure(InputError, match=rf"^{field}: {reason}"):
        await done(make_runner(), one)
    several = LangGraphOperator(task_id="task", agent_config=config, inputs=[input_data])
    with raises_failure(Exception, match=reason):
        await done(make_runner(task="batch"), several)
    assert openai_server.requests == []
