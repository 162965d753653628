"""Records and events of errors that agents recover from, or that are waited out elsewhere."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from backend.core.settings import Settings
from backend.core.workflow_error_handler import AgentFailure, classify
from backend.db.engine import Database
from backend.models.resolve import ModelCredentials
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import run_batch
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent, parse_supervisor, parse_team, synthesis_spec
from backend.runtime.team.run import run_team
from tests.kit.clock import Clock
from tests.kit.graphs import calling
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres

HERE = "tests.kit.graphs.calling"
TEXT = {"text": "The harbour was quiet. Two ships lay at anchor."}
WORDS = "Two ships lay at anchor in the quiet harbour, and a third one had left for the north."

MakeRunner = Callable[..., AgentRunner]
Rows = list[tuple[Any, ...]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_runner(
    pg: Postgres, database: Database, openai_server: OpenAIServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> MakeRunner:
    """Runners of successive tries of one task; their waits take no time."""
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")  # for graphs that make their models themselves
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    settings = Settings(
        database_url_override=pg.worker_url,
        openai_base_url=openai_server.base_url,
        openai_api_key="test-key",
        rate_limiter=False,  # it has no part in the tests' time
    )
    run_id = uuid.uuid4().hex

    def make(try_number: int = 1, **more: Any) -> AgentRunner:
        task = TaskContext("dag", run_id, "task", -1, try_number, {})
        return AgentRunner(settings, database, task, timing=clock.timing, **more)

    return make


async def run(runner: AgentRunner, **more: Any) -> dict[str, Any]:
    async with runner:
        return await run_single(runner, parse_agent({"type": "text"}, TEXT, **more))


async def run_graph(runner: AgentRunner, graph: str, **more: Any) -> dict[str, Any]:
    async with runner:
        return await run_single(runner, parse_agent(None, {"question": "Ships?"}, graph=f"{HERE}:{graph}", **more))


async def rows(database: Database, query: str) -> Rows:
    async with database.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


async def errors(database: Database, columns: str = "category, action, attempt, recovered") -> Rows:
    return await rows(database, f"SELECT {columns} FROM visual_ai.workflow_errors ORDER BY occurred_at")


async def events_of(database: Database, kind: str) -> list[dict[str, Any]]:
    query = f"SELECT payload FROM visual_ai.workflow_events WHERE event_type = '{kind}' ORDER BY seq"
    return [payload for (payload,) in await rows(database, query)]


def shown(tokens: list[dict[str, Any]]) -> list[str]:
    """What a client shows if it drops the text of superseded attempts."""
    latest: dict[int, tuple[int, str]] = {}
    for token in tokens:
        attempt, text_so_far = latest.get(token["call"], (0, ""))
        if token["attempt"] > attempt:
            text_so_far = ""
        latest[token["call"]] = (token["attempt"], text_so_far + token["text"])
    return [text_so_far for _, text_so_far in latest.values()]


# Built-in agents


async def test_the_result_names_the_model_that_answered(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer
) -> None:
    openai_server.script("context_length")
    openai_server.script(content=WORDS, usage={"input_tokens": 100, "output_tokens": 20})
    result = await run(make_runner(), model="gpt-4.1")
    assert result["output"]["answer"] == WORDS
    assert result["model"] == "openai:gpt-4.1-mini"
    assert result["notice"] == "openai:gpt-4.1 could not answer (context_length): openai:gpt-4.1-mini did"
    assert [request.model for request in openai_server.requests] == ["gpt-4.1", "gpt-4.1-mini"]
    found = await errors(database, "category, action, attempt, model, node, recovered")
    assert found == [("context_length", "fallback", 1, "openai:gpt-4.1", "analyse", True)]
    traces = await rows(
        database, "SELECT node, model, retries, fallbacks, attempt FROM visual_ai.agent_traces ORDER BY started_at"
    )
    assert traces[0] == (None, "openai:gpt-4.1-mini", 0, 1, 1)
    assert ("analyse", "openai:gpt-4.1-mini", 0, 1, 2) in traces
    assert result["cost_usd"] == pytest.approx(100 * 0.4e-6 + 20 * 1.6e-6)  # of the model that answered
    last = (await events_of(database, "agent_update"))[-1]
    assert (last["model"], last["fallbacks"], last["notice"]) == (result["model"], 1, result["notice"])


async def test_the_text_of_a_broken_stream_is_superseded(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer, clock: Clock
) -> None:
    openai_server.script(content=WORDS, cut_after=8, token_delay=0.02)
    openai_server.script(content=WORDS, end_after=5)
    openai_server.script(content=WORDS)
    result = await run(make_runner())
    assert result["output"]["answer"] == WORDS
    tokens = await events_of(database, "token")
    assert {token["call"] for token in tokens} == {1}
    assert [token["attempt"] for token in tokens] == sorted(token["attempt"] for token in tokens)
    assert {token["attempt"] for token in tokens} == {1, 2, 3}
    assert shown(tokens) == [WORDS]
    first = "".join(token["text"] for token in tokens if token["attempt"] == 1)
    assert first
    assert WORDS.startswith(first)
    # The text is dropped when the attempt has failed, not only when the next one speaks.
    kinds = await rows(database, "SELECT event_type, payload FROM visual_ai.workflow_events ORDER BY seq")
    [second, third] = [
        index for index, (kind, payload) in enumerate(kinds) if kind == "token" and payload["text"] == ""
    ]
    assert [kinds[index + 1][0] for index in (second, third)] == ["error", "error"]
    assert [kinds[index + 1][1]["action"] for index in (second, third)] == ["retry", "retry"]
    assert [kinds[index + 1][1]["retry_in"] for index in (second, third)] == clock.waits == [1.0, 2.0]
    updates = [
        (update["state"], update["attempt"])
        for update in await events_of(database, "agent_update")
        if update["node"] == "analyse"
    ]
    assert updates == [("running", 1), ("running", 2), ("running", 3), ("success", 3)]
    assert await errors(database) == [("server", "retry", 1, True), ("server", "retry", 2, True)]


async def test_two_calls_of_an_agent_are_told_apart(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer
) -> None:
    openai_server.script(content="There are two ships.")
    openai_server.script(contains="There are two ships.", cut_after=4, content={"ships": 2, "left_at": "dawn"})
    openai_server.script(contains="There are two ships.", content={"ships": 2})
    schema = {"type": "object", "properties": {"ships": {"type": "integer"}}, "required": ["ships"]}
    await run(make_runner(), output_schema=schema)
    assert shown(await events_of(database, "token")) == ["There are two ships.", '{"ships":2}']


async def test_neither_keys_nor_pictures_are_recorded(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer
) -> None:
    key = "0123456789abcdef0123456789abcdef"  # as Azure's are, with nothing to know them by
    picture = f"data:image/png;base64,{'A' * 400}"
    body = {"error": {"message": f"key {key} may not: {picture}", "type": "server_error", "code": None}}
    openai_server.script(status=500, body=body, headers={"x-ratelimit-limit-tokens": "30000", "set-cookie": "s=1"})
    credentials = ModelCredentials("openai", SecretStr(key), openai_server.base_url)
    async with make_runner(credentials=credentials) as runner:
        spec = parse_agent({"type": "text"}, {"text": f"{TEXT['text']} {picture} bearer {key}"}, model="gpt-4.1-mini")
        await run_single(runner, spec)
    [(message, context)] = await errors(database, "message, context")
    everything = f"{message} {context} {await events_of(database, 'error')}"
    assert key not in everything
    assert "AAAA" not in everything
    assert "s=1" not in everything
    assert "key [redacted] may not: data:image/png;base64,[300 bytes, " in message
    assert context["headers"]["x-ratelimit-limit-tokens"] == "30000"
    assert context["request_id"] == f"req_{openai_server.requests[0].number}"
    assert context["prompt"].startswith("Summarise this text")
    assert context["prompt_chars"] > 400
    assert any("APIError" in link or "InternalServerError" in link for link in context["chain"])


async def test_an_agents_own_error_policy(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer
) -> None:
    openai_server.script("server_error", times=None)
    policy = {"server": {"retries": "1"}, "fallbacks": ["gpt-4o-mini"]}
    with pytest.raises(Exception, match="500"):
        await run(make_runner(), error_policy=policy)
    assert [request.model for request in openai_server.requests] == ["gpt-4.1-mini"] * 2 + ["gpt-4o-mini"] * 2
    assert [action for _, action, *_ in await errors(database)] == ["retry", "fallback", "retry", "task_retry"]


async def test_the_error_that_ended_a_try_is_recovered_by_the_next(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer
) -> None:
    openai_server.script("rate_limit", retry_after=600)
    with pytest.raises(AgentFailure, match="429") as raised:
        await run(make_runner(1))
    assert raised.value.reschedule_after == 600
    assert not classify(raised.value).final
    assert await errors(database, "action, retry_in, recovered") == [("reschedule", 600, False)]
    await run(make_runner(1))  # the same try, rescheduled
    assert await errors(database, "action, retry_in, recovered") == [("reschedule", 600, True)]
    nodes = await rows(database, "SELECT node FROM visual_ai.agent_traces WHERE node = 'prepare'")
    assert len(nodes) == 1  # it went on at the node that failed


async def test_calls_are_admitted_by_and_reported_to_the_shared_gate(
    pg: Postgres, database: Database, openai_server: OpenAIServer
) -> None:
    openai_server.script("rate_limit", retry_after=0.3, retry_after_format="ms")
    settings = Settings(
        database_url_override=pg.worker_url, openai_base_url=openai_server.base_url, openai_api_key="test-key"
    )
    await run(AgentRunner(settings, database, TaskContext("dag", "run", "task", -1, 1, {})))
    first, second = openai_server.requests
    assert second.time - first.time >= 0.3
    [(model, limited)] = await rows(database, "SELECT model, rate_limited FROM visual_ai.model_limits")
    assert model.startswith("openai:gpt-4.1-mini@")
    assert limited == 1
    assert await errors(database) == [("rate_limit", "retry", 1, True)]


async def test_a_supervisor_and_a_synthesis_are_called_under_the_policy(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer
) -> None:
    supervising = "You lead a team of agents"
    openai_server.script("overloaded", contains=supervising)
    for decision in ("reader", "FINISH"):
        content = {"next": decision, "instruction": None, "reason": "It is so."}
        openai_server.script(contains=supervising, content=content)
    openai_server.script("rate_limit", retry_after=2, contains="Several agents worked")
    agents = [{"name": "reader", "type": "text", "input_data": TEXT}]
    specs = parse_team(agents, "supervisor")
    async with make_runner() as runner:
        synthesis = synthesis_spec(True, specs, None)
        result = await run_team(runner, specs, "supervisor", synthesis=synthesis, supervisor=parse_supervisor(None))
    assert result["summary"]
    assert await errors(database, "category, agent_name, action, recovered") == [
        ("server", "supervisor", "retry", True),
        ("rate_limit", "synthesis", "retry", True),
    ]


# Users' own graphs


@pytest.mark.parametrize("graph", ["calling_late", "calling_sync", "calling_async"])
async def test_a_graph_resumes_at_the_failed_node(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer, clock: Clock, graph: str
) -> None:
    calling.prepared.clear()
    openai_server.script("rate_limit", retry_after=7)
    openai_server.script("server_error")
    openai_server.script(content=WORDS)
    result = await run_graph(make_runner(), graph)
    assert result["output"]["answer"] == WORDS
    assert clock.waits == [7.0, 1.0]
    assert len(openai_server.requests) == 3
    assert calling.prepared == (["Ships?"] if graph == "calling_late" else [])
    assert await errors(database, "category, action, attempt, node, retry_in, recovered") == [
        ("rate_limit", "retry", 1, "ask", 7, True),
        ("server", "retry", 2, "ask", 1, True),
    ]
    traces = await rows(
        database,
        "SELECT state, attempt FROM visual_ai.agent_traces WHERE node = 'ask' ORDER BY started_at",
    )
    assert traces == [("failed", 1), ("failed", 2), ("success", 3)]
    assert await rows(database, "SELECT retries FROM visual_ai.agent_traces WHERE node IS NULL") == [(2,)]


async def test_the_text_of_a_failed_node_is_superseded(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer
) -> None:
    # Pieces that arrive together with their error may not be told at all, and then nothing is superseded.
    openai_server.script(content=WORDS, hold_after=8, cut_after=8)
    openai_server.script(content=WORDS)
    running = asyncio.create_task(run_graph(make_runner(), "calling_late"))
    while not running.done():
        if await events_of(database, "token"):
            openai_server.release()
        await asyncio.sleep(0.01)
    await running
    tokens = await events_of(database, "token")
    assert {token["attempt"] for token in tokens} == {1, 2}
    assert shown(tokens) == [WORDS]


async def test_a_graph_that_keeps_failing_is_left_to_the_tasks_retries(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer, clock: Clock
) -> None:
    openai_server.script("server_error", times=None)
    with pytest.raises(Exception, match="500"):
        await run_graph(make_runner(), "calling_late")
    assert clock.waits == [1, 2, 4]
    assert len(openai_server.requests) == 4
    assert [action for _, action, *_ in await errors(database)] == ["retry"] * 3 + ["task_retry"]


async def test_a_graph_waits_outside_the_worker_for_long(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer
) -> None:
    openai_server.script("rate_limit", retry_after=600)
    with pytest.raises(AgentFailure, match="429") as raised:
        await run_graph(make_runner(), "calling_late")
    assert raised.value.reschedule_after == 600
    assert await errors(database, "action, retry_in, node") == [("reschedule", 600, "ask")]


@pytest.mark.parametrize("preset", ["auth", "bad_request", "context_length"])
async def test_permanent_errors_are_not_retried(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer, clock: Clock, preset: Any
) -> None:
    openai_server.script(preset, times=None)
    with pytest.raises(Exception, match=r"."):
        await run_graph(make_runner(), "calling_late")
    assert len(openai_server.requests) == 1
    assert clock.waits == []
    [(action, attempt, context)] = await errors(database, "action, attempt, context")
    assert (action, attempt) == ("fail", 1)
    assert context["request_id"] == f"req_{openai_server.requests[0].number}"


async def test_retries_that_a_graphs_code_asks_for_are_its_own(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer
) -> None:
    openai_server.script("server_error", headers={"retry-after-ms": "10"}, times=2)
    openai_server.script(content=WORDS)
    await run_graph(make_runner(), "calling_patiently")
    assert len(openai_server.requests) == 3
    assert await errors(database) == []


async def test_without_checkpoints_a_graph_is_not_restarted(
    make_runner: MakeRunner, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    async def refuse(*_: Any, **__: Any) -> None:
        raise OperationalError("", {}, OSError())

    openai_server.script("server_error", times=None)
    runner = make_runner()
    monkeypatch.setattr(runner.database, "run", refuse)
    monkeypatch.setattr("backend.observation.recording.writer._RETRY_DELAYS", ())
    with pytest.raises(Exception, match="500"):
        await run_graph(runner, "calling_late")
    assert len(openai_server.requests) == 1


# Many at once


async def test_a_long_wait_stops_a_batch_and_the_next_try_runs_the_rest(
    make_runner: MakeRunner, database: Database, openai_server: OpenAIServer
) -> None:
    openai_server.script("rate_limit", retry_after=600, nth=2)
    inputs = [{"text": f"Text number {number}."} for number in range(6)]
    spec = parse_agent({"type": "text"}, None)
    plan = BatchPlan(max_concurrency=1, on_item_error="continue")
    async with make_runner(1) as runner:
        with pytest.raises(AgentFailure, match="429") as raised:
            await run_batch(runner, spec, inputs, plan)
    assert raised.value.reschedule_after == 600
    assert len(openai_server.requests) == 2
    async with make_runner(1) as runner:
        result = await run_batch(runner, spec, inputs, plan)
    assert (result["batch"]["succeeded"], result["batch"]["failed"]) == (6, 0)
    assert len(openai_server.requests) == 7  # the first item was done
    used = await rows(database, "SELECT sum(output_tokens) FROM visual_ai.agent_traces WHERE node IS NOT NULL")
    assert used == [(result["usage"]["output_tokens"],)]
    assert await errors(database, "action, item_index, recovered") == [("reschedule", 1, True)]


async def test_a_team_leaves_the_worker_as_a_whole(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script("rate_limit", retry_after=600, contains="text of b")
    agents = [{"name": name, "type": "text", "input_data": {"text": f"text of {name}"}} for name in "ab"]
    for expected in (2, 3):  # what was done is not done again
        async with make_runner() as runner:
            working = run_team(runner, parse_team(agents, "parallel"), "parallel", synthesis=None)
            if expected == 2:
                with pytest.raises(AgentFailure, match="429") as raised:
                    await working
                assert raised.value.reschedule_after == 600
            else:
                assert set((await working)["results"]) == {"a", "b"}
        assert len(openai_server.requests) == expected
