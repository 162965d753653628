"""Loops of many steps: what is kept of each, and what is left of it later."""

from collections.abc import Iterator
from typing import Any

import pytest
from langgraph.types import Durability
from sqlalchemy import text

from backend.checkpoints.prune import thin_checkpoints
from backend.core.settings import get_settings
from backend.db.engine import Database
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from tests.kit.failures.raised import raises_failure
from tests.kit.fixtures.tasks import MakeRunner
from tests.kit.graphs import loops
from tests.kit.servers.postgres import Postgres

ROUNDS, FAILS = 30, 21


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    loops.steps.clear()
    loops.failures.clear()
    yield
    loops.failures.clear()
    get_settings.cache_clear()


async def execute(database: Database, statement: str) -> None:
    await database.run(lambda connection: connection.execute(text(statement)))


async def run(make_runner: MakeRunner, graph: str, try_number: int, durability: Durability | None = "async") -> Any:
    given = {"rounds": ROUNDS, "messages": []}
    async with make_runner(try_number, durability=durability) as runner:
        return await run_single(runner, parse_agent(None, given, graph=f"tests.kit.graphs.loops:{graph}"))


async def count(database: Database, table: str) -> int:
    async with database.engine.connect() as connection:
        found = await connection.execute(text(f"SELECT count(*) FROM visual_ai.{table}"))
        return int(found.scalar_one())


@pytest.mark.parametrize("graph", ["whole", "deltas"])
@pytest.mark.parametrize("durability", ["async", "sync", "exit"])
async def test_a_loop_goes_on_where_it_failed(
    make_runner: MakeRunner, database: Database, graph: str, durability: Durability
) -> None:
    loops.failures[graph] = FAILS
    with raises_failure(RuntimeError, match=f"step {FAILS} failed"):
        await run(make_runner, graph, 1, durability)
    checkpoints = await count(database, "checkpoints")
    assert checkpoints <= 2 if durability == "exit" else checkpoints >= FAILS
    result = await run(make_runner, graph, 2, durability)
    assert [message[:3].rstrip("x:") for message in result["output"]["messages"]] == [
        str(number) for number in range(1, ROUNDS + 1)
    ]
    assert loops.steps == list(range(1, ROUNDS + 1))


@pytest.mark.parametrize("graph", ["whole", "deltas"])
async def test_a_step_that_is_kept_without_its_checkpoint_is_not_the_last(
    make_runner: MakeRunner, database: Database, graph: str
) -> None:
    """The process was killed after a node's writes were stored, and before the checkpoint of their step."""
    await run(make_runner, graph, 1)
    later = f"SELECT checkpoint_id FROM visual_ai.checkpoints WHERE (metadata ->> 'step')::int >= {FAILS}"
    for table in ("checkpoint_writes", "checkpoints"):
        await execute(database, f"DELETE FROM visual_ai.{table} WHERE checkpoint_id IN ({later})")
    loops.steps.clear()
    result = await run(make_runner, graph, 2)
    assert len(result["output"]["messages"]) == ROUNDS
    assert loops.steps == list(range(FAILS + 1, ROUNDS + 1)), "what is kept is not run again"


async def finish(database: Database, days: int) -> None:
    ended = (
        "UPDATE visual_ai.workflow_executions SET state = 'failed',"
        f" finished_at = clock_timestamp() - interval '{days} days'"
    )
    await execute(database, ended)


@pytest.mark.parametrize(("graph", "left"), [("whole", 1), ("deltas", FAILS)])
async def test_old_runs_keep_what_a_retry_needs(
    make_runner: MakeRunner, pg: Postgres, database: Database, monkeypatch: pytest.MonkeyPatch, graph: str, left: int
) -> None:
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", pg.worker_url)
    get_settings.cache_clear()
    loops.failures[graph] = FAILS
    with raises_failure(RuntimeError, match=f"step {FAILS} failed"):
        await run(make_runner, graph, 1)
    before = await count(database, "checkpoints")
    await finish(database, days=2)
    assert thin_checkpoints(3) == 0
    assert await count(database, "checkpoints") == before
    assert thin_checkpoints(1) == (1 if graph == "whole" else 0)
    assert thin_checkpoints(1) == 0, "it is done"
    assert left <= await count(database, "checkpoints") <= left + 2
    result = await run(make_runner, graph, 2)
    assert len(result["output"]["messages"]) == ROUNDS
    assert loops.steps == list(range(1, ROUNDS + 1))
