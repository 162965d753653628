"""What a task could not record, because the database refused it or its process was killed, is there after its end."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, create_engine, text

from backend.core.settings import Settings, get_settings
from backend.db.engine import Database
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import run_batch
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent, parse_team
from backend.runtime.team.run import run_team
from backend.services.application import Application
from backend.services.recording import record_restorer, result_restorer
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, sign_in
from tests.kit.graphs import loops
from tests.kit.openai.server import OpenAIServer
from tests.kit.recorded_runs import RecordedRun
from tests.kit.servers.postgres import Postgres

DAG, RUN = "dag", "run"
PATH = f"/workflow-status/{DAG}/{RUN}"
CONF = {
    "query": "What happened?",
    "text": "Two ships lay at anchor.",
    "_visual_ai": {"user_id": "ulla", "triggered_by": "ulla"},
}
ROUNDS = 12
ROOT = Path(__file__).parents[3]

REFUSE = """
    CREATE OR REPLACE FUNCTION visual_ai.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN {when} THEN RAISE EXCEPTION 'refused'; END IF; RETURN NEW; END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON visual_ai.{table} FOR EACH ROW EXECUTE FUNCTION visual_ai.refuse();
"""
EVERY_OTHER = """
    IF NEW.node IS NOT NULL AND coalesce(
        split_part(NEW.output -> 'messages' ->> 0, ':', 1)::int - 1, jsonb_array_length(NEW.input -> 'messages')
    ) % 2 = 0
"""
"""A node's row both when it begins, after so many messages, and when it ends with one of that number."""
ACCEPT = "DROP FUNCTION IF EXISTS visual_ai.refuse() CASCADE"


@pytest.fixture
def admin(pg: Postgres, database_url: str) -> Iterator[Engine]:
    engine = create_engine(pg.admin_url)
    yield engine
    engine.dispose()


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.fail("/dags/~/")  # the reconciler's own passes: the test makes them
    airflow.add_run(DAG, RUN, "success")
    return airflow


@pytest.fixture
async def app(
    database: Database, database_url: str, airflow: FakeAirflow, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FastAPI]:
    monkeypatch.setattr(record_restorer, "AFTER", 0.0)
    monkeypatch.setattr(result_restorer, "AFTER", 0.0)
    async with application(database_url, airflow, **PRODUCTION) as app:
        yield app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as http:
        http.headers.update(await sign_in(http, "ulla"))
        yield http


@pytest.fixture
def backend(app: FastAPI) -> Application:
    found: Application = app.state.application
    return found


@pytest.fixture(autouse=True)
def accepting(admin: Engine) -> Iterator[None]:
    loops.steps.clear()
    yield
    with admin.begin() as connection:
        connection.execute(text(ACCEPT))
    get_settings.cache_clear()


def refuse(admin: Engine, table: str, when: str = "IF true") -> None:
    with admin.begin() as connection:
        connection.execute(text(REFUSE.format(table=table, when=when)))


def accept(admin: Engine) -> None:
    with admin.begin() as connection:
        connection.execute(text(ACCEPT))


def runner_of(settings: Settings, database: Database, task: str = "task") -> AgentRunner:
    return AgentRunner(settings, database, TaskContext(DAG, RUN, task, -1, 1, CONF))


async def rows(http: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await http.get(f"{PATH}/agents?limit=100")).json()["agents"]
    return found[::-1]


async def restored(http: httpx.AsyncClient) -> dict[str, float]:
    metrics = (await http.get("/metrics", headers=await sign_in(http, "anna"))).text
    return {
        sample.labels["record"]: sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "visual_ai_lost_records_restored_total"
    }


async def loop(settings: Settings, database: Database) -> Any:
    async with runner_of(settings, database) as runner:
        given = {"rounds": ROUNDS, "messages": []}
        return await run_single(runner, parse_agent(None, given, graph="tests.kit.graphs.loops:whole"))


@pytest.mark.parametrize("lost", ["all rows", "the nodes", "some nodes"])
async def test_lost_rows_are_restored(
    http: httpx.AsyncClient,
    backend: Application,
    task_settings: Settings,
    database: Database,
    admin: Engine,
    engine: Engine,
    airflow: FakeAirflow,
    lost: str,
) -> None:
    when = {
        "all rows": "IF true",
        "the nodes": "IF NEW.node IS NOT NULL",
        "some nodes": EVERY_OTHER,
    }
    refuse(admin, "agent_traces", when[lost])
    result = await loop(task_settings, database)
    accept(admin)
    airflow.runs[DAG, RUN].xcoms["task", -1] = result
    run = RecordedRun(engine, DAG, RUN)
    run.task("task", "success")
    run.is_now("success")
    before = await rows(http)
    assert len(before) == {"all rows": 0, "the nodes": 1, "some nodes": 1 + ROUNDS // 2}[lost]
    if lost != "all rows":
        assert any("records of this try are missing" in (row["notice"] or "") for row in before), before
    await backend.reconciler.records.restore()
    after = await rows(http)
    agents = [row for row in after if row["node"] is None]
    nodes = [row for row in after if row["node"] is not None]
    assert [(row["agent"], row["state"]) for row in agents] == [("whole", "success")]
    assert [(row["node"], row["state"], row["type"]) for row in nodes] == [("step", "success", "graph")] * ROUNDS
    assert "lost" in agents[0]["notice"]
    restored_nodes = [row for row in nodes if row["notice"]]
    assert len(restored_nodes) == len(after) - len(before) - (lost == "all rows")
    for number, row in enumerate(nodes, 1):
        shown = (await http.get(f"{PATH}/traces/{row['id']}")).json()["output"]
        value = (await http.get(shown["url"])).json() if shown.get("truncated") else shown
        assert value["messages"] == [f"{number}:".ljust(10, "x")]
    assert (await restored(http))["node"] == len(restored_nodes)
    assert await backend.reconciler.records.restore() == 0
    assert len(await rows(http)) == len(after)


async def test_nothing_is_restored_that_is_there(
    http: httpx.AsyncClient,
    backend: Application,
    task_settings: Settings,
    database: Database,
    engine: Engine,
    openai_server: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")  # for graphs that make their models themselves
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    loops.failures["whole"] = 4
    for _ in range(2):
        await asyncio.gather(loop(task_settings, database), return_exceptions=True)
    team = [{"name": name, "type": "text", "model": "local:text"} for name in ("one", "two")]
    async with runner_of(task_settings, database, "team") as runner:
        await run_team(runner, parse_team(team, "parallel"), "parallel", synthesis=None)
    for graph, given in SHAPES.items():
        async with runner_of(task_settings, database, graph.partition(":")[2]) as runner:
            await run_single(runner, parse_agent(None, given, graph=f"tests.kit.graphs.{graph}"))
    async with runner_of(task_settings, database, "batch") as runner:
        spec = parse_agent(None, None, graph="tests.kit.graphs.loops:whole")
        inputs = [{"rounds": 2, "messages": []} for _ in range(3)]
        await run_batch(runner, spec, inputs, BatchPlan())
    run = RecordedRun(engine, DAG, RUN)
    for task in ("task", "team", "batch", *(graph.partition(":")[2] for graph in SHAPES)):
        run.task(task, "success")
    run.is_now("success")
    before = await rows(http)
    assert await backend.reconciler.records.restore() == 0
    assert await rows(http) == before


SHAPES: dict[str, dict[str, Any]] = {
    "kept:sending": {"text": "one two three"},
    "kept:outer": {"text": "x"},
    "foreign:nested": {"question": "Ships?"},
    "foreign:compiled": {"value": 1},
}


async def test_a_run_of_which_nothing_was_recorded_is_restored_from_airflow(
    http: httpx.AsyncClient, backend: Application, engine: Engine, airflow: FakeAirflow
) -> None:
    """The database was away for as long as the task ran."""
    usage = {"input_tokens": 120, "output_tokens": 30}
    result = {"output": {"answer": "Two ships."}, "agent": "text", "model": "openai:gpt-4.1", "usage": usage}
    airflow.runs[DAG, RUN].xcoms["task", -1] = {**result, "cost_usd": 0.0015, "attempts": 1}
    airflow.set_task(DAG, RUN, "task", "success")
    run = RecordedRun(engine, DAG, RUN)
    run.task("task", "success")
    run.is_now("success")
    backend.reconciler.records.saw([airflow.runs[DAG, RUN].tasks["task", -1] | {"operator": "LangGraphOperator"}])
    assert await backend.reconciler.records.restore() == 1
    assert await backend.reconciler.results.restore() == 1
    (row,) = await rows(http)
    assert (row["agent"], row["type"], row["state"], row["input_tokens"]) == ("text", "text", "success", 120)
    snapshot = (await http.get(PATH)).json()
    assert snapshot["result"]["output"] == {"answer": "Two ships."}
    assert (snapshot["usage"]["input_tokens"], snapshot["cost_usd"]) == (120, pytest.approx(0.0015))
    assert await restored(http) == {"agent": 1, "node": 0, "result": 1}


KILLED = """
import asyncio, os, signal, sys
from backend.core.settings import Settings
from backend.db.engine import Database, make_async_engine
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent

async def main():
    settings = Settings(database_url_override=sys.argv[1])
    database = Database(make_async_engine(sys.argv[1], application="test", pool_size=4))
    context = TaskContext("dag", "run", "task", -1, 1, {"query": "", "_visual_ai": {"user_id": "ulla"}})
    runner = AgentRunner(settings, database, context)
    await runner.__aenter__()
    runner.recorder.relax(60)  # records wait for others
    given = {"rounds": 12, "messages": []}
    await run_single(runner, parse_agent(None, given, graph="tests.kit.graphs.loops:whole"))
    os.kill(os.getpid(), signal.SIGKILL)  # its graph is done, its records are not written

asyncio.run(main())
"""


async def test_a_task_that_is_killed_with_unwritten_records(
    http: httpx.AsyncClient,
    backend: Application,
    pg: Postgres,
    engine: Engine,
    airflow: FakeAirflow,
) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, pg.worker_url, cwd=ROOT)
    assert await process.wait() == -signal.SIGKILL
    result = {"output": {}, "agent": "whole", "model": None, "usage": {"input_tokens": 0, "output_tokens": 0}}
    airflow.runs[DAG, RUN].xcoms["task", -1] = {**result, "cost_usd": None}
    run = RecordedRun(engine, DAG, RUN)
    run.task("task", "success")
    run.is_now("success")

    await backend.reconciler.records.restore()
    nodes = [row["state"] for row in await rows(http) if row["node"] is not None]
    assert nodes == ["success"] * ROUNDS
    assert [row["state"] for row in await rows(http) if row["node"] is None] == ["success"]
