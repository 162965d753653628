"""Agents give up when their run is cancelled: the model call's connection closes."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from backend.agents.cancellation import RunCancelledError
from backend.agents.runner import TaskContext, run_single
from backend.agents.specs import parse_agent
from backend.agents.task import AgentTask
from backend.core.settings import Settings
from backend.db import executions
from backend.db.engine import Database, make_async_engine
from tests.conftest import Postgres
from tests.kit.openai_server import OpenAIServer


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(make_async_engine(database_url, application="test", pool_size=2))
    yield database
    await database.close()


async def test_cancelling_the_run_closes_the_model_call(
    pg: Postgres, database: Database, openai_server: OpenAIServer
) -> None:
    settings = Settings(database_url_override=pg.worker_url, openai_base_url=openai_server.base_url, openai_api_key="k")
    openai_server.script(hang=True)
    task = AgentTask(settings, TaskContext("dag", uuid.uuid4().hex, "task", -1, 1, {}))
    spec = parse_agent({"type": "text"}, {"text": "A text about a lighthouse and its keeper."})
    running = asyncio.create_task(asyncio.to_thread(task.run, lambda runner: run_single(runner, spec)))
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.in_flight == 1)
    async with database.engine.connect() as connection:
        execution_id = (
            await connection.execute(text("SELECT id::text FROM visual_ai.workflow_executions"))
        ).scalar_one()
    await database.run(executions.request_cancel, execution_id)
    with pytest.raises(RunCancelledError):
        await running
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.disconnected == 1)
    async with database.engine.connect() as connection:
        errors = (await connection.execute(text("SELECT category, action FROM visual_ai.workflow_errors"))).all()
        traces = (
            await connection.execute(text("SELECT DISTINCT state FROM visual_ai.agent_traces WHERE node IS NULL"))
        ).all()
    assert [tuple(row) for row in errors] == [("cancelled", "fail")]
    assert [tuple(row) for row in traces] == [("cancelled",)]
