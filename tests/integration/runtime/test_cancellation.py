"""Agents give up when their run is cancelled: the model call's connection closes."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from backend.core.settings import Settings
from backend.db.engine import Database, make_async_engine
from backend.db.runs import executions
from backend.runtime.cancellation import RunCancelledError
from backend.runtime.runner import TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import AgentSpec, parse_agent
from backend.runtime.worker import AgentTask
from tests.kit.failures.raised import raises_failure
from tests.kit.graphs import calling
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(make_async_engine(database_url, application="test", pool_size=2))
    yield database
    await database.close()


async def cancelled_in_its_call(spec: AgentSpec, pg: Postgres, database: Database, server: OpenAIServer) -> None:
    """Run an agent as a worker's task does, and have its run cancelled while it waits for the model."""
    settings = Settings(database_url_override=pg.worker_url, openai_base_url=server.base_url, openai_api_key="k")
    task = AgentTask(settings, TaskContext("dag", uuid.uuid4().hex, "task", -1, 1, {}))
    running = asyncio.create_task(asyncio.to_thread(task.run, lambda runner: run_single(runner, spec)))
    await asyncio.to_thread(server.wait_for, lambda stats: stats.in_flight == 1)
    async with database.engine.connect() as connection:
        execution_id = (
            await connection.execute(text("SELECT id::text FROM visual_ai.workflow_executions"))
        ).scalar_one()
    await database.run(executions.request_cancel, execution_id, by="ulla")
    with raises_failure(RunCancelledError):
        await asyncio.wait_for(running, 10)


async def test_cancelling_the_run_closes_the_model_call(
    pg: Postgres, database: Database, openai_server: OpenAIServer
) -> None:
    openai_server.script(hang=True)
    spec = parse_agent({"type": "text"}, {"text": "A text about a lighthouse and its keeper."})
    await cancelled_in_its_call(spec, pg, database, openai_server)
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.disconnected == 1)
    async with database.engine.connect() as connection:
        errors = (await connection.execute(text("SELECT category, action FROM visual_ai.workflow_errors"))).all()
        traces = (
            await connection.execute(text("SELECT DISTINCT state FROM visual_ai.agent_traces WHERE node IS NULL"))
        ).all()
    assert [tuple(row) for row in errors] == [("cancelled", "fail")]
    assert [tuple(row) for row in traces] == [("cancelled",)]


async def test_a_synchronous_node_is_not_awaited_and_makes_no_further_calls(
    pg: Postgres, database: Database, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)  # the graph makes its model itself
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    openai_server.script(hold=True)
    calling.left.clear()
    spec = parse_agent(None, {"question": "Who keeps the light?"}, graph="tests.kit.graphs.calling:asking_twice")
    await cancelled_in_its_call(spec, pg, database, openai_server)
    openai_server.release()
    assert await asyncio.to_thread(calling.left.wait, 10)
    assert len(openai_server.requests) == 1
