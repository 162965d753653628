"""What Langfuse's real SDK sends of agents: decoded from the requests that a local server gets."""

import asyncio
import base64
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from langfuse import Langfuse
from opentelemetry import trace as opentelemetry
from sqlalchemy import Engine, select

from backend.core.settings import Settings
from backend.db.engine import Database, make_async_engine
from backend.db.runs import executions
from backend.db.tables import agent_traces, batch_items
from backend.observation.tracing.client import trace_client
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import run_batch
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent, parse_team, synthesis_spec
from backend.runtime.team.run import run_team
from tests.kit.clock import Clock
from tests.kit.fixtures.tasks import NO_RETRIES
from tests.kit.openai.server import OpenAIServer
from tests.kit.pictures import encode, photo
from tests.kit.servers.langfuse import TRACES, LangfuseServer, Span

CONF = {"query": "What is this?", "text": "A text."}
TASK = TaskContext("dag", "run", "work", -1, 1, CONF, "manual", user="ann")
MODEL = "openai:gpt-4.1-mini"
KEY = "sk-test-abcdefgh12345678"
USAGE = {"input_tokens": 1000, "output_tokens": 200, "cached_tokens": 400}
USER_GRAPHS, TRACED_GRAPHS = "tests.kit.graphs.foreign", "tests.kit.graphs.traced"

Work = Callable[[AgentRunner], Awaitable[dict[str, Any]]]


class Traced:
    """Runs agents, and gives what was sent of them."""

    def __init__(self, url: str, server: OpenAIServer, langfuse: LangfuseServer) -> None:
        self.clock = Clock()
        self.langfuse = langfuse
        self._given: dict[str, Any] = {
            "database_url_override": url,
            "openai_base_url": server.base_url,
            "openai_api_key": KEY,
            "rate_limiter": False,
        }

    def settings(self, **more: Any) -> Settings:
        return Settings(_env_file=None, **self._given | self.langfuse.settings | more)

    @asynccontextmanager
    async def running(self, task: TaskContext = TASK, **settings: Any) -> AsyncIterator[AgentRunner]:
        made = self.settings(**settings)
        database = Database(make_async_engine(made.database_url, application="test", pool_size=2))
        try:
            async with AgentRunner(made, database, task, timing=self.clock.timing) as runner:
                yield runner
        finally:
            await database.close()
            await asyncio.to_thread(self.flush, made)

    def flush(self, settings: Settings) -> None:
        client = trace_client(settings)
        if client is not None:
            assert client.flush(10)

    async def agent(
        self,
        input_data: Any = None,
        *,
        task: TaskContext = TASK,
        config: Any = None,
        graph: str | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """The result of a task with one agent."""
        asked = {name: more.pop(name) for name in ("model", "output_schema", "timeout") if name in more}
        kind = config or (None if graph else {"type": "text"})
        async with self.running(task, **more) as runner:
            return await run_single(runner, parse_agent(kind, input_data, graph=graph, **asked))

    @property
    def tree(self) -> list[str]:
        """The only trace."""
        (trace_id,) = {span.trace_id for span in self.langfuse.spans}
        return self.langfuse.tree(trace_id)

    def spans(self, kind: str) -> list[Span]:
        found = [span for span in self.langfuse.spans if span.kind == kind]
        return sorted(found, key=lambda span: span.started_at)


@pytest.fixture
def traced(pg: Any, engine: Engine, openai_server: OpenAIServer, langfuse: LangfuseServer) -> Traced:
    return Traced(pg.worker_url, openai_server, langfuse)


def rows(engine: Engine, table: Any) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def execution(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        row = executions.get(connection, "dag", "run")
    assert row is not None
    return dict(row)


async def test_one_agent(traced: Traced, engine: Engine, openai_server: OpenAIServer) -> None:
    openai_server.script(content="It is a cat.", usage=USAGE)
    result = await traced.agent(model=MODEL, config={"type": "text", "temperature": 0.25})
    trace_id, langfuse = result["trace_id"], traced.langfuse
    assert trace_id == Langfuse.create_trace_id(seed="development/dag/run/work/-1")
    assert result["trace_url"] == f"{langfuse.url}/trace/{trace_id}"
    assert traced.tree == [
        "span work",
        "  agent text",
        "    chain prepare",
        "    chain analyse",
        f"      generation {MODEL}",
        "    chain report",
    ]
    task, agent = langfuse.named("work"), langfuse.named("text")
    assert (task.input, agent.input) == ({"query": "What is this?", "text": "A text."},) * 2
    assert task.output["answer"] == agent.output["answer"] == "It is a cat."
    assert {span.level for span in langfuse.spans} == {"DEFAULT"}
    assert all(span.ended_at >= span.started_at > 0 for span in langfuse.spans)

    for span in langfuse.spans:
        found = {name: span.attributes.get(name) for name in ("session.id", "user.id", "langfuse.environment")}
        assert found == {"session.id": "dag/run", "user.id": "ann", "langfuse.environment": "development"}
        assert span.attributes["langfuse.trace.name"] == "dag.work"
        assert set(span.attributes["langfuse.trace.tags"]) == {"dag", "text", "development"}
        assert span.trace_metadata["try_number"] == 1
    row = execution(engine)
    assert task.metadata == {
        "dag_id": "dag",
        "dag_run_id": "run",
        "task_id": "work",
        "map_index": -1,
        "try_number": 1,
        "execution_id": str(row["id"]),
        "run_type": "manual",
        "run_url": "http://localhost:8000/runs/dag/run",
        "airflow_url": "http://127.0.0.1:8080/dags/dag/runs/run/tasks/work",
        "model": MODEL,
        "usage": {"input_tokens": 1000, "output_tokens": 200},
        "cost_usd": result["cost_usd"],
    }
    call = langfuse.named(MODEL)
    assert call.model == MODEL
    assert call.usage == {"input": 600, "output": 200, "total": 1200, "input_cache_read": 400}
    assert call.cost == {"total": pytest.approx(result["cost_usd"])}
    assert call.parameters == {"temperature": 0.25}
    assert [message["role"] for message in call.input] == ["system", "user"]
    assert "A text." in call.input[1]["content"]
    assert call.output == {"role": "assistant", "content": "It is a cat."}
    assert "langfuse.observation.completion_start_time" in call.attributes

    assert row["trace_url"] == result["trace_url"]
    kept = rows(engine, agent_traces)
    assert {found["trace_id"] for found in kept} == {trace_id}
    assert {found["trace_url"] for found in kept if found["node"] is None} == {result["trace_url"]}


async def test_a_try_that_failed_and_its_retry_are_one_trace(
    traced: Traced, engine: Engine, openai_server: OpenAIServer
) -> None:
    openai_server.script("server_error", times=1)
    with pytest.raises(Exception, match="500"):
        await traced.agent(model=MODEL, error_rules=NO_RETRIES)
    first = execution(engine)["trace_url"]
    result = await traced.agent(model=MODEL, task=replace(TASK, try_number=2), error_rules=NO_RETRIES)
    assert first == result["trace_url"]
    assert traced.tree == [
        "span work", "  agent text", "    chain prepare", "    chain analyse", f"      generation {MODEL}",
        "span work", "  agent text", "    chain analyse", f"      generation {MODEL}", "    chain report",
    ]  # fmt: skip
    assert [(span.metadata["try_number"], span.level) for span in traced.spans("span")] == [
        (1, "ERROR"),
        (2, "DEFAULT"),
    ]
    for kind in ("span", "agent", "generation"):
        failed, passed = traced.spans(kind)
        assert failed.message is not None
        assert failed.message.startswith("server: OpenAIAPIError: Error code: 500")
        assert (failed.level, failed.metadata["category"], passed.message) == ("ERROR", "server", None)


async def test_each_attempt_and_each_model_is_a_generation(traced: Traced, openai_server: OpenAIServer) -> None:
    openai_server.script("rate_limit", model="gpt-4.1-mini", retry_after=3)
    openai_server.script("context_length", model="gpt-4.1-mini", times=None)
    openai_server.script(model="gpt-4.1-nano", content="Smaller.", usage=USAGE)
    result = await traced.agent(model=MODEL, model_fallbacks={MODEL: ["openai:gpt-4.1-nano"]})
    assert result["model"] == "openai:gpt-4.1-nano"
    calls = traced.spans("generation")
    assert [(call.name, call.level) for call in calls] == [
        (MODEL, "ERROR"), (f"{MODEL} (attempt 2)", "ERROR"), ("openai:gpt-4.1-nano (attempt 3)", "DEFAULT"),
    ]  # fmt: skip
    found = [
        {name: call.metadata.get(name) for name in ("attempt", "category", "action", "retry_in")} for call in calls
    ]
    assert found == [
        {"attempt": 1, "category": "rate_limit", "action": "retry", "retry_in": 3.0},
        {"attempt": 2, "category": "context_length", "action": "fallback", "retry_in": None},
        {"attempt": 3, "category": None, "action": None, "retry_in": None},
    ]
    assert [call.usage is not None for call in calls] == [False, False, True]
    assert {span.level for kind in ("agent", "span", "chain") for span in traced.spans(kind)} == {"DEFAULT"}
    assert traced.langfuse.named("text").metadata["model"] == "openai:gpt-4.1-nano"


async def test_a_rejected_answer_is_an_error_with_its_usage(traced: Traced, openai_server: OpenAIServer) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    openai_server.script(content='{"n": "many"}', usage=USAGE)
    openai_server.script(content='{"n": 7}', usage=USAGE)
    result = await traced.agent(model=MODEL, config={"type": "extraction", "output_schema": schema})
    assert result["output"]["data"] == {"n": 7}
    refused, accepted = traced.spans("generation")
    assert (refused.level, refused.metadata["category"], refused.metadata["action"]) == (
        "ERROR", "invalid_output", "repair",
    )  # fmt: skip
    assert refused.usage["total"] == 1200
    assert refused.output is not None
    assert accepted.level == "DEFAULT"


async def test_a_call_refused_before_the_request_is_traced(traced: Traced, openai_server: OpenAIServer) -> None:
    with pytest.raises(Exception, match="budget"):
        async with traced.running(task=replace(TASK, system={"budget": {"max_tokens": 1}})) as runner:
            await run_single(runner, parse_agent({"type": "text"}, None, model=MODEL))
    assert openai_server.requests == []
    refused = [traced.spans(kind)[-1] for kind in ("span", "agent", "chain", "generation")]
    assert {(span.level, span.metadata["category"]) for span in refused} == {("ERROR", "budget")}


async def test_an_unknown_price_is_left_out(traced: Traced, openai_server: OpenAIServer) -> None:
    openai_server.script(content="Yes.", usage=USAGE)
    await traced.agent(model="openai:my-own-model")
    (call,) = traced.spans("generation")
    assert (call.model, call.cost) == ("openai:my-own-model", None)
    assert call.usage["output"] == 200


@pytest.fixture
def own_graphs(monkeypatch: pytest.MonkeyPatch, openai_server: OpenAIServer) -> None:
    """Users' graphs make their models themselves."""
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.usefixtures("own_graphs")
async def test_models_and_tools_of_a_users_graph(traced: Traced, openai_server: OpenAIServer) -> None:
    openai_server.script(tool_calls=[{"name": "weather", "arguments": {"city": "Rome"}}])
    openai_server.script(content="It rains.", usage=USAGE)
    await traced.agent({"question": "Weather in Rome?"}, graph=f"{USER_GRAPHS}:nested")
    assert traced.tree == [
        "span work",
        "  agent nested",
        "    chain inside",
        "      chain chat",
        f"        generation {MODEL}",
        "      chain tools",
        "        tool weather",
        "      chain chat",
        f"        generation {MODEL}",
    ]
    tool = traced.langfuse.named("weather")
    assert (tool.input, tool.output) == ({"city": "Rome"}, "It rains in Rome.")
    asked, _ = traced.spans("generation")
    assert asked.metadata["tools"] == ["weather"]
    assert asked.output["tool_calls"] == [{"name": "weather", "args": {"city": "Rome"}}]


@pytest.mark.usefixtures("own_graphs")
async def test_a_restarted_node_has_two_spans(traced: Traced, openai_server: OpenAIServer) -> None:
    openai_server.script("rate_limit", retry_after=2)
    openai_server.script(content="It rains.", usage=USAGE)
    await traced.agent({"messages": [["user", "Weather in Rome?"]]}, graph=f"{USER_GRAPHS}:assistant")
    once = ["    chain chat", f"      generation {MODEL}"]
    assert traced.tree == ["span work", "  agent assistant", *once, *once]
    for kind in ("chain", "generation"):
        failed, passed = traced.spans(kind)
        assert (failed.level, failed.metadata["category"], passed.level) == ("ERROR", "rate_limit", "DEFAULT")
    assert traced.spans("chain")[1].metadata["attempt"] == 2
    assert traced.langfuse.named("assistant").level == "DEFAULT"


@pytest.mark.usefixtures("own_graphs")
async def test_a_model_call_of_a_tool_is_nested_in_the_tool(traced: Traced, openai_server: OpenAIServer) -> None:
    openai_server.script(content="Ask somebody else.", usage=USAGE)
    await traced.agent({"question": "Who knows?"}, graph=f"{TRACED_GRAPHS}:consulting")
    assert traced.tree[2:] == ["    chain ask", "      tool expert", f"        generation {MODEL}"]


@pytest.mark.usefixtures("own_graphs")
async def test_a_graph_that_brings_langfuses_handler_is_not_traced_twice(
    traced: Traced, openai_server: OpenAIServer
) -> None:
    openai_server.script(content="Langfuse saw it.", usage=USAGE)
    result = await traced.agent({"question": "Who saw it?"}, graph=f"{TRACED_GRAPHS}:handled")
    assert result["output"]["answer"] == "Langfuse saw it."
    assert result["usage"]["output_tokens"] == 200
    assert len(traced.spans("generation")) == 1
    assert traced.tree[:3] == ["span work", "  agent handled", "    chain handled"]
    assert {span.attributes["session.id"] for span in traced.langfuse.spans} == {"dag/run"}


@pytest.mark.usefixtures("own_graphs")
async def test_a_users_own_span_is_part_of_the_trace_and_masked(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LANGFUSE_MEDIA_UPLOAD_ENABLED", raising=False)
    await traced.agent({"question": "who?"}, graph=f"{TRACED_GRAPHS}:observed")
    assert sorted(traced.tree) == ["    chain ask", "    span my own span", "  agent observed", "span work"]
    assert b"QUJDQUJD" not in traced.langfuse.exported
    assert {path for path, _, _ in traced.langfuse.requests} == {TRACES}, "pictures are not uploaded either"
    assert isinstance(opentelemetry.get_tracer_provider(), opentelemetry.ProxyTracerProvider)


async def test_a_team_is_one_trace(traced: Traced, engine: Engine, openai_server: OpenAIServer) -> None:
    openai_server.script("bad_request", contains="BROKEN")
    entries = [
        {"name": "first", "type": "text", "input_data": {"text": "One."}},
        {"name": "second", "type": "text", "input_data": {"text": "BROKEN"}, "required": False},
        {"name": "third", "type": "text", "input_data": {"text": "Three."}, "depends_on": ["first"]},
    ]
    async with traced.running() as runner:
        specs = parse_team(entries, "graph")
        result = await run_team(runner, specs, "graph", synthesis=synthesis_spec(True, specs, None))
    agents = {span.name: span for span in traced.spans("agent")}
    assert {name: span.level for name, span in agents.items()} == {
        "first": "DEFAULT", "second": "ERROR", "third": "DEFAULT", "synthesis": "DEFAULT",
    }  # fmt: skip
    task = traced.langfuse.named("work")
    assert {span.parent_id for span in agents.values()} == {task.id}
    assert {span.trace_id for span in traced.langfuse.spans} == {result["trace_id"]}
    assert result["trace_url"] == f"{traced.langfuse.url}/trace/{result['trace_id']}"
    assert {agent["trace_id"] for agent in result["agents"].values()} == {result["trace_id"]}
    assert {row["trace_id"] for row in rows(engine, agent_traces)} == {result["trace_id"]}
    assert set(task.output) >= {"first", "third"}
    assert task.level == "DEFAULT"


@pytest.mark.parametrize("rate", [1.0, 0.5])
async def test_each_item_of_a_batch_has_its_own_trace_as_far_as_it_is_sampled(
    traced: Traced, engine: Engine, rate: float
) -> None:
    inputs = [{"query": f"Question {index}?"} for index in range(12)]
    async with traced.running(langfuse_sample_rate=rate) as runner:
        result = await run_batch(
            runner, parse_agent({"type": "text"}, {"text": "A."}, model=MODEL), inputs, BatchPlan(4)
        )
    kept = {row["item_index"]: row for row in rows(engine, batch_items)}
    sent = {span.trace_id: span for span in traced.spans("agent")}
    with_url = {index for index, row in kept.items() if row["trace_url"] is not None}
    assert {row["trace_id"] for index, row in kept.items() if index in with_url} == set(sent)
    assert len({row["trace_id"] for row in kept.values()}) == 12
    assert len(with_url) == 12 if rate == 1 else 0 < len(with_url) < 12
    for index in with_url:
        assert kept[index]["trace_url"] == f"{traced.langfuse.url}/trace/{kept[index]['trace_id']}"
        tree = traced.langfuse.tree(kept[index]["trace_id"])
        assert tree[0] == f"agent text[{index}]"
        assert tree[-2:] == [f"    generation {MODEL}", "  chain report"]
    assert {span.attributes["session.id"] for span in traced.langfuse.spans} == {"dag/run"}
    assert {span.metadata["batch_trace_id"] for span in sent.values()} == {result["trace_id"]}
    if result["trace_url"] is not None:
        assert traced.langfuse.named("work").metadata["usage"] == result["usage"]


async def test_no_secret_and_no_picture_leaves(traced: Traced, openai_server: OpenAIServer) -> None:
    content = encode(photo(300, 200), "PNG")
    encoded = base64.b64encode(content).decode()
    picture = f"data:image/png;base64,{encoded}"
    openai_server.script(content="Your key is sk-proj-abcdefgh1234.")
    key = "QqKeyOfAProviderWithoutAPrefix"
    openai_server.script("auth", error={"message": f"Incorrect API key provided: {key}", "code": "invalid_api_key"})
    task = replace(TASK, conf={**CONF, "image_url": picture, "password": "hunter2-of-config"})
    input_data = {"query": "What?", "image_url": picture, "api_key": "plain-secret-of-a-user"}
    asked: dict[str, Any] = {"model": MODEL, "config": {"type": "vision"}, "openai_api_key": key}
    await traced.agent(input_data, task=task, **asked)
    with pytest.raises(Exception, match="Incorrect API key"):
        await traced.agent(input_data, task=replace(task, task_id="again"), **asked)
    exported = traced.langfuse.exported
    assert len(openai_server.requests) == 2
    assert openai_server.requests[0].image_pixels
    assert len(traced.spans("generation")) == 2
    for part in (content[100:140], encoded[100:140].encode(), key.encode(), traced.langfuse.secret_key.encode()):
        assert part not in exported
    for secret in (b"sk-proj-abcdefgh1234", b"plain-secret-of-a-user", b"hunter2-of-config"):
        assert secret not in exported
    sent = next(call.input for call in traced.spans("generation"))
    assert "bytes" in str(sent)
    assert b"Authorization" not in exported
    assert [path for path, _, _ in traced.langfuse.requests if path != TRACES] == []


async def test_content_can_be_left_out(traced: Traced, openai_server: OpenAIServer) -> None:
    openai_server.script(content="Quite private.", usage=USAGE)
    openai_server.script("bad_request", error={"message": "Your private prompt is bad"})
    await traced.agent({"text": "A private letter."}, model=MODEL, trace_content=False)
    with pytest.raises(Exception, match="private prompt"):
        await traced.agent({"text": "A private letter."}, task=replace(TASK, task_id="b"), trace_content=False)
    assert b"rivate" not in traced.langfuse.exported
    assert {(span.input, span.output) for span in traced.langfuse.spans} == {(None, None)}
    answered, refused = traced.spans("generation")
    assert answered.usage["output"] == 200
    assert refused.message == "bad_request: OpenAIInvalidRequestError"


async def test_a_cancelled_run(traced: Traced, openai_server: OpenAIServer) -> None:
    openai_server.script(hang=True)
    running = asyncio.ensure_future(traced.agent(model=MODEL))
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.in_flight == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert traced.tree[-1] == f"      generation {MODEL}"
    levels = {span.kind: span.level for span in traced.langfuse.spans if span.name != "prepare"}
    assert levels["agent"] == levels["span"] == levels["chain"] == "WARNING"
    assert all(span.ended_at for span in traced.langfuse.spans)


async def test_unsampled_traces_have_no_address(traced: Traced, engine: Engine) -> None:
    result = await traced.agent(model=MODEL, langfuse_sample_rate=0.0)
    assert (result["trace_url"], execution(engine)["trace_url"]) == (None, None)
    assert len(result["trace_id"]) == 32
    assert traced.langfuse.requests == []


async def test_without_keys_nothing_is_sent(traced: Traced) -> None:
    result = await traced.agent(model=MODEL, langfuse_secret_key=None)
    assert result["trace_url"] is None
    assert result["trace_id"] == Langfuse.create_trace_id(seed="development/dag/run/work/-1")
    assert traced.langfuse.requests == []


@pytest.mark.parametrize("fault", ["refused", "broken", "hanging", "unreachable"])
async def test_agents_are_not_affected_by_a_broken_langfuse(
    traced: Traced, openai_server: OpenAIServer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    langfuse, more = traced.langfuse, {}
    if fault == "refused":
        langfuse.secret_key, more = "another", {"langfuse_secret_key": "sk-lf-wrong"}
    elif fault == "broken":
        langfuse.status = 500
    elif fault == "hanging":
        langfuse.hanging.set()
    else:
        more = {"langfuse_host": "http://127.0.0.1:9"}
    settings = traced.settings(**more)
    caplog.set_level(logging.INFO)
    openai_server.script(content="All the same.", times=None)
    database = Database(make_async_engine(settings.database_url, application="test", pool_size=2))
    for number in range(3):
        async with AgentRunner(settings, database, replace(TASK, task_id=f"work-{number}")) as runner:
            result = await run_single(runner, parse_agent({"type": "text"}, None, model=MODEL))
        assert result["output"]["answer"] == "All the same."
        assert result["trace_url"] is not None
    await database.close()

    client = trace_client(settings)
    assert client is not None
    gone = await asyncio.to_thread(client.flush, 1.0)
    assert gone is (fault != "hanging")
    assert langfuse.spans == []
    assert client.exporter.dropped == (0 if fault == "hanging" else 18)
    found = [record.getMessage() for record in caplog.records if "Langfuse" in record.getMessage()]
    assert len(found) == (0 if fault == "hanging" else 1)
    assert not [name for name in (record.name for record in caplog.records) if name.startswith(("langfuse", "opentel"))]
    assert "sk-lf" not in caplog.text


async def test_queued_spans_are_sent_when_langfuse_recovers(traced: Traced, openai_server: OpenAIServer) -> None:
    langfuse, settings = traced.langfuse, traced.settings()
    langfuse.status = 503
    database = Database(make_async_engine(settings.database_url, application="test", pool_size=2))
    async with AgentRunner(settings, database, TASK) as runner:
        await run_single(runner, parse_agent({"type": "text"}, None, model=MODEL))
    await database.close()
    client = trace_client(settings)
    assert client is not None
    client.send()
    await asyncio.to_thread(langfuse.wait_for_request)
    langfuse.status = 200
    await asyncio.to_thread(langfuse.wait_for_request, 2)
    assert client.flush(10)
    assert (client.exporter.sent, client.exporter.dropped, len(langfuse.spans)) == (6, 0, 6)


IMPORTED = """
import sys, threading
from backend.runtime.worker import AgentTask
from backend.runtime.runner import TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from backend.core.settings import get_settings
task = AgentTask(get_settings(), TaskContext("dag", "run", "work", -1, 1, {"text": "A text. It has sentences."}))
result = task.run(lambda runner: run_single(runner, parse_agent({"type": "text"}, None, model="local:text")))
threads = [thread.name for thread in threading.enumerate()]
print(result["trace_url"], "langfuse" in sys.modules, any("Otel" in name for name in threads))
"""


@pytest.mark.parametrize("keys", [True, False])
async def test_an_ending_process_sends_its_last_spans_and_loads_nothing_without_keys(
    traced: Traced, pg: Any, keys: bool
) -> None:
    environment = {"VISUAL_AI_DATABASE_URL": pg.worker_url, "PYTHONPATH": ":".join(filter(None, sys.path))}
    if keys:
        environment |= traced.langfuse.environment
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", IMPORTED, env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    url, *loaded = output.decode().split()
    assert loaded == [str(keys), str(keys)]
    assert (url == "None") is not keys
    assert bool(traced.langfuse.requests) is keys
    if keys:
        assert traced.tree[0] == "span work"
        assert "generation local:text" in " ".join(traced.tree)
