"""A graph with a large state does not hold up the other agents of its process."""

import asyncio
import gc
import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine

from backend.core.settings import Settings
from backend.db.engine import ThreadedDatabase
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from tests.kit.graphs import heavy
from tests.kit.servers.postgres import Postgres
from tests.kit.slow_callbacks import measured_callbacks

ALLOWED = 0.1
"""Seconds of CPU time that one callback may take; before, they took up to 2 s."""

SIZE = 5_000_000


@pytest.fixture
def database(pg: Postgres) -> Iterator[ThreadedDatabase]:
    """The database as a worker and the triggerer use it: in threads."""
    engine = create_engine(pg.worker_url)
    yield ThreadedDatabase(engine, threads=2)
    engine.dispose()


@pytest.mark.parametrize("kind", ["text", "words", "rows"])
async def test_a_large_state_does_not_hold_up_the_event_loop(
    pg: Postgres, database: ThreadedDatabase, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(database_url_override=pg.worker_url)
    made = {size: heavy.made(kind, size) for size in (10, SIZE)}
    monkeypatch.setattr(heavy, "made", lambda _kind, size: made[size])  # what a node itself does is its own affair

    async def run(size: int) -> object:
        task = TaskContext("dag", uuid.uuid4().hex, "task", -1, 1, {})
        async with AgentRunner(settings, database, task) as runner:
            spec = parse_agent(None, {"kind": kind, "size": size}, graph="tests.kit.graphs.heavy:chain")
            return (await run_single(runner, spec))["output"]

    await run(10)
    gc.collect()
    gc.disable()
    try:
        with measured_callbacks(asyncio.get_running_loop(), ALLOWED) as callbacks:
            output = await run(SIZE)
    finally:
        gc.enable()
    assert output == {"payload": made[SIZE]}
    assert not callbacks.slow, str(callbacks)
