"""The project's checkpointer fulfils LangGraph's own contract for checkpointers, as LangGraph's test suite has it."""

import uuid
from collections.abc import AsyncIterator

import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate

from backend.checkpoints.batch_writer import SHARED_GATHER_SECONDS, CheckpointWriter
from backend.checkpoints.batched_saver import BatchedSaver
from backend.checkpoints.pool import open_pool
from backend.db.engine import make_engine
from backend.db.runs import executions, threads
from backend.db.runs.executions import RunState
from backend.db.runs.threads import Claim
from tests.kit.servers.postgres import Postgres

CAPABILITIES = {"put", "put_writes", "get_tuple", "list", "delete_thread", "prune"}
"""What LangGraph's PostgreSQL saver has: every base capability and one of the optional ones."""


def claim_in(database_url: str) -> Claim:
    """A claim that holds its thread."""
    engine = make_engine(database_url, application="test")
    try:
        with engine.begin() as connection:
            execution_id = executions.ensure(connection, RunState("dag", "run", None))
            thread = uuid.uuid4().hex
            return threads.begin_one(connection, threads.ClaimRequest(execution_id, thread, 1, [thread], "input"))
    finally:
        engine.dispose()


@pytest.mark.usefixtures("database_url")
@pytest.mark.parametrize("gather", [0, SHARED_GATHER_SECONDS], ids=["of one task", "of a batch or a triggerer"])
async def test_the_batched_saver_conforms(pg: Postgres, gather: float) -> None:
    @checkpointer_test(name="BatchedSaver")
    async def saver() -> AsyncIterator[BatchedSaver]:
        writer = CheckpointWriter(pg.worker_url, gather=gather)
        try:
            async with (
                open_pool(pg.worker_url, max_size=2) as pool,
                BatchedSaver(pool, claim_in(pg.worker_url), writer).writing() as opened,
            ):
                yield opened
        finally:
            writer.close()

    report = await validate(saver)
    results = {name: result.failures for name, result in report.results.items() if result.detected}
    assert results == {name: [] for name in CAPABILITIES}
