"""A batch's throughput and memory: `python -m tests.benchmarks.batch`.

Runs 1,000 inputs of an agent whose model takes 2 s (500 at once), then 10,000 of one that answers at once (100 at
once). The model server is a process of its own and the database a real PostgreSQL; every item is checkpointed and
traced in it.
"""

from __future__ import annotations

import gc
import importlib
import resource
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import psutil
import psycopg
import typer

from backend.agents.batch import run_batch
from backend.agents.batch_plan import BatchPlan
from backend.agents.runner import AgentRunner, TaskContext
from backend.agents.specs import parse_agent
from backend.agents.task import AgentTask
from backend.core.settings import Settings
from backend.db.address import plain_url
from backend.db.migrate import migrate
from backend.stack.postgres import Cluster
from tests.kit.openai_server import OpenAIServer
from tests.kit.stack import free_port

TEXT = "The harbour was quiet. Two ships lay at anchor. The third had left at dawn for the north."
MIB = 2**20


@contextmanager
def database() -> Iterator[tuple[str, str]]:
    """The administrator's and the worker's URL of a migrated database."""
    directory = Path(tempfile.mkdtemp(prefix="visual-ai-bench-"))
    cluster = Cluster(directory / "data", free_port(), "bench", durable=True, tell=lambda _: None)
    try:
        cluster.start()
        cluster.ensure_database("airflow", owner="airflow", password="owner")
        yield cluster.url("airflow"), migrate(cluster.url("airflow")).worker_url
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


class Peak:
    """The process's resident memory while something runs, in MiB."""

    def __enter__(self) -> Peak:
        gc.collect()
        self._process = psutil.Process()
        self.before = self.most = self._process.memory_info().rss / MIB
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


def measure(
    name: str, urls: tuple[str, str], *, items: int, concurrency: int, latency: float, graph: str | None
) -> None:
    with OpenAIServer.subprocess(latency=latency) as server:
        settings = Settings(database_url_override=urls[1], openai_base_url=server.base_url, openai_api_key="test-key")
        task = TaskContext("bench", uuid.uuid4().hex, "batch", -1, 1, {})
        if graph is None:
            spec = parse_agent({"type": "text"}, {"text": TEXT})
            inputs: list[dict[str, Any]] = [{"query": f"Question {index}"} for index in range(items)]
        else:
            spec = parse_agent(None, None, graph=graph)
            inputs = [{"value": index} for index in range(items)]

        async def work(runner: AgentRunner) -> dict[str, Any]:
            return await run_batch(runner, spec, inputs, BatchPlan(concurrency))

        importlib.import_module("langchain_openai")  # the process that forks tasks has it loaded
        used = time.process_time()
        began = time.monotonic()
        with Peak() as peak:
            result = AgentTask(settings, task).run(work)
        seconds = time.monotonic() - began
        used = time.process_time() - used
        most = server.stats().max_in_flight
    with psycopg.connect(plain_url(urls[0])) as connection:
        counted = [
            connection.execute(f"SELECT count(*) FROM visual_ai.{table}").fetchone()
            for table in ("batch_items", "agent_traces", "checkpoints", "workflow_events")
        ]
        connection.execute("TRUNCATE visual_ai.workflow_executions, visual_ai.checkpoints CASCADE")
    rows = ", ".join(
        f"{count[0] if count else '?'} {table}"
        for table, count in zip(("items", "traces", "checkpoints", "events"), counted, strict=True)
    )
    assert result["batch"]["succeeded"] == items, result["batch"]
    print(  # noqa: T201  # a console program
        f"{name}: {items} items in {seconds:.1f} s, {items / seconds:.1f} items/s; CPU {used:.1f} s"
        f" ({1000 * used / items:.1f} ms an item); at most {most} calls at once;"
        f" memory {peak.before:.0f} MiB before, {peak.most:.0f} MiB peak; rows: {rows}"
    )


def main(
    only: Annotated[str | None, typer.Option(help="slow, quick or graph; default: all.")] = None,
    items: Annotated[int | None, typer.Option(help="Another number of inputs.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Another number at once.")] = None,
) -> None:
    """Print items a second and peak memory."""
    with database() as urls:
        if only in (None, "slow"):
            measure("2 s agent", urls, items=items or 1000, concurrency=concurrency or 500, latency=2.0, graph=None)
        if only in (None, "quick"):
            measure("quick agent", urls, items=items or 10_000, concurrency=concurrency or 100, latency=0.0, graph=None)
        if only in (None, "graph"):
            graph = "tests.kit.user_graphs:builder"
            measure(
                "graph without a model",
                urls,
                items=items or 10_000,
                concurrency=concurrency or 100,
                latency=0,
                graph=graph,
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak of the process: {peak:.0f} MiB")  # noqa: T201  # a console program


if __name__ == "__main__":
    typer.run(main)
