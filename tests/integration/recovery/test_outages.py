"""PostgreSQL is restarted while agents work: nothing that was paid for is lost, and no try fails for it."""

import asyncio
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.store.base import PutOp
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from backend.checkpoints.pool import open_pool
from backend.checkpoints.store import Store
from backend.core.settings import Settings, get_settings
from backend.db.address import plain_url
from backend.db.engine import Database
from backend.db.outage import retry_until_available
from backend.runtime import runner as runner_module
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import run_batch
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import AgentSpec, parse_agent
from backend.stack.postgres import Cluster
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres
from tests.kit.waiting import eventually

PROJECT = Path(__file__).parents[2] / "projects" / "five_steps" / "langgraph.json"

MakeRunner = Callable[..., AgentRunner]


@pytest.fixture(autouse=True)
def environment(openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    monkeypatch.setenv("VISUAL_AI_LANGGRAPH_JSON", str(PROJECT))
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
def make_runner(pg: Postgres, database: Database) -> MakeRunner:
    run_id = uuid.uuid4().hex

    def make(try_number: int = 1, url: str = pg.worker_url) -> AgentRunner:
        task = TaskContext("dag", run_id, "task", -1, try_number, {})
        return AgentRunner(Settings(database_url_override=url), database, task)

    return make


def five_steps(topic: str = "ships") -> AgentSpec:
    return parse_agent(None, {"topic": topic}, graph="five_steps")


async def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    async with database.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


async def restarted_under(
    work: asyncio.Future[Any], postgres: Cluster, server: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> Any:
    """Let the held model call be answered while the server is down, and start it when the answer was to be kept."""
    caplog.clear()
    await asyncio.to_thread(postgres.stop)
    try:
        server.release()
        await asyncio.to_thread(server.wait_for, lambda stats: stats.in_flight == 0)
        await eventually(lambda: "the database is unavailable" in caplog.text)
    finally:
        await asyncio.to_thread(postgres.start)
    return await work


async def test_an_agent_survives_a_restart_in_the_same_try(
    make_runner: MakeRunner,
    database: Database,
    postgres: Cluster,
    openai_server: OpenAIServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    openai_server.script(hold=True, contains="Step 3")
    async with make_runner() as runner:
        work = asyncio.ensure_future(run_single(runner, five_steps()))
        await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.requests == 3)
        result = await restarted_under(work, postgres, openai_server, caplog)
    assert len(result["output"]["answers"]) == 5
    assert len(openai_server.requests) == 5
    assert await rows(database, "SELECT * FROM visual_ai.workflow_errors") == []
    traced = await rows(database, "SELECT node, state FROM visual_ai.agent_traces WHERE node IS NOT NULL ORDER BY node")
    assert traced == [(f"step_{number}", "success") for number in range(1, 6)]
    async with make_runner(2) as runner:  # every checkpoint is there
        assert (await run_single(runner, five_steps()))["output"] == result["output"]
    assert len(openai_server.requests) == 5


async def test_a_batch_survives_a_restart(
    make_runner: MakeRunner,
    database: Database,
    postgres: Cluster,
    openai_server: OpenAIServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    openai_server.script(hold=True, contains="Step 3", times=3)
    inputs = [{"topic": f"ship {number}"} for number in range(3)]
    async with make_runner() as runner:
        spec = parse_agent(None, None, graph="five_steps")
        work = asyncio.ensure_future(run_batch(runner, spec, inputs, BatchPlan()))
        await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.requests == 9)
        result = await restarted_under(work, postgres, openai_server, caplog)
    assert result["batch"] == {"items": 3, "succeeded": 3, "failed": 0, "failures": []}
    assert len(openai_server.requests) == 15
    assert await rows(database, "SELECT state, count(*) FROM visual_ai.batch_items GROUP BY 1") == [("success", 3)]


async def test_a_graphs_store_survives_a_restart(
    pg: Postgres, database_url: str, postgres: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_pool(pg.worker_url, max_size=1) as pool:
        store = Store(pool)
        await store.abatch([PutOp(("ships",), "first", {"name": "Aurora"})])
        await asyncio.to_thread(postgres.stop)
        try:
            found = asyncio.ensure_future(store.aget(("ships",), "first"))
            await eventually(lambda: "Connection refused" in caplog.text)
        finally:
            await asyncio.to_thread(postgres.start)
        item = await found
    assert item is not None
    assert item.value == {"name": "Aurora"}


async def test_a_later_try_does_not_repeat_paid_calls_while_the_database_is_unavailable(
    make_runner: MakeRunner,
    postgres: Cluster,
    openai_server: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    openai_server.script("auth", contains="Step 3")
    async with make_runner() as runner:
        with pytest.raises(Exception, match="401"):
            await run_single(runner, five_steps())
    monkeypatch.setattr(runner_module, "CLAIM_SECONDS", 0.5)
    runner = make_runner(2)
    await asyncio.to_thread(postgres.stop)
    try:
        with pytest.raises(ConnectionError, match="what earlier tries did"):
            await run_single(runner, five_steps())
    finally:
        await asyncio.to_thread(postgres.start)
    assert len(openai_server.requests) == 3


async def test_statements_that_the_database_rejects_are_not_retried(database: Database) -> None:
    calls: list[int] = []

    def wrong(connection: Connection) -> None:
        calls.append(1)
        connection.execute(text("SELECT 1 / 0"))

    with pytest.raises(DBAPIError):
        await retry_until_available(partial(database.run, wrong))
    assert calls == [1]


@pytest.mark.parametrize(
    "trouble",
    [
        "SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)",
        "SET LOCAL transaction_read_only = on; DELETE FROM visual_ai.checkpoints",
        "SET LOCAL lock_timeout = 1; LOCK visual_ai.checkpoints; SELECT pg_advisory_xact_lock(7)",
        "DO $$ BEGIN RAISE 'disk full' USING ERRCODE = '53100'; END $$",
        "DO $$ BEGIN RAISE 'deadlock' USING ERRCODE = '40P01'; END $$",
    ],
)
async def test_trouble_of_the_database_passes(database: Database, database_url: str, trouble: str) -> None:
    calls: list[int] = []

    def troubled_twice(connection: Connection) -> str:
        calls.append(1)
        if len(calls) < 3:
            connection.execute(text(trouble))
        return "done"

    with psycopg.connect(plain_url(database_url)) as other:
        other.execute("SELECT pg_advisory_xact_lock(7)")
        assert await retry_until_available(partial(database.run, troubled_twice)) == "done"
    assert calls == [1, 1, 1]
