"""What Langfuse's real SDK sends of agents: decoded from the requests that a local server gets."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from langfuse import Langfuse
from sqlalchemy import Engine, create_engine, select

from backend.agents.runner import AgentRunner, TaskContext, run_single
from backend.agents.specs import parse_agent
from backend.agents.trace_client import trace_client
from backend.core.jsonable import dumps
from backend.core.settings import Settings
from backend.db.engine import Database, make_async_engine
from backend.db.tables import agent_traces, workflow_executions
from tests.kit.langfuse_server import LangfuseServer, Span
from tests.kit.openai_server import OpenAIServer

TASK = TaskContext(
    "dag", "run", "work", -1, 1, {"query": "What?", "text": "A text.", "_visual_ai": {"user_id": "ann"}}, "manual"
)
TEXT = {"type": "text"}
KEY = "sk-test-abcdefgh12345678"
USAGE = {"input_tokens": 1000, "output_tokens": 200, "cached_tokens": 0}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url, json_serializer=dumps)
    yield engine
    engine.dispose()


@pytest.fixture
def worker_url(pg: Any, database_url: str) -> str:
    """The URL that tasks have, of an empty database."""
    url: str = pg.worker_url
    return url


def settings_of(url: str, server: OpenAIServer, langfuse: LangfuseServer, **more: Any) -> Settings:
    return Settings(
        _env_file=None,
        database_url_override=url,
        openai_base_url=server.base_url,
        openai_api_key=KEY,
        **langfuse.settings | more,
    )


def flush(settings: Settings) -> None:
    client = trace_client(settings)
    assert client is not None
    assert client.flush(10)


async def alone(settings: Settings, task: TaskContext = TASK, input_data: Any = None, **more: Any) -> dict[str, Any]:
    database = Database(make_async_engine(settings.database_url, application="test", pool_size=2))
    try:
        async with AgentRunner(settings, database, task) as runner:
            return await run_single(runner, parse_agent(more.pop("config", TEXT), input_data, **more))
    finally:
        await database.close()
        await asyncio.to_thread(flush, settings)


async def test_one_agent(
    openai_server: OpenAIServer, worker_url: str, engine: Engine, langfuse: LangfuseServer
) -> None:
    openai_server.script(content="It is a cat.", usage=USAGE)
    settings = settings_of(worker_url, openai_server, langfuse)
    result = await alone(settings, model="openai:gpt-4.1-mini", config={"type": "text", "temperature": 0.2})
    assert result["output"]["answer"] == "It is a cat."

    assert result["trace_id"] == Langfuse.create_trace_id(seed="development/dag/run/work/-1")
    assert result["trace_url"] == f"{langfuse.url}/trace/{result['trace_id']}"
    assert {span.trace_id for span in langfuse.spans} == {result["trace_id"]}
    print(langfuse.tree(result["trace_id"]))
    assert 0
