"""Agents in a task: what they return, and what is recorded of them with the rights of a worker."""

import asyncio
import base64
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from airflow.sdk.exceptions import AirflowFailException
from sqlalchemy import Engine, select, text

from backend.core.errors.input_error import InputError
from backend.core.jsonable import dumps
from backend.core.settings import Settings, get_settings
from backend.core.states import TaskState
from backend.core.workflow_error_handler import AgentFailure, classify, error_chain
from backend.db import images
from backend.db.engine import Database, make_async_engine
from backend.db.runs import events, observations
from backend.db.runs.executions import RunState
from backend.db.tables import agent_traces, workflow_errors, workflow_executions
from backend.observation.recording import observer as observer_module
from backend.observation.recording import recorder as recorder_module
from backend.observation.recording import run_result, writer
from backend.observation.recording.records import RowsWithEvents
from backend.runtime import runner as runner_module
from backend.runtime.cancellation import RunCancelledError
from backend.runtime.input_checks import check_picture, plan_team
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent, parse_team, synthesis_spec
from backend.runtime.team.run import run_team
from backend.runtime.worker import AgentTask
from tests.kit.failures.raised import raises_failure
from tests.kit.fixtures.tasks import NO_RETRIES
from tests.kit.openai.server import OpenAIServer
from tests.kit.pictures import encode, photo
from visual_ai_operators import LangGraphOperator, MultiAgentOperator

TASK = TaskContext("dag", "run", "work", -1, 1, {"query": "What is this?", "text": "A text."}, "manual")
TEXT = {"type": "text"}
KEY = "sk-test-abcdefgh12345678"
CLOSED = "postgresql+psycopg://nobody:pw-of-nobody@127.0.0.1:1/none"


@pytest.fixture
def worker_url(pg: Any, database_url: str) -> str:
    """The URL that tasks have, of an empty database."""
    url: str = pg.worker_url
    assert "visual_ai_worker" in url
    return url


def online(url: str, server: OpenAIServer, **more: Any) -> Settings:
    return Settings(
        _env_file=None, database_url_override=url, openai_base_url=server.base_url, openai_api_key=KEY, **more
    )


def offline(url: str, **more: Any) -> Settings:
    return Settings(_env_file=None, database_url_override=url, **more)


@asynccontextmanager
async def running(settings: Settings, task: TaskContext = TASK) -> AsyncIterator[AgentRunner]:
    database = Database(make_async_engine(settings.database_url, application="test", pool_size=2))
    try:
        async with AgentRunner(settings, database, task) as runner:
            yield runner
    finally:
        await database.close()


async def alone(settings: Settings, task: TaskContext = TASK, input_data: Any = None, **more: Any) -> dict[str, Any]:
    async with running(settings, task) as runner:
        return await run_single(runner, parse_agent(more.pop("config", TEXT), input_data, **more))


def rows(engine: Engine, table: Any) -> list[dict[str, Any]]:
    order = table.c.started_at if "started_at" in table.c else table.c.occurred_at
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table).order_by(order)).mappings()]


def execution(engine: Engine) -> dict[str, Any]:
    with engine.connect() as connection:
        return dict(connection.execute(select(workflow_executions)).mappings().one())


def log_of(engine: Engine) -> list[tuple[str, dict[str, Any]]]:
    with engine.connect() as connection:
        log = events.read_after(connection, str(execution(engine)["id"]), 0, limit=10_000)
    return [(event.type, event.payload) for event in log]


def timeline(engine: Engine) -> list[str]:
    """The reported events of agents and nodes; consecutive tokens count as one."""
    short: list[str] = []
    for kind, payload in log_of(engine):
        line = (
            kind if kind == "token" else f"{kind} {payload.get('agent')}/{payload.get('node')} {payload.get('state')}"
        )
        if kind in ("agent_update", "token", "error") and line != (short[-1:] or [""])[0]:
            short.append(line)
    return short


async def test_one_agent(openai_server: OpenAIServer, worker_url: str, engine: Engine) -> None:
    openai_server.script(
        content="It is a cat, and a fine one.", usage={"input_tokens": 1000, "output_tokens": 200, "cached_tokens": 0}
    )
    result = await alone(online(worker_url, openai_server), model="openai:gpt-4.1-mini")
    assert result["output"]["answer"] == "It is a cat, and a fine one."
    assert "reply" not in result["output"]
    assert result["usage"] == {"input_tokens": 1000, "output_tokens": 200}
    assert result["cost_usd"] == pytest.approx(1000 * 0.4e-6 + 200 * 1.6e-6)
    assert (result["agent"], result["model"], result["attempts"]) == ("text", "openai:gpt-4.1-mini", 1)
    assert result["notice"] is None

    agent, *nodes = rows(engine, agent_traces)
    assert (agent["node"], agent["agent_name"], agent["agent_type"], agent["state"]) == (
        None,
        "text",
        "text",
        "success",
    )
    assert (agent["input_tokens"], agent["output_tokens"]) == (1000, 200)
    assert float(agent["cost_usd"]) == result["cost_usd"]
    assert agent["trace_id"] == result["trace_id"]
    assert agent["input"] == {"query": "What is this?", "text": "A text."}
    assert agent["output"] == result["output"]
    assert agent["latency_ms"] > 0
    assert [(node["node"], node["state"], node["output_tokens"]) for node in nodes] == [
        ("prepare", "success", 0), ("analyse", "success", 200), ("report", "success", 0),
    ]  # fmt: skip
    assert {node["trace_id"] for node in nodes} == {agent["trace_id"]}

    assert timeline(engine) == [
        "agent_update text/None running",
        "agent_update text/prepare running",
        "agent_update text/prepare success",
        "agent_update text/analyse running",
        "token",
        "agent_update text/analyse success",
        "agent_update text/report running",
        "agent_update text/report success",
        "agent_update text/None success",
    ]
    tokens = [payload for kind, payload in log_of(engine) if kind == "token"]
    assert "".join(token["text"] for token in tokens) == "It is a cat, and a fine one."
    assert {(token["agent"], token["node"], token["task_id"], token["try_number"]) for token in tokens} == {
        ("text", "analyse", "work", 1)
    }
    last = [payload for kind, payload in log_of(engine) if kind == "agent_update"][-1]
    assert (last["input_tokens"], last["output_tokens"], last["cost_usd"]) == (1000, 200, result["cost_usd"])

    run = execution(engine)
    assert (run["input_tokens"], run["output_tokens"], float(run["cost_usd"])) == (1000, 200, result["cost_usd"])
    assert run["output_data"] == result
    assert rows(engine, workflow_errors) == []
    assert openai_server.requests[0].stream


async def test_tokens_come_at_most_twenty_times_a_second(
    openai_server: OpenAIServer, worker_url: str, engine: Engine
) -> None:
    openai_server.script(content="word " * 100, token_delay=0.005)
    await alone(online(worker_url, openai_server))
    tokens = [payload["text"] for kind, payload in log_of(engine) if kind == "token"]
    assert "".join(tokens) == "word " * 100
    seconds = max(row["latency_ms"] for row in rows(engine, agent_traces) if row["node"] == "analyse") / 1000
    assert 2 <= len(tokens) <= seconds * 20 + 2


async def test_the_cache_is_priced(openai_server: OpenAIServer, worker_url: str) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 0, "cached_tokens": 1000}
    openai_server.script(content="x", usage=usage)
    result = await alone(online(worker_url, openai_server), model="openai:gpt-4.1-mini")
    assert result["cost_usd"] == pytest.approx(1000 * 0.1e-6)


async def test_a_model_without_a_price(openai_server: OpenAIServer, worker_url: str, engine: Engine) -> None:
    result = await alone(online(worker_url, openai_server), model="openai:my-own-model")
    assert result["cost_usd"] is None
    assert result["usage"]["input_tokens"] > 0
    assert rows(engine, agent_traces)[0]["cost_usd"] is None
    assert execution(engine)["cost_usd"] is None


async def test_the_runs_model_applies_to_agents_that_name_none(openai_server: OpenAIServer, worker_url: str) -> None:
    task = replace(TASK, system={"model": "gpt-4.1"})
    settings = online(worker_url, openai_server)
    assert (await alone(settings, task))["model"] == "openai:gpt-4.1"
    other = replace(task, dag_run_id="other")
    assert (await alone(settings, other, model="gpt-4.1-nano"))["model"] == "openai:gpt-4.1-nano"
    assert [request.model for request in openai_server.requests] == ["gpt-4.1", "gpt-4.1-nano"]


async def test_without_a_key_the_notice_explains_the_offline_model(
    worker_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    result = await alone(offline(worker_url))
    assert (result["model"], result["cost_usd"]) == ("local:text", 0)
    assert "no model key is set" in result["notice"]
    assert result["output"]["offline"] is True
    agent = rows(engine, agent_traces)[0]
    assert (agent["notice"], agent["model"]) == (result["notice"], "local:text")
    noticed = [payload["notice"] for kind, payload in log_of(engine) if kind == "agent_update" and not payload["node"]]
    assert noticed == [result["notice"]] * 2


async def test_a_failure_is_recorded_without_its_secrets(
    openai_server: OpenAIServer, worker_url: str, engine: Engine
) -> None:
    message = f"Incorrect API key provided: {KEY}. data:image/png;base64,{'A' * 200}"
    openai_server.script(status=401, error={"message": message, "code": "invalid_api_key"})
    with pytest.raises(AgentFailure, match="Incorrect API key") as raised:
        await alone(online(worker_url, openai_server))
    assert classify(raised.value).final
    assert raised.value.recorded
    [error] = rows(engine, workflow_errors)
    assert (error["category"], error["action"], error["agent_name"]) == ("auth", "fail", "text")
    assert (error["node"], error["model"]) == ("analyse", "openai:gpt-4.1-mini")
    assert (error["task_id"], error["try_number"], error["attempt"]) == ("work", 1, 1)
    assert timeline(engine)[-3:] == [
        "agent_update text/analyse failed", "error text/analyse None", "agent_update text/None failed",
    ]  # fmt: skip
    assert [row["state"] for row in rows(engine, agent_traces)] == ["failed", "success", "failed"]
    everything = dumps([rows(engine, workflow_errors), rows(engine, agent_traces), log_of(engine)])
    assert KEY not in everything
    assert "AAAA" not in everything


async def test_a_transient_error_is_left_to_the_tasks_retries(
    openai_server: OpenAIServer, worker_url: str, engine: Engine
) -> None:
    openai_server.script("server_error")
    with pytest.raises(Exception, match="500"):
        await alone(online(worker_url, openai_server, error_rules=NO_RETRIES))
    result = await alone(online(worker_url, openai_server), replace(TASK, try_number=2))
    assert result["attempts"] == 2
    [error] = rows(engine, workflow_errors)
    assert (error["category"], error["action"], error["recovered"]) == ("server", "task_retry", True)
    agents = [row for row in rows(engine, agent_traces) if row["node"] is None]
    assert [(row["try_number"], row["state"]) for row in agents] == [(1, "failed"), (2, "success")]
    assert agents[0]["trace_id"] == agents[1]["trace_id"]


async def test_an_error_text_that_postgres_rejects(
    openai_server: OpenAIServer, worker_url: str, engine: Engine
) -> None:
    openai_server.script(status=500, body='{"error": {"message": "a\\u0000b \\ud83d", "code": "c"}}')
    with pytest.raises(Exception, match="500"):
        await alone(online(worker_url, openai_server, error_rules=NO_RETRIES))
    assert "a\ufffdb \ufffd" in rows(engine, workflow_errors)[0]["message"]
    assert timeline(engine)[-1] == "agent_update text/None failed"


@pytest.mark.parametrize(
    ("config", "input_data", "model", "message"),
    [
        (TEXT, {"query": "?"}, None, "text: is missing"),
        (TEXT, {"text": " "}, None, "text: is blank"),
        ({"type": "text"}, {"text": "x"}, "cohere:command-r", "needs a key: set COHERE_API_KEY"),
        ({"type": "{{ x }}"}, {"text": "x"}, None, "there is no agent"),
        ({"type": "vision"}, {"image_url": "ftp://x"}, None, "image_url"),
        ({"type": "vision"}, {"image_url": f"upload://{uuid.UUID(int=7)}"}, None, "image_url"),
    ],
)
async def test_invalid_input_is_a_final_failure(
    openai_server: OpenAIServer, worker_url: str, engine: Engine, config: Any, input_data: Any, model: Any, message: str
) -> None:
    with raises_failure(InputError, match=message):
        await alone(online(worker_url, openai_server), config=config, input_data=input_data, model=model)
    [error] = rows(engine, workflow_errors)
    assert (error["category"], error["action"]) == ("input", "fail")
    assert rows(engine, agent_traces)[0]["state"] == "failed"
    assert openai_server.requests == []


async def test_a_timeout(openai_server: OpenAIServer, worker_url: str, engine: Engine) -> None:
    openai_server.script(hold=True)
    with raises_failure(TimeoutError, match="longer than its timeout of 3 s"):
        await alone(online(worker_url, openai_server), timeout=3)  # long enough to reach the model on a busy machine
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.disconnected == 1)
    [error] = rows(engine, workflow_errors)
    assert (error["category"], error["action"]) == ("timeout", "task_retry")
    assert [row["state"] for row in rows(engine, agent_traces)] == ["failed", "success", "failed"]


async def test_a_client_timeout_inside_is_not_the_agents(openai_server: OpenAIServer, worker_url: str) -> None:
    openai_server.script("timeout")
    with pytest.raises(Exception, match="Request timed out") as raised:
        await alone(online(worker_url, openai_server, model_timeout=0.3, error_rules=NO_RETRIES), timeout=30)
    assert classify(raised.value).category == "timeout"


async def in_thread(work: Callable[[], Any]) -> BaseException | Any:
    """What a thread's work returned or raised, `CancelledError` too."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    await asyncio.to_thread(thread.join, 30)
    return outcome[0]


async def test_cancelling_closes_the_connection(openai_server: OpenAIServer, worker_url: str, engine: Engine) -> None:
    openai_server.script(hold=True)
    spec = parse_agent(TEXT, None)
    task = AgentTask(online(worker_url, openai_server), TASK)
    ended = asyncio.create_task(in_thread(lambda: task.run(lambda runner: run_single(runner, spec))))
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.in_flight == 1)
    task.cancel()
    failure = await ended
    assert isinstance(failure, AgentFailure)
    assert isinstance(failure.error, RunCancelledError)
    assert failure.recorded
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.in_flight == 0)
    assert [request.client_disconnected for request in openai_server.requests] == [True]
    assert [row["state"] for row in rows(engine, agent_traces)] == ["cancelled", "success", "cancelled"]
    assert timeline(engine)[-1] == "agent_update text/None cancelled"
    assert [(row["category"], row["action"]) for row in rows(engine, workflow_errors)] == [("cancelled", "fail")]


async def test_cancelling_before_the_start(openai_server: OpenAIServer, worker_url: str) -> None:
    task = AgentTask(online(worker_url, openai_server), TASK)
    task.cancel()
    spec = parse_agent(TEXT, None)
    ended = await in_thread(lambda: task.run(lambda runner: run_single(runner, spec)))
    assert isinstance(ended, AgentFailure)
    assert isinstance(ended.error, RunCancelledError)
    assert openai_server.requests == []


async def test_an_unavailable_database_does_not_fail_an_agent(
    openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "_RETRY_DELAYS", (0.05, 0.05))
    monkeypatch.setattr(runner_module, "CLAIM_SECONDS", 0.5)
    with caplog.at_level(logging.WARNING):
        result = await alone(online(CLOSED, openai_server))
    assert result["output"]["answer"].startswith("You said")
    assert "could not be written" in caplog.text
    assert "pw-of-nobody" not in caplog.text


async def test_a_hanging_database_delays_an_agent_only_briefly(
    openai_server: OpenAIServer, worker_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "FLUSH_SECONDS", 0.5)
    monkeypatch.setattr(runner_module, "CLAIM_SECONDS", 0.5)
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE visual_ai.workflow_executions"))
        async with asyncio.timeout(5):
            result = await alone(online(worker_url, openai_server))
    assert result["output"]["answer"].startswith("You said")


async def test_everything_is_recorded_when_the_database_recovers(
    openai_server: OpenAIServer, worker_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Database.run
    failures = iter([ConnectionResetError(), ConnectionResetError()])

    async def sometimes(self: Database, function: Any, *args: Any, **kwargs: Any) -> Any:
        if (failure := next(failures, None)) is not None:
            raise failure
        return await real(self, function, *args, **kwargs)

    monkeypatch.setattr(Database, "run", sometimes)
    monkeypatch.setattr(writer, "_RETRY_DELAYS", (0.01, 0.01, 0.01))
    await alone(online(worker_url, openai_server))
    assert (timeline(engine)[0], timeline(engine)[-1]) == (
        "agent_update text/None running",
        "agent_update text/None success",
    )


async def test_a_graph_waits_for_a_database_that_is_slower(
    openai_server: OpenAIServer, worker_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Database.run

    async def slowly(self: Database, function: Any, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0.1)
        return await real(self, function, *args, **kwargs)

    monkeypatch.setattr(Database, "run", slowly)
    monkeypatch.setattr(recorder_module, "QUEUE_LIMIT", 20)
    monkeypatch.setattr(observer_module, "UNWRITTEN_LIMIT", 10)
    async with running(online(worker_url, openai_server)) as runner:
        await run_single(runner, parse_agent(None, {"steps": 60, "items": []}, graph="tests.kit.graphs.foreign:loop"))
    assert runner.recorder.dropped == 0
    found = rows(engine, agent_traces)
    assert [row["state"] for row in found] == ["success"] * 61
    assert all(len(dumps([row["input"], row["output"]])) < 33 * 1024 for row in found)
    assert found[-1]["output"] is not None
    assert len(execution(engine)["output_data"]["output"]["items"]) == 60


async def test_far_too_many_records_leave_the_result_and_the_end(
    openai_server: OpenAIServer, worker_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(self: Any) -> None:
        """Don't wait."""

    monkeypatch.setattr(recorder_module, "QUEUE_LIMIT", 20)
    monkeypatch.setattr(observer_module.AgentObserver, "room", at_once)
    async with running(online(worker_url, openai_server)) as runner:
        runner.recorder.relax(5)
        await run_single(runner, parse_agent(None, {"steps": 60, "items": []}, graph="tests.kit.graphs.foreign:loop"))
    assert runner.recorder.dropped > 0
    (agent,) = [row for row in rows(engine, agent_traces) if row["node"] is None]
    assert agent["state"] == "success"
    assert f"{runner.recorder.dropped} records of this try are missing" in agent["notice"]
    assert log_of(engine)[-1][1]["notice"] == agent["notice"]
    assert len(execution(engine)["output_data"]["output"]["items"]) == 60


async def test_a_rejected_record_does_not_affect_the_others(
    openai_server: OpenAIServer, worker_url: str, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(connection: Any, execution_id: str) -> Any:
        connection.execute(text("SELECT 1 / 0"))

    bad = RowsWithEvents(fails)

    async with running(online(worker_url, openai_server)) as runner:
        runner.recorder.put(bad)
        await run_single(runner, parse_agent(TEXT, None))
        runner.recorder.put(bad)
    assert runner.recorder.dropped == 2
    assert (timeline(engine)[0], timeline(engine)[-1]) == (
        "agent_update text/None running",
        "agent_update text/None success",
    )
    assert execution(engine)["output_data"] is not None


async def test_a_superseded_try_reports_nothing(openai_server: OpenAIServer, worker_url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        later = TaskState("work", -1, 2, "running")
        observations.observe(connection, RunState("dag", "run", "running"), [later])
    await alone(online(worker_url, openai_server))
    assert timeline(engine) == []


# Teams


async def together(
    settings: Settings, agents: list[dict[str, Any]], mode: str = "parallel", synthesis: Any = False, **conf: Any
) -> dict[str, Any]:
    task = replace(TASK, conf={**TASK.conf, **conf})
    async with running(settings, task) as runner:
        specs = parse_team(agents, mode)
        return await run_team(runner, specs, mode, synthesis=synthesis_spec(synthesis, specs, None))


async def test_a_team(openai_server: OpenAIServer, worker_url: str, engine: Engine) -> None:
    usage = {"input_tokens": 10, "output_tokens": 1}
    for name in ("first", "second"):
        openai_server.script(contains=f"text of {name}", content=f"{name} answer", usage=usage)
    openai_server.script(contains="first answer", content="summed up", usage=usage)
    agents = [{"name": name, **TEXT, "input_data": {"text": f"text of {name}"}} for name in ("first", "second")]
    result = await together(online(worker_url, openai_server), agents, synthesis=True)
    assert {name: output["answer"] for name, output in result["results"].items()} == {
        "first": "first answer", "second": "second answer",
    }  # fmt: skip
    assert result["summary"] == "summed up"
    assert result["usage"] == {"input_tokens": 30, "output_tokens": 3}
    assert result["cost_usd"] == pytest.approx(3 * (10 * 0.4e-6 + 1.6e-6))
    assert {name: entry["state"] for name, entry in result["agents"].items()} == dict.fromkeys(
        ("first", "second", "synthesis"), "success"
    )
    run = execution(engine)
    assert run["output_data"] == result
    assert (run["input_tokens"], run["output_tokens"]) == (30, 3)
    assert "first answer" in openai_server.requests[-1].prompt
    assert "second answer" in openai_server.requests[-1].prompt
    agents_rows = [row for row in rows(engine, agent_traces) if row["node"] is None]
    assert {row["trace_id"] for row in agents_rows} == {result["trace_id"]}


async def test_the_agents_of_a_parallel_team_run_concurrently(openai_server: OpenAIServer, worker_url: str) -> None:
    openai_server.script(hold=True, times=None)
    agents = [{"name": str(number), **TEXT} for number in range(5)]
    working = asyncio.create_task(together(online(worker_url, openai_server), agents))
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.in_flight == 5)
    openai_server.release()
    assert len((await working)["results"]) == 5


async def test_a_sequential_team_passes_results_on(openai_server: OpenAIServer, worker_url: str) -> None:
    openai_server.script(content="answer of the first", contains="the beginning")
    openai_server.script(content="answer of the second", contains="And then?")
    agents = [
        {"name": "first", **TEXT, "input_data": {"text": "the beginning"}},
        {"name": "second", **TEXT, "input_data": {"query": "And then?"}},
        {"name": "third", "type": "synthesis", "input_data": {}},
    ]
    result = await together(online(worker_url, openai_server), agents, "sequential")
    prompts = [request.prompt for request in openai_server.requests]
    assert openai_server.max_in_flight == 1
    assert "answer of the first" not in prompts[0]
    assert "answer of the first" in prompts[1]
    assert "answer of the first" in prompts[2]
    assert "answer of the second" in prompts[2]
    assert list(result["results"]) == ["first", "second", "third"]


async def test_a_required_agent_that_fails_ends_the_team(
    openai_server: OpenAIServer, worker_url: str, engine: Engine
) -> None:
    openai_server.script("bad_request", contains="text of b")
    agents = [{"name": name, **TEXT, "input_data": {"text": f"text of {name}"}} for name in "abc"]
    with pytest.raises(Exception, match="Invalid value"):
        await together(online(worker_url, openai_server), agents, "sequential", synthesis=True)
    assert [request.prompt.count("text of c") for request in openai_server.requests] == [0, 0]
    states = {row["agent_name"]: row["state"] for row in rows(engine, agent_traces) if row["node"] is None}
    assert states == {"a": "success", "b": "failed"}
    assert execution(engine)["output_data"] is None


async def test_the_other_agents_of_a_parallel_team_finish(
    openai_server: OpenAIServer, worker_url: str, engine: Engine
) -> None:
    openai_server.script("bad_request", contains="text of b")
    openai_server.script(contains="text of a", delay=0.3)
    agents = [{"name": name, **TEXT, "input_data": {"text": f"text of {name}"}} for name in "ab"]
    with pytest.raises(Exception, match="Invalid value"):
        await together(online(worker_url, openai_server), agents, synthesis=True)
    states = {row["agent_name"]: row["state"] for row in rows(engine, agent_traces) if row["node"] is None}
    assert states == {"a": "success", "b": "failed"}


@pytest.mark.parametrize("mode", ["parallel", "sequential"])
async def test_an_optional_agent_may_fail(
    openai_server: OpenAIServer, worker_url: str, engine: Engine, mode: str
) -> None:
    secret = {"message": f"no: {KEY}", "code": None}
    openai_server.script(status=400, error=secret, contains="text of a")
    agents: list[dict[str, Any]] = [
        {"name": name, **TEXT, "input_data": {"text": f"text of {name}"}, "required": name != "a"} for name in "ab"
    ]
    result = await together(online(worker_url, openai_server), agents, mode, synthesis=True)
    assert result["results"]["a"] is None
    assert result["results"]["b"]["answer"]
    assert result["agents"]["a"]["state"] == "failed"
    assert "no: [redacted]" in result["agents"]["a"]["error"]
    assert result["summary"]
    assert result["agents"]["synthesis"]["state"] == "success"
    assert KEY not in dumps([result, rows(engine, workflow_errors)])


async def test_an_agent_may_have_the_name_of_the_synthesis(openai_server: OpenAIServer, worker_url: str) -> None:
    result = await together(online(worker_url, openai_server), [{"name": "synthesis", **TEXT}], synthesis=True)
    assert list(result["agents"]) == ["synthesis", "synthesis_"]


# Pictures


def uploaded(engine: Engine, content: bytes, user: str = "ulla") -> str:
    with engine.begin() as connection:
        return images.add(
            connection, user_id=user, media_type="image/png", width=64, height=48,
            sha256=sha256(content).hexdigest(), content=content,
        )  # fmt: skip


async def test_an_upload_is_read_with_the_workers_rights(
    openai_server: OpenAIServer, worker_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = uploaded(engine, encode(photo(64, 48)))
    task = replace(TASK, user="ulla")
    vision: Any = {"config": {"type": "vision"}, "input_data": {"image_url": f"upload://{image_id}"}}
    result = await alone(online(worker_url, openai_server), task, **vision)
    assert result["output"]["image"]["width"] == 64
    assert len(openai_server.requests[0].images) == 1

    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", worker_url)
    get_settings.cache_clear()
    try:
        assert (await asyncio.to_thread(check_picture, f"upload://{image_id}", task))["height"] == 48
        planned = await asyncio.to_thread(plan_team, {"image_url": f"upload://{image_id}", "text": "and a text"}, task)
        with pytest.raises(InputError, match="image_url"):
            await asyncio.to_thread(check_picture, f"upload://{uuid.UUID(int=1)}", task)
        with pytest.raises(InputError, match="no such upload"):
            await asyncio.to_thread(check_picture, f"upload://{image_id}", replace(task, user="uwe"))
    finally:
        get_settings.cache_clear()
    assert [agent["name"] for agent in planned] == ["vision", "text"]


@pytest.mark.parametrize(
    ("known", "reads"),
    [
        ({"user": "ulla"}, True),
        ({"system": {"user_id": "ulla", "triggered_by": "otto"}}, True),
        ({"system": {"user_id": "otto", "triggered_by": "ulla"}}, True),
        ({"user": "uwe"}, False),
        ({"user": "uwe", "run_type": "scheduled"}, False),
        ({"run_type": "manual"}, False),
        ({"run_type": "scheduled"}, True),
        ({"user": "uwe", "conf": {"_visual_ai": {"user_id": "ulla", "triggered_by": "ulla"}}}, False),
    ],
)
async def test_a_run_reads_uploads_of_its_user_only(
    openai_server: OpenAIServer, worker_url: str, engine: Engine, known: dict[str, Any], reads: bool
) -> None:
    image_id = uploaded(engine, encode(photo(64, 48)))
    settings = online(worker_url, openai_server)
    vision: Any = {"config": {"type": "vision"}, "input_data": {"image_url": f" Upload://{image_id.upper()}"}}
    # The picture is in this process's cache.
    await alone(settings, replace(TASK, dag_run_id="first", user="ulla"), **vision)
    database = Database(make_async_engine(worker_url, application="test", pool_size=1))
    task = await replace(TASK, **known).verified(database)
    await database.close()
    if reads:
        assert (await alone(settings, task, **vision))["output"]["image"]["width"] == 64
    else:
        with pytest.raises(Exception, match="there is no such upload"):
            await alone(settings, task, **vision)


async def test_a_run_may_be_given_an_upload_of_somebody_else(
    openai_server: OpenAIServer, worker_url: str, engine: Engine
) -> None:
    image_id = uploaded(engine, encode(photo(64, 48)))
    task = replace(TASK, system={"user_id": "otto", "shared_uploads": [f"upload://{image_id}"]})
    found = await alone(
        online(worker_url, openai_server),
        task,
        config={"type": "vision"},
        input_data={"image_url": f"upload://{image_id}"},
    )
    assert found["output"]["image"]["width"] == 64


async def test_no_picture_bytes_are_recorded(openai_server: OpenAIServer, worker_url: str, engine: Engine) -> None:
    encoded = base64.b64encode(encode(photo(64, 48))).decode()
    input_data = {"image_url": f"data:image/png;base64,{encoded}"}
    task = replace(TASK, conf=input_data)
    await alone(online(worker_url, openai_server), task, config={"type": "vision"})
    everything = dumps([rows(engine, agent_traces), log_of(engine), execution(engine)])
    assert encoded[100:160] not in everything
    assert "bytes, " in everything


# The operators on top of it


@pytest.fixture
def environment(openai_server: OpenAIServer, worker_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings of a task's process."""
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", worker_url)
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("VISUAL_AI_ERROR_POLICY", dumps(NO_RETRIES))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def context(conf: dict[str, Any], **params: Any) -> Any:
    """What Airflow gives a task, as far as it is used."""
    return {
        "ti": SimpleNamespace(dag_id="dag", run_id="run", task_id="work", map_index=None, try_number=3, id="id"),
        "dag_run": SimpleNamespace(
            conf=conf, run_type="manual", start_date=datetime.now(UTC), triggering_user_name=None
        ),
        "params": params,
    }


def test_an_operator_runs_its_agent_on_the_runs_input(
    environment: None, openai_server: OpenAIServer, engine: Engine
) -> None:
    operator = LangGraphOperator(task_id="work", agent_config=TEXT, input_data={...})
    result = operator.execute(context({"text": "from the conf"}, query="from the params"))
    assert result["attempts"] == 3
    assert "from the conf" in openai_server.requests[0].prompt
    assert "from the params" in openai_server.requests[0].prompt
    dumps(result)
    assert rows(engine, agent_traces)[0]["map_index"] == -1


def test_a_team_operator(environment: None, openai_server: OpenAIServer) -> None:
    operator = MultiAgentOperator(task_id="work", agents=[{"name": "a", **TEXT}, {"name": "b", **TEXT}])
    result = operator.execute(context({"text": "x"}))
    assert list(result["results"]) == ["a", "b"]
    assert result["summary"]


@pytest.mark.parametrize(("preset", "final"), [("quota", True), ("auth", True), ("server_error", False)])
def test_an_operator_reports_final_failures_to_airflow(
    environment: None, openai_server: OpenAIServer, preset: Any, final: bool
) -> None:
    openai_server.script(preset)
    operator = LangGraphOperator(task_id="work", agent_config=TEXT)
    with pytest.raises(Exception, match=r".") as raised:
        operator.execute(context({"text": "x"}))
    assert isinstance(raised.value, AirflowFailException if final else openai.InternalServerError)
    assert not any(isinstance(cause, AgentFailure) for cause in error_chain(raised.value))  # nor in Airflow's log
    failure = operator.failure_behind(raised.value)
    assert isinstance(failure, AgentFailure)
    assert failure.recorded  # one row for one error


async def test_killing_an_operator(environment: None, openai_server: OpenAIServer) -> None:
    openai_server.script(hold=True)
    operator = LangGraphOperator(task_id="work", agent_config=TEXT)
    operator.on_kill()  # before it ran
    ended = asyncio.create_task(in_thread(lambda: operator.execute(context({"text": "x"}))))
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.in_flight == 1)
    operator.on_kill()
    assert isinstance(await ended, AirflowFailException)  # it is not tried again
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.disconnected == 1)


def test_a_stored_result_replaces_that_of_the_last_agent(environment: None, engine: Engine) -> None:
    stored = run_result.store("dag", "run", {"output": {"answer": ("x", "y")}, "n": float("nan")})
    assert stored == {"execution_id": str(execution(engine)["id"])}
    assert execution(engine)["output_data"] == {"output": {"answer": ["x", "y"]}, "n": None}
    with pytest.raises(InputError, match=r"^result/output/answer: contains a NUL character"):
        run_result.store("dag", "run", {"output": {"answer": "x\x00"}})


async def test_what_a_graph_writes_to_its_stream_writer_reaches_the_stream(
    task_settings: Settings, engine: Engine
) -> None:
    key = "sk-proj-0123456789abcdefghij"
    await alone(task_settings, config=None, input_data={"key": key}, graph="tests.kit.graphs.writing:reporting")
    found = [payload for kind, payload in log_of(engine) if kind == "custom"]
    assert [(one["agent"], one["node"]) for one in found] == [
        ("reporting", "read"), ("reporting", "read"), ("reporting", "inner/large"),
    ]  # fmt: skip
    assert found[0]["data"]["progress"] == 0.5
    assert key not in str(found)
    assert found[1]["data"] == "half done"
    assert (found[2]["data"]["truncated"], found[2]["data"]["bytes"]) == (True, 50_151)
