"""A batch's throughput and memory: one task, thousands of inputs, each checkpointed and traced in PostgreSQL.

1,000 inputs of an agent whose model takes 2 s, 500 at once; then 10,000 of one that answers at once, 100 at once. The
model server is a process of its own. The goal for the rate is what LangGraph's server does in memory (2 s agent, 500
jobs at once, two cores: 57 runs/s). Beside it, in the same run: the same model calls with nothing around them, which
is what the machine and the client library can do at best.
"""

import asyncio
import gc
import importlib
import threading
import time
import uuid
from typing import Any, Self

import psutil
import psycopg

from backend.core.settings import Settings
from backend.db.address import plain_url
from backend.models.http_clients import HttpClients
from backend.models.resolve import build_model, resolve_model
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import run_batch
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.specs import parse_agent
from backend.runtime.worker import AgentTask
from tests.benchmarks.database import bench_database
from tests.benchmarks.report import Goal, Result
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres

TEXT = "The harbour was quiet. Two ships lay at anchor. The third had left at dawn for the north."
MIB = 2**20
SLOW_ITEMS, SLOW_CONCURRENCY, LATENCY = 1_000, 500, 2.0
QUICK_ITEMS, QUICK_CONCURRENCY = 10_000, 100
GOAL_RATE = 57.0
GOAL_GROWTH = 1.1
"""The largest accepted ratio of peak memory with five times as many items: memory must not grow with each item."""


class Peak:
    """Samples the resident memory of this process, in MiB."""

    def __enter__(self) -> Self:
        gc.collect()
        self._process = psutil.Process()
        self.most = self._process.memory_info().rss / MIB
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            self.most = max(self.most, self._process.memory_info().rss / MIB)


def measure() -> Result:
    """Items per second, CPU per item, and peak memory."""
    importlib.import_module("langchain_openai")  # preloaded, as in the process that forks tasks
    figures: dict[str, float] = {}
    with bench_database() as database:
        figures["calls_alone_per_s"] = SLOW_ITEMS / _calls_alone()
        slow = _run(database, SLOW_ITEMS, SLOW_CONCURRENCY, LATENCY)
        figures |= {f"slow_{name}": value for name, value in slow.items()}
        for items in (QUICK_ITEMS // 5, QUICK_ITEMS):
            quick = _run(database, items, QUICK_CONCURRENCY, 0.0)
            figures |= {f"quick_{items}_{name}": value for name, value in quick.items()}
    growth = figures[f"quick_{QUICK_ITEMS}_peak_mib"] / figures[f"quick_{QUICK_ITEMS // 5}_peak_mib"]
    goals = [
        Goal("items per second, 500 concurrent agents of 2 s", figures["slow_items_per_s"], GOAL_RATE, at_least=True),
        Goal("peak memory, 10,000 items to 2,000", growth, GOAL_GROWTH),
    ]
    return Result("batch", figures, goals)


def _run(database: Postgres, items: int, concurrency: int, latency: float) -> dict[str, float]:
    with OpenAIServer.subprocess(latency=latency) as server:
        settings = _settings(database.worker_url, server)
        task = TaskContext("bench", uuid.uuid4().hex, "batch", -1, 1, {})
        spec = parse_agent({"type": "text"}, {"text": TEXT})
        inputs: list[dict[str, Any]] = [{"query": f"Question {index}"} for index in range(items)]

        async def work(runner: AgentRunner) -> dict[str, Any]:
            return await run_batch(runner, spec, inputs, BatchPlan(concurrency))

        used, began = time.process_time(), time.monotonic()
        with Peak() as peak:
            result = AgentTask(settings, task).run(work)
        seconds, used = time.monotonic() - began, time.process_time() - used
    assert result["batch"]["succeeded"] == items, result["batch"]
    _check_rows(database, items)
    return {"items_per_s": items / seconds, "cpu_ms_per_item": 1000 * used / items, "peak_mib": peak.most}


def _check_rows(database: Postgres, items: int) -> None:
    """Check that every item has its row, traces and checkpoints, and delete them for the next measurement."""
    with psycopg.connect(plain_url(database.admin_url)) as connection:
        for query in (
            "SELECT count(*) FROM visual_ai.batch_items WHERE state = 'success'",
            "SELECT count(DISTINCT item_index) FROM visual_ai.agent_traces WHERE node IS NOT NULL",
            "SELECT count(DISTINCT thread_id) FROM visual_ai.checkpoints",
        ):
            found = connection.execute(query).fetchone()
            assert found == (items,), (query, found)
        connection.execute(
            "TRUNCATE visual_ai.workflow_executions, visual_ai.checkpoints, visual_ai.checkpoint_blobs,"
            " visual_ai.checkpoint_writes CASCADE"
        )


def _calls_alone() -> float:
    """Seconds for the same model calls without a graph, checkpoints or records."""

    async def calls(settings: Settings) -> None:
        choice = resolve_model("openai:gpt-4.1-mini", purpose="text", settings=settings)
        clients = HttpClients(many_calls=True)
        model = build_model(choice, settings, **clients.arguments())
        at_once = asyncio.Semaphore(SLOW_CONCURRENCY)

        async def call(index: int) -> None:
            async with at_once:
                await model.ainvoke(f"{TEXT}\nQuestion {index}")

        async with asyncio.TaskGroup() as group:
            for index in range(SLOW_ITEMS):
                group.create_task(call(index))
        await clients.close()

    with OpenAIServer.subprocess(latency=LATENCY) as server:
        began = time.monotonic()
        asyncio.run(calls(_settings("postgresql+psycopg://unused/unused", server)))
        return time.monotonic() - began


def _settings(url: str, server: OpenAIServer) -> Settings:
    return Settings(
        _env_file=None, database_url_override=url, openai_base_url=server.base_url, openai_api_key="test-key"
    )
