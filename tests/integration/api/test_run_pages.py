"""Snapshots of large runs, and the pages with the rest of their tasks, agents and errors."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, create_engine, text

from backend.core.jsonable import dumps
from backend.core.states import TaskState
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, sign_in
from tests.kit.recorded_runs import RecordedRun

DAG = "visual_ai_workflow"
RUN = f"/workflow-status/{DAG}/run"
INSTANCES = 2_000

_TASKS = text(
    """
    INSERT INTO visual_ai.workflow_tasks (execution_id, task_id, map_index, try_number, state, started_at, finished_at)
    SELECT CAST(:id AS uuid), 'each', i, 1,
        CASE i WHEN 1234 THEN 'failed' WHEN 1999 THEN 'running' ELSE 'success' END,
        clock_timestamp(), clock_timestamp()
    FROM generate_series(0, :last) i
    """
)
_AGENTS = text(
    """
    INSERT INTO visual_ai.agent_traces (
        execution_id, task_id, map_index, try_number, agent_name, agent_type, node, state, started_at, notice)
    SELECT CAST(:id AS uuid), 'each', i, 1, 'reader', 'text', node, 'success',
        clock_timestamp() + i * interval '1 second', repeat('ü"', 20)
    FROM generate_series(0, :last) i, unnest(ARRAY[NULL, 'load', 'answer']) node
    """
)
_ERRORS = text(
    """
    INSERT INTO visual_ai.workflow_errors (
        execution_id, dag_id, dag_run_id, task_id, map_index, try_number, category, exception_type, message, action,
        context, occurred_at)
    SELECT CAST(:id AS uuid), 'visual_ai_workflow', 'run', 'each', i, 1, 'server', 'E', repeat('ü"', 2000), 'retry',
        jsonb_build_object('prompt', repeat('ü', 3000)), clock_timestamp() + i * interval '1 second'
    FROM generate_series(0, 99) i
    """
)


@pytest.fixture
async def http(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    airflow = FakeAirflow()
    airflow.fail("/dags/~/")
    async with application(database_url, airflow, **PRODUCTION) as app, client_of(app) as http:
        http.headers.update(await sign_in(http, "ulla"))
        yield http


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url, json_serializer=dumps)
    yield engine
    engine.dispose()


def large_run(database: Engine) -> RecordedRun:
    """2,000 mapped instances of an agent with two nodes and a hundred long errors."""
    run = RecordedRun(database, DAG)
    run.is_now("running", TaskState("each", -1, 0, None))  # Airflow's placeholder of the mapped task
    with database.begin() as connection:
        for statement in (_TASKS, _AGENTS):
            connection.execute(statement, {"id": run.id, "last": INSTANCES - 1})
        connection.execute(_ERRORS, {"id": run.id})
    return run


async def pages(http: httpx.AsyncClient, kind: str, cursor: str | None = None, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        answer = await http.get(f"{RUN}/{kind}", params={**query, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        assert len(answer.content) <= 262_144
        found += answer.json()[kind]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return found


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["task_id"], row["map_index"], row.get("node"), row.get("occurred_at")


async def test_the_snapshot_of_a_large_run_has_the_first_pages(http: httpx.AsyncClient, database: Engine) -> None:
    large_run(database)
    answer = await http.get(RUN)
    assert len(answer.content) <= 262_144
    snapshot = answer.json()
    assert snapshot["mapped_tasks"] == {"each": {"failed": 1, "running": 1, "success": INSTANCES - 2}}
    assert (snapshot["agents_total"], snapshot["errors_total"]) == (3 * INSTANCES, 100)
    assert {task["map_index"] for task in snapshot["tasks"]} >= {1234, 1999}, "the failed and the active one"
    assert {agent["node"] for agent in snapshot["agents"]} == {None}
    assert max(agent["map_index"] for agent in snapshot["agents"]) == INSTANCES - 1
    assert snapshot["errors"][0]["map_index"] == 99
    for kind, total in (("tasks", INSTANCES), ("agents", 3 * INSTANCES), ("errors", 100)):
        assert 0 < len(snapshot[kind]) < total
        rest = await pages(http, kind, snapshot[f"{kind}_next"], limit=200)
        keys = [key(row) for row in (*snapshot[kind], *rest)]
        assert len(keys) == len(set(keys)) == total, "all pages together have each row once"


async def test_a_stream_of_a_large_run_begins_with_its_snapshot(http: httpx.AsyncClient, database: Engine) -> None:
    large_run(database).is_now("failed")
    snapshot = (await http.get(RUN)).json()
    async with http.stream("GET", f"/workflow-status/stream/{DAG}/run") as stream:
        body = (await stream.aread()).decode()
    assert body.count("event: task_update") == len(snapshot["tasks"])
    assert body.count("event: agent_update") == len(snapshot["agents"])
    assert max(map(len, body.split("\n"))) < 64_000


async def test_pages_are_filtered_by_task_and_instance(http: httpx.AsyncClient, database: Engine) -> None:
    run = large_run(database)
    run.task("reduce", "running")
    assert len(await pages(http, "tasks", limit=200)) == INSTANCES + 1
    assert [task["task_id"] for task in await pages(http, "tasks", task_id="reduce")] == ["reduce"]
    assert [task["map_index"] for task in await pages(http, "tasks", state="failed")] == [1234]
    agents = await pages(http, "agents", task_id="each", map_index=7)
    assert {agent["node"] for agent in agents} == {None, "load", "answer"}
    assert agents[0]["node"] is None
    assert [error["map_index"] for error in await pages(http, "errors", map_index=7)] == [7]
    counted = (await http.get(f"{RUN}/agents", params={"map_index": 7, "limit": 1})).json()
    assert (counted["total"], len(counted["agents"])) == (3, 1)
    assert await pages(http, "agents", task_id="none") == []


@pytest.mark.parametrize("cursor", ["x", "0.x", "2.x", "W10", "bnVsbA", "WzAsICJhIiwgImIiXQ", "é"])
@pytest.mark.parametrize("kind", ["tasks", "agents", "errors"])
async def test_a_made_up_cursor_is_rejected(http: httpx.AsyncClient, database: Engine, kind: str, cursor: str) -> None:
    RecordedRun(database, DAG)
    answer = await http.get(f"{RUN}/{kind}", params={"cursor": cursor})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "?cursor"


async def test_a_small_run_is_whole_and_in_order(http: httpx.AsyncClient, database: Engine) -> None:
    """A loop of 400 steps is small."""
    run = RecordedRun(database, DAG)
    run.task("loop", "running")
    run.agent("loop", "graph", "running")
    with database.begin() as connection:
        steps = text(
            """
            INSERT INTO visual_ai.agent_traces (
                execution_id, task_id, try_number, agent_name, agent_type, node, state, started_at, latency_ms, input)
            SELECT CAST(:id AS uuid), 'loop', 1, 'graph', 'langgraph', 'step', 'success',
                clock_timestamp() + i * interval '1 millisecond', i, to_jsonb(repeat('x', 30000))
            FROM generate_series(1, 400) i
            """
        )
        connection.execute(steps, {"id": run.id})
    answer = await http.get(RUN)
    assert len(answer.content) <= 262_144
    snapshot = answer.json()
    assert [agent["latency_ms"] for agent in snapshot["agents"][1:]] == list(range(1, 401))
    assert snapshot["agents_total"] == 401
    assert [snapshot[f"{kind}_next"] for kind in ("tasks", "agents", "errors")] == [None, None, None]
    assert snapshot["mapped_tasks"] == {}


async def test_pages_of_another_users_run_are_not_found(http: httpx.AsyncClient, database: Engine) -> None:
    RecordedRun(database, DAG)
    uwe = await sign_in(http, "uwe")
    for kind in ("tasks", "agents", "errors"):
        assert (await http.get(f"{RUN}/{kind}", headers=uwe)).status_code == 404
        assert json.loads((await http.get(f"{RUN}/{kind}")).content)["total"] == 0
