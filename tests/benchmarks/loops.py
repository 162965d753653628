"""A loop of 400 steps of 2 KB: its time as a task, and as a bare graph with LangGraph's own saver, in turns."""

import asyncio
import time
import uuid
from typing import Any

import psycopg
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver

from backend.core.settings import Settings
from backend.db.address import plain_url
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from backend.runtime.worker import AgentTask
from tests.benchmarks.database import bench_database
from tests.benchmarks.report import Goal, Result, median
from tests.kit.graphs import loops
from tests.kit.servers.postgres import Postgres

STEPS, SIZE, ROUNDS = 400, 2_000, 5
GOAL = 1.3
GIVEN = {"rounds": STEPS, "size": SIZE, "messages": []}


def measure() -> Result:
    """Wall time from the graph's start until everything about it is written, and whether every row is there."""
    samples: dict[str, list[float]] = {"task_s": [], "bare_graph_s": []}
    lost = 0
    with bench_database() as database:
        for _ in range(ROUNDS + 1):
            samples["bare_graph_s"].append(asyncio.run(_bare(database)))
            samples["task_s"].append(_task(database))
            lost += _lost(database)
    for values in samples.values():
        del values[0]  # the first round pays for imports and an empty database
    figures = {name: median(values) for name, values in samples.items()}
    figures["ratio"] = figures["task_s"] / figures["bare_graph_s"]
    figures["lost_rows"] = lost
    goals = [
        Goal("time of a loop to that of its bare graph", figures["ratio"], GOAL),
        Goal("rows that are missing", figures["lost_rows"], 0),
    ]
    return Result("loops", figures, goals, samples, {"steps": STEPS, "bytes": SIZE})


async def _bare(database: Postgres) -> float:
    async with AsyncPostgresSaver.from_conn_string(plain_url(database.admin_url)) as saver:
        await saver.setup()
        graph = loops.whole.copy(update={"checkpointer": saver})
        began = time.monotonic()
        config: Any = {"configurable": {"thread_id": uuid.uuid4().hex}, "recursion_limit": 10_000}
        result = await graph.ainvoke(GIVEN, config)
        assert len(result["messages"]) == STEPS
        return time.monotonic() - began


def _task(database: Postgres) -> float:
    settings = Settings(_env_file=None, database_url_override=database.worker_url)

    async def work(runner: AgentRunner) -> dict[str, Any]:
        return await run_single(runner, parse_agent(None, GIVEN, graph="tests.kit.graphs.loops:whole"))

    began = time.monotonic()
    result = AgentTask(settings, TaskContext("bench", uuid.uuid4().hex, "loop", -1, 1, {})).run(work)
    assert len(result["output"]["messages"]) == STEPS
    return time.monotonic() - began


def _lost(database: Postgres) -> int:
    with psycopg.connect(plain_url(database.admin_url)) as connection:
        query = "SELECT count(*) FROM visual_ai.agent_traces WHERE state = 'success'"
        found = connection.execute(query).fetchone()
        connection.execute("TRUNCATE visual_ai.agent_traces")
    assert found is not None
    return STEPS + 1 - int(found[0])
