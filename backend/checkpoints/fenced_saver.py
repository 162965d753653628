"""Checkpoints in Postgres, which only the latest claim on a task's thread can write, and the graphs' store."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import Op, Result
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from backend.db.address import plain_url
from backend.db.outage import outlast
from backend.db.runs.threads import Claim

Pool = AsyncConnectionPool[AsyncConnection[DictRow]]


@asynccontextmanager
async def open_pool(database_url: str, *, max_size: int, min_size: int = 0, wait: float = 10) -> AsyncIterator[Pool]:
    """Connections for checkpoints and the store, as LangGraph wants them, in the schema `visual_ai`.

    `min_size` of them are made at once, in the background, the others when they are needed. `wait` is how long, in
    seconds, one is waited for.
    """
    async with AsyncConnectionPool(
        plain_url(database_url),
        connection_class=AsyncConnection[DictRow],
        min_size=min_size,
        max_size=max_size,
        timeout=wait,
        open=False,
        kwargs={
            "autocommit": True,
            "prepare_threshold": 0,
            "row_factory": dict_row,
            "connect_timeout": 5,
            "application_name": "visual_ai_checkpoints",
            "options": "-c search_path=visual_ai",
        },
    ) as pool:
        yield pool


class FencedSaver(AsyncPostgresSaver):
    """LangGraph's saver, whose every write first makes sure, in the same transaction, that the claim still lasts.

    A write of a superseded claim raises `psycopg.errors.SerializationFailure`.
    """

    def __init__(self, pool: Pool, claim: Claim) -> None:
        # Agents' states hold messages and plain data; what else a user's graph keeps is its own choice.
        super().__init__(pool, serde=JsonPlusSerializer())
        self._fence = (claim.thread_id, claim.try_number, claim.epoch)

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[DictRow]]:
        async with super()._cursor(pipeline=pipeline) as cursor:
            # The saver asks for a pipeline for just those statements that change something.
            if not pipeline:
                yield cursor
                return
            async with cursor.connection.transaction():
                await cursor.execute("SELECT visual_ai.hold_thread(%s, %s, %s)", self._fence)
                yield cursor


class LastingStore(AsyncPostgresStore):
    """LangGraph's store, which waits for a database that is restarted."""

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out operations; all of the store's come here."""
        return await outlast(partial(super().abatch, list(ops)))
