"""Graphs of projects with environments of their own run as if they were in the product's."""

import asyncio
import json
import os
import signal
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Connection, text

from backend.core.budget import BudgetExceededError, parse_budget
from backend.core.errors.agent_errors import ReportedError
from backend.core.settings import Settings
from backend.core.turns import TURN, Turn
from backend.db import questions
from backend.db.engine import Database
from backend.db.questions import Given
from backend.observation.tracing.client import trace_client
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import run_batch
from backend.runtime.langgraph_json import GraphLoadError
from backend.runtime.remote.errors import ProjectProcessLostError
from backend.runtime.remote.hosts import Host
from backend.runtime.resources import AgentResources
from backend.runtime.runner import AgentRunner, AgentsWaiting, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from tests.kit.failures.raised import raises_failure
from tests.kit.fixtures.projects import OLDEST
from tests.kit.fixtures.tasks import NO_RETRIES
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.langfuse import LangfuseServer
from tests.kit.servers.postgres import Postgres

BOTH = pytest.mark.parametrize("project", ["pinned", "old"])
"""With the newest LangGraph, and with the oldest."""

Make = Callable[..., AgentRunner]


@pytest.fixture
def openai_server(openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> OpenAIServer:
    """The server that the test's projects call, which therefore have processes of their own."""
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    return openai_server


@pytest.fixture
def make(pg: Postgres, database: Database, foreign_projects: Path) -> Make:
    """Makes runners for successive tries of one task."""
    settings = Settings(database_url_override=pg.worker_url, projects_dir=str(foreign_projects), error_rules=NO_RETRIES)
    run_id = f"run {time.monotonic_ns()}"

    def make(try_number: int = 1, task_id: str = "task", turn: Turn | None = None, **options: Any) -> AgentRunner:
        system = {} if turn is None else {TURN: turn.to_json()}
        task = TaskContext("dag", run_id, task_id, -1, try_number, {}, user="ann", system=system)
        return AgentRunner(settings, database, task, **options)

    return make


async def run(runner: AgentRunner, graph: str, given: Any, **options: Any) -> dict[str, Any]:
    async with runner:
        return await run_single(runner, parse_agent(None, given, graph=graph, **options))


async def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    async with database.engine.begin() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


def _answer(question: str, given: Given, connection: Connection) -> None:
    questions.answer(connection, question, given)


async def until(what: Callable[[], Any]) -> Any:
    async with asyncio.timeout(30):
        while not (found := what()):  # noqa: ASYNC110  # another process changes it
            await asyncio.sleep(0.02)
        return found


def idle_hosts() -> list[int]:
    """The processes of projects that wait for a second."""
    return [
        one.pid for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [])[-2:] == ["--idle", "1.0"]
    ]


def begun(place: Path) -> list[int]:
    """The processes that have begun to work on a place, in order."""
    file = place.with_suffix(".begun")
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@BOTH
async def test_usage_tokens_and_records_are_those_of_any_graph(
    make: Make, database: Database, openai_server: OpenAIServer, project: str
) -> None:
    openai_server.script(contains="Step 1", content="One boat.")
    openai_server.script(contains="Step 2", content="Two boats.")
    result = await run(make(), f"{project}/steps", {"topic": "boats"})
    assert result["output"]["answers"] == ["One boat.", "Two boats."]
    assert result["output"]["notes"] == [{"text": "first"}, {"text": "after first"}]
    assert result["agent"] == "steps"
    assert result["model"] == "openai:gpt-4.1-mini"
    assert result["usage"]["output_tokens"] > 0
    assert result["cost_usd"] > 0
    nodes = "SELECT node, model, output_tokens > 0, state FROM visual_ai.agent_traces WHERE node IS NOT NULL"
    assert await rows(database, f"{nodes} ORDER BY started_at") == [
        ("first", "openai:gpt-4.1-mini", True, "success"),
        ("second", "openai:gpt-4.1-mini", True, "success"),
    ]
    events = "SELECT event_type, payload FROM visual_ai.workflow_events WHERE event_type IN ('token', 'custom')"
    told = await rows(database, f"{events} ORDER BY seq")
    assert "".join(payload["text"] for kind, payload in told if kind == "token") == "One boat.Two boats."
    assert [payload["data"] for kind, payload in told if kind == "custom"] == [{"doing": "first"}]


async def test_two_packages_of_one_name_run_with_their_own_versions(
    make: Make, database: Database, tmp_path: Path
) -> None:
    found = {}
    (tmp_path / "go").touch()
    for project in ("pinned", "old"):
        given = {"topic": str(tmp_path / "go")}
        found[project] = (await run(make(task_id=project), f"{project}/working", given))["output"]["about"]
    assert found["old"]["langgraph"] == OLDEST
    assert found["pinned"]["langgraph"] >= "1.2"
    assert found["pinned"]["tenacity"] < "9.2"
    assert found["pinned"]["package"] != found["old"]["package"]
    assert found["pinned"]["token"] == "a-secret-of-the-project"
    [(output,)] = await rows(
        database, "SELECT output::text FROM visual_ai.agent_traces WHERE node = 'tell_versions' LIMIT 1"
    )
    assert "a-secret-of-the-project" not in output


@BOTH
async def test_a_killed_process_costs_only_the_node_in_flight(
    make: Make, database: Database, tmp_path: Path, project: str
) -> None:
    place = tmp_path / "go"
    running = asyncio.create_task(run(make(), f"{project}/working", {"topic": str(place)}))
    [pid] = await until(lambda: begun(place))
    await asyncio.sleep(0.5)  # the checkpoint before a node may be a moment behind it
    os.kill(pid, signal.SIGKILL)
    with raises_failure(ProjectProcessLostError, match="has ended before the graph"):
        await running
    place.touch()
    result = await run(make(2), f"{project}/working", {"topic": str(place)})
    assert result["output"]["answers"] == ["worked"]
    assert len(begun(place)) == 2
    nodes = "SELECT node, state FROM visual_ai.agent_traces WHERE node IS NOT NULL ORDER BY started_at"
    assert await rows(database, nodes) == [("tell_versions", "success"), ("work", "failed"), ("work", "success")]
    assert await rows(database, "SELECT category, node FROM visual_ai.workflow_errors") == [("server", "work")]


async def test_a_cancelled_agent_leaves_no_process(make: Make, tmp_path: Path) -> None:
    place = tmp_path / "go"
    running = asyncio.create_task(run(make(), "pinned/working", {"topic": str(place)}))
    [pid] = await until(lambda: begun(place))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: not Path(f"/proc/{pid}").exists())


@BOTH
@pytest.mark.parametrize(("graph", "node"), [("asking", "ask"), ("nested", "inside/ask")])
async def test_each_question_gets_its_own_answer(
    make: Make, database: Database, project: str, graph: str, node: str
) -> None:
    asked = []
    for answer in ("ann", 3, None):
        runner = make()
        try:
            result = await run(runner, f"{project}/{graph}", {"topic": "boats"})
        except AgentsWaiting:
            look = partial(questions.open_of_task, task_id="task", map_index=-1)
            [found] = await database.run(look, "dag", runner.task.dag_run_id)
            assert found["node"] == node
            asked.append(found["content"]["question"])
            given = Given(answer, None, "ulla", "api")
            assert await database.run(questions.answer, str(found["id"]), given)
    assert asked == ["Who?", "How many?"]
    assert result["output"]["answers"] == ["ann 3"]


@BOTH
async def test_a_breakpoint_asks_before_it_is_passed(make: Make, database: Database, project: str) -> None:
    runner = make()
    with pytest.raises(AgentsWaiting):
        await run(runner, f"{project}/stopping", {"topic": "boats"})
    look = partial(questions.open_of_task, task_id="task", map_index=-1)
    [found] = await database.run(look, "dag", runner.task.dag_run_id)
    assert (found["kind"], found["node"]) == ("breakpoint", "ask")
    assert await database.run(questions.answer, str(found["id"]), Given(None, "approve", "ulla", "api"))
    with pytest.raises(AgentsWaiting):
        await run(make(), f"{project}/stopping", {"topic": "boats"})
    [found] = await database.run(look, "dag", runner.task.dag_run_id)
    assert found["content"] == {"question": "Who?"}


@pytest.mark.parametrize("graph", ["steps", "blocking_steps"])
async def test_a_budget_refuses_a_call_before_it_is_made(make: Make, openai_server: OpenAIServer, graph: str) -> None:
    openai_server.script(contains="Step 1", content="One boat.", usage={"input_tokens": 300, "output_tokens": 100})
    with raises_failure(BudgetExceededError, match="max_tokens 350"):
        await run(make(budget=parse_budget({"max_tokens": 350})), f"pinned/{graph}", {"topic": "boats"})
    assert len(openai_server.requests) == 1


async def test_steps_are_counted(make: Make, tmp_path: Path) -> None:
    with raises_failure(BudgetExceededError, match="max_steps 1"):
        await run(make(budget=parse_budget({"max_steps": 1})), "pinned/working", {"topic": str(tmp_path / "go")})


@BOTH
@pytest.mark.parametrize(
    ("preset", "category"),
    [("rate_limit", "rate_limit"), ("quota", "quota"), ("auth", "auth"), ("context_length", "context_length")],
)
async def test_errors_of_models_are_recognised(
    make: Make, database: Database, openai_server: OpenAIServer, project: str, preset: Any, category: str
) -> None:
    openai_server.script(preset)
    with raises_failure(ReportedError):
        await run(make(), f"{project}/steps", {"topic": "boats"})
    [(found, kind, node)] = await rows(database, "SELECT category, exception_type, node FROM visual_ai.workflow_errors")
    assert (found, node) == (category, "first")
    assert kind.startswith(("openai.", "langchain_openai."))
    assert len(openai_server.requests) == 1


async def test_the_policy_goes_on_at_the_node_that_failed(
    pg: Postgres, database: Database, foreign_projects: Path, openai_server: OpenAIServer
) -> None:
    openai_server.script(contains="Step 1", content="One boat.")
    openai_server.script("rate_limit", contains="Step 2", retry_after=0.1)
    openai_server.script(contains="Step 2", content="Two boats.")
    settings = Settings(database_url_override=pg.worker_url, projects_dir=str(foreign_projects))
    runner = AgentRunner(settings, database, TaskContext("dag", "waited", "task", -1, 1, {}))
    result = await run(runner, "pinned/steps", {"topic": "boats"})
    assert result["output"]["answers"] == ["One boat.", "Two boats."]
    assert len(openai_server.requests) == 3


@BOTH
async def test_the_store_context_and_configurable_reach_the_graph(make: Make, project: str) -> None:
    topic = f"boats of {project}"
    options: dict[str, Any] = {"context": {"language": "de"}, "configurable": {"user_id": "ann"}}
    result = await run(make(), f"{project}/remembering", {"topic": topic}, **options)
    assert result["output"]["answers"] == [f"ann: {topic} in de"]


async def test_a_function_makes_the_graph_for_a_run(make: Make) -> None:
    result = await run(make(), "pinned/made", {"topic": "boats"}, configurable={"step": 10})
    assert result["output"]["answers"] == ["10"]


@BOTH
async def test_a_function_that_makes_graphs_gets_langgraphs_runtime(make: Make, project: str) -> None:
    result = await run(make(), f"{project}/made_for", {"topic": "boats"})
    access, runs, kind = result["output"]["answers"]
    assert (access, runs) == ("threads.create_run", "True")
    assert kind in ("langgraph_sdk.runtime._ExecutionRuntime", "types.SimpleNamespace")
    if project == "pinned":
        assert kind == "langgraph_sdk.runtime._ExecutionRuntime"


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("pinned/broken", "No module named 'something_that_is_not_installed'"),
        ("pinned/nothing", "the project pinned has no graph 'nothing'; it has asking"),
        ("nobody/steps", "there is no project 'nobody': add it with `projects add`"),
    ],
)
async def test_what_is_wrong_with_a_graph_is_said(make: Make, graph: str, message: str) -> None:
    with pytest.raises(Exception, match=message) as raised:
        await run(make(), graph, {"topic": "boats"})
    assert isinstance(raised.value, GraphLoadError) or isinstance(raised.value.__cause__, GraphLoadError)


async def test_agents_of_a_triggerer_share_one_process(
    pg: Postgres, database: Database, foreign_projects: Path, tmp_path: Path
) -> None:
    settings = Settings(database_url_override=pg.worker_url, projects_dir=str(foreign_projects))
    place = tmp_path / "go"

    async def work(number: int) -> dict[str, Any]:
        task = TaskContext("dag", "shared", f"task_{number}", -1, 1, {})
        return await run(AgentRunner(settings, database, task, shared=shared), "old/working", {"topic": str(place)})

    async with AgentResources(settings, database, shared=True) as shared:
        running = [asyncio.create_task(work(number)) for number in range(5)]
        found = await until(lambda: begun(place) if len(begun(place)) == 5 else None)
        place.touch()
        for result in await asyncio.gather(*running):
            assert result["output"]["answers"] == ["worked"]
    assert len(set(found)) == 1


async def test_a_process_ends_when_nobody_has_needed_it_and_is_started_again(
    pg: Postgres, database: Database, foreign_projects: Path, tmp_path: Path
) -> None:
    settings = Settings(database_url_override=pg.worker_url, projects_dir=str(foreign_projects), project_idle_seconds=1)
    (place := tmp_path / "go").touch()
    for number in range(2):
        task = TaskContext("dag", "idle", f"task_{number}", -1, 1, {})
        await run(AgentRunner(settings, database, task), "old/working", {"topic": str(place)})
        assert idle_hosts()
        await until(lambda: not idle_hosts())


async def test_what_a_project_logs_and_prints_is_in_the_tasks_log(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (place := tmp_path / "go").touch()
    with caplog.at_level("INFO"):
        await run(make(), "pinned/working", {"topic": str(place)})
    assert ("working.project", "telling versions") in [(one.name, one.message) for one in caplog.records]


async def test_the_items_of_a_batch_run_in_one_process(make: Make, foreign_projects: Path) -> None:
    spec = parse_agent(None, None, graph="pinned/made", configurable={"step": 4})
    async with make() as runner:
        result = await run_batch(runner, spec, [{"topic": "boats"}] * 20, BatchPlan(5))
    assert [output["answers"] for output in result["results"]] == [["4"]] * 20


async def test_a_trace_has_the_nodes_and_models_of_the_project(
    pg: Postgres, database: Database, foreign_projects: Path, openai_server: OpenAIServer, langfuse: LangfuseServer
) -> None:
    openai_server.script(contains="Step 1", content="One boat.")
    openai_server.script(contains="Step 2", content="Two boats.")
    given: dict[str, Any] = {"database_url_override": pg.worker_url, "projects_dir": str(foreign_projects)}
    settings = Settings(_env_file=None, **given | langfuse.settings)
    task = TaskContext("dag", "traced", "task", -1, 1, {})
    await run(AgentRunner(settings, database, task), "pinned/steps", {"topic": "boats"})
    client = trace_client(settings)
    assert client is not None
    await asyncio.to_thread(client.flush, 10)
    (trace_id,) = {span.trace_id for span in langfuse.spans}
    tree = "\n".join(langfuse.tree(trace_id))
    assert tree.count("openai:gpt-4.1-mini") == 2
    assert "first" in tree


@pytest.mark.parametrize("protocol", [1, 2])
@BOTH
async def test_a_turn_goes_on_after_a_quick_answer(
    make: Make, database: Database, project: str, protocol: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[Host] = []
    connect = Host.connect

    async def counted(host: Host) -> Any:
        connected.append(host)
        return await connect(host)

    monkeypatch.setattr(Host, "connect", counted)
    conversation = str(uuid.uuid4())
    turn = Turn(conversation, str(uuid.uuid4()), source="turn", input={"topic": "boats"}, protocol=protocol)
    running = asyncio.create_task(run(make(turn=turn), f"{project}/asking", None))
    for answer in ("Ann", "two"):

        async def answered(value: str = answer) -> bool:
            async with database.engine.begin() as connection:
                query = text("SELECT id FROM visual_ai.questions WHERE answered_at IS NULL AND thread_id = :thread")
                found = [str(row.id) for row in await connection.execute(query, {"thread": conversation})]
                for question in found:
                    given = Given(value, None, "ann", "api")
                    await connection.run_sync(partial(_answer, question, given))
            return bool(found)

        async with asyncio.timeout(30):
            while not running.done() and not await answered():  # noqa: ASYNC110  # it is in the database
                await asyncio.sleep(0.05)
    assert (await running)["output"]["answers"] == ["Ann two"]
    nodes = await rows(database, "SELECT node FROM visual_ai.agent_traces WHERE node IS NOT NULL")
    assert len(nodes) <= 3
    assert len(connected) == 1, "the graph stays open meanwhile"


@BOTH
async def test_a_later_try_of_a_turn_repeats_no_call(
    make: Make, database: Database, openai_server: OpenAIServer, project: str
) -> None:
    openai_server.script(contains="Step 1", content="One boat.")
    openai_server.script(contains="Step 2", status=500, times=10)
    turn = Turn(str(uuid.uuid4()), str(uuid.uuid4()), source="turn", input={"topic": "boats"})
    with raises_failure(Exception):
        await run(make(turn=turn), f"{project}/steps", None)
    openai_server.reset()
    openai_server.script(contains="Step 2", content="Two boats.")
    result = await run(make(2, turn=turn), f"{project}/steps", None)
    assert result["output"]["answers"] == ["One boat.", "Two boats."]
    assert [record.prompt[:6] for record in openai_server.requests] == ["Step 2"]


@BOTH
async def test_a_turn_of_a_conversation_is_streamed_and_goes_on(
    make: Make, database: Database, openai_server: OpenAIServer, project: str
) -> None:
    openai_server.script(contains="Step 1", content="One boat.")
    openai_server.script(contains="Step 2", content="Two boats.")
    conversation, turn, graph = str(uuid.uuid4()), str(uuid.uuid4()), f"{project}/steps"
    asked: dict[str, Any] = {"source": "turn", "input": {"topic": "boats"}, "protocol": 2}
    stop = Turn(conversation, turn, interrupt_before=["second"], **asked)
    with pytest.raises(AgentsWaiting):
        await run(make(turn=stop), graph, None)
    await rows(database, "UPDATE visual_ai.workflow_executions SET state = 'cancelled' RETURNING 1")
    goes_on = Turn(conversation, str(uuid.uuid4()), source="turn", modes=("values", "messages-tuple", "updates"))
    result = await run(make(turn=goes_on, task_id="another"), graph, None)
    assert result["output"]["answers"] == ["One boat.", "Two boats."]
    streamed = await rows(
        database,
        "SELECT turn_id::text, mode, data FROM visual_ai.conversation_frames "
        f"WHERE conversation_id = '{conversation}' ORDER BY seq",  # it is ours
    )
    events = [json.loads(data) for of, mode, data in streamed if of == turn and mode == "messages"]
    assert "".join(one["delta"]["text"] for one in events if one["event"] == "content-block-delta") == "One boat."
    assert [one["event"] for one in events][:: len(events) - 1] == ["message-start", "message-finish"]
    assert len({one["message_id"] for one in events}) == 1
    modes = [mode for of, mode, _ in streamed if of == goes_on.id]
    assert modes.count("updates") == 1
    assert modes.count("values") >= 2
    assert "messages" in modes
    assert modes[-1] == "lifecycle"


async def test_what_a_tool_does_is_streamed(make: Make, database: Database) -> None:
    turn = Turn(str(uuid.uuid4()), str(uuid.uuid4()), source="turn", input={"topic": "boats"}, protocol=2)
    result = await run(make(turn=turn), "pinned/using", None)
    assert result["output"]["answers"] == ["boats weighs nothing"]
    streamed = await rows(
        database,
        "SELECT data FROM visual_ai.conversation_frames "
        f"WHERE turn_id = '{turn.id}' AND mode = 'tools' ORDER BY seq",  # it is ours
    )
    tools = [json.loads(data) for (data,) in streamed]
    assert [one["event"] for one in tools][:: len(tools) - 1] == ["tool-started", "tool-finished"]
    assert {one["tool_name"] for one in tools if "tool_name" in one} == {"weigh"}
