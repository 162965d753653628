"""Projects in the shapes of LangGraph's public templates run unchanged from their langgraph.json."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.core.settings import Settings, get_settings
from backend.db.engine import Database, make_async_engine
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres

PROJECTS = Path(__file__).parents[2] / "projects"

Run = Callable[..., Any]


@pytest.fixture
def environment(openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in ("TOOL_GREETING", "MEMORY_NAMESPACE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    yield monkeypatch
    get_settings.cache_clear()


@pytest.fixture
async def run(pg: Postgres, database_url: str, environment: pytest.MonkeyPatch) -> AsyncIterator[Run]:
    database = Database(make_async_engine(pg.worker_url, application="test", pool_size=4))

    async def run(project: str, graph: str, input_data: dict[str, Any], **kw: Any) -> Any:
        environment.setenv("VISUAL_AI_LANGGRAPH_JSON", str(PROJECTS / project / "langgraph.json"))
        get_settings.cache_clear()
        settings = Settings(database_url_override=pg.worker_url)
        task = TaskContext("dag", uuid.uuid4().hex, "task", -1, 1, {})
        async with AgentRunner(settings, database, task) as runner:
            return await run_single(runner, parse_agent(None, input_data, graph=graph, **kw))

    yield run
    await database.close()


async def test_a_react_agent_with_tools(run: Run, openai_server: OpenAIServer) -> None:
    openai_server.script(tool_calls=[{"name": "search", "arguments": {"query": "anchors"}}])
    openai_server.script(content="There are three anchors.")
    result = await run(
        "react_agent",
        "agent",
        {"messages": [{"role": "user", "content": "How many anchors?"}]},
        output_mapping={"answer": "messages.-1.content"},
    )
    assert result["output"] == {"answer": "There are three anchors."}
    assert "Ahoy: anchors 2" in openai_server.requests[-1].prompt


async def test_a_memory_agent_remembers_between_runs(run: Run, openai_server: OpenAIServer) -> None:
    user = uuid.uuid4().hex
    for message in ("My boat is called Larkspur.", "What is my boat called?"):
        input_data = {"messages": [{"role": "user", "content": message}]}
        await run("memory_agent", "memory", input_data, configurable={"user_id": user})
    system = openai_server.requests[-1].params
    assert len(openai_server.requests) == 2
    assert "Larkspur" in str(system) + openai_server.requests[-1].prompt


async def test_a_map_reduce_with_a_subgraph(run: Run, openai_server: OpenAIServer) -> None:
    topics = ["tides", "winds", "knots"]
    for topic in topics:
        openai_server.script(contains=f"A note about {topic}", content=f"All about {topic}.")
    result = await run("research_team", "research", {"topics": topics})
    assert result["output"]["report"] == "All about knots.\nAll about tides.\nAll about winds."
    assert result["usage"]["output_tokens"] > 0
