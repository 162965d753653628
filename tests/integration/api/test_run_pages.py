"""Snapshots of large runs, and the pages with the rest of their tasks, agents and errors."""

import json
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from backend.core.states import TaskState
from tests.kit.application import sign_in
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


def large_run(engine: Engine) -> RecordedRun:
    """2,000 mapped instances of an agent with two nodes and a hundred long errors."""
    run = RecordedRun(engine, DAG)
    run.is_now("running", TaskState("each", -1, 0, None))  # Airflow's placeholder of the mapped task
    with engine.begin() as connection:
        for statement in (_TASKS, _AGENTS):
            connection.execute(statement, {"id": run.id, "last": INSTANCES - 1})
        connection.execute(_ERRORS, {"id": run.id})
    return run


async def pages(
    ulla_http: httpx.AsyncClient, kind: str, cursor: str | None = None, **query: Any
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        answer = await ulla_http.get(f"{RUN}/{kind}", params={**query, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        assert len(answer.content) <= 262_144
        found += answer.json()[kind]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return found


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["task_id"], row["map_index"], row.get("node"), row.get("occurred_at")


async def test_the_snapshot_of_a_large_run_has_the_first_pages(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    large_run(engine)
    answer = await ulla_http.get(RUN)
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
        rest = await pages(ulla_http, kind, snapshot[f"{kind}_next"], limit=200)
        keys = [key(row) for row in (*snapshot[kind], *rest)]
        assert len(keys) == len(set(keys)) == total, "all pages together have each row once"


async def test_a_stream_of_a_large_run_begins_with_its_snapshot(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    large_run(engine).is_now("failed")
    snapshot = (await ulla_http.get(RUN)).json()
    async with ulla_http.stream("GET", f"/workflow-status/stream/{DAG}/run") as stream:
        body = (await stream.aread()).decode()
    assert body.count("event: task_update") == len(snapshot["tasks"])
    assert body.count("event: agent_update") == len(snapshot["agents"])
    assert max(map(len, body.split("\n"))) < 64_000


async def test_pages_are_filtered_by_task_and_instance(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    run = large_run(engine)
    run.task("reduce", "running")
    assert len(await pages(ulla_http, "tasks", limit=200)) == INSTANCES + 1
    assert [task["task_id"] for task in await pages(ulla_http, "tasks", task_id="reduce")] == ["reduce"]
    assert [task["map_index"] for task in await pages(ulla_http, "tasks", state="failed")] == [1234]
    agents = await pages(ulla_http, "agents", task_id="each", map_index=7)
    assert {agent["node"] for agent in agents} == {None, "load", "answer"}
    assert agents[0]["node"] is None
    assert [error["map_index"] for error in await pages(ulla_http, "errors", map_index=7)] == [7]
    counted = (await ulla_http.get(f"{RUN}/agents", params={"map_index": 7, "limit": 1})).json()
    assert (counted["total"], len(counted["agents"])) == (3, 1)
    assert await pages(ulla_http, "agents", task_id="none") == []


@pytest.mark.parametrize("cursor", ["x", "0.x", "2.x", "W10", "bnVsbA", "WzAsICJhIiwgImIiXQ", "é"])
@pytest.mark.parametrize("kind", ["tasks", "agents", "errors"])
async def test_a_made_up_cursor_is_rejected(
    ulla_http: httpx.AsyncClient, engine: Engine, kind: str, cursor: str
) -> None:
    RecordedRun(engine, DAG)
    answer = await ulla_http.get(f"{RUN}/{kind}", params={"cursor": cursor})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "?cursor"


async def test_a_small_run_is_whole_and_in_order(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    """A loop of 400 steps is small."""
    run = RecordedRun(engine, DAG)
    run.task("loop", "running")
    run.agent("loop", "graph", "running")
    with engine.begin() as connection:
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
    answer = await ulla_http.get(RUN)
    assert len(answer.content) <= 262_144
    snapshot = answer.json()
    assert [agent["latency_ms"] for agent in snapshot["agents"][1:]] == list(range(1, 401))
    assert snapshot["agents_total"] == 401
    assert [snapshot[f"{kind}_next"] for kind in ("tasks", "agents", "errors")] == [None, None, None]
    assert snapshot["mapped_tasks"] == {}


async def test_pages_of_another_users_run_are_not_found(ulla_http: httpx.AsyncClient, engine: Engine) -> None:
    RecordedRun(engine, DAG)
    uwe = await sign_in(ulla_http, "uwe")
    for kind in ("tasks", "agents", "errors"):
        assert (await ulla_http.get(f"{RUN}/{kind}", headers=uwe)).status_code == 404
        assert json.loads((await ulla_http.get(f"{RUN}/{kind}")).content)["total"] == 0
