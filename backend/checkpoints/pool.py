"""Connections for reading checkpoints and for LangGraph's store."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from langgraph.store.base import Op, PutOp, Result
from langgraph.store.postgres.aio import AsyncPostgresStore
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from backend.core.errors.agent_errors import UnstorableOutputError
from backend.core.exact_json import NoJsonFormError, to_json
from backend.core.problems import pointer
from backend.db.address import plain_url
from backend.db.outage import retry_until_available

Pool = AsyncConnectionPool[AsyncConnection[DictRow]]

CONNECTION: dict[str, Any] = {
    "autocommit": True,
    "prepare_threshold": 0,
    "row_factory": dict_row,
    "connect_timeout": 5,
    "application_name": "visual_ai_checkpoints",
    "options": "-c search_path=visual_ai",  # LangGraph's statements name its tables without a schema
}
"""The arguments of connections set up the way LangGraph requires, in the schema `visual_ai`."""


@asynccontextmanager
async def open_pool(database_url: str, *, max_size: int, wait: float = 10) -> AsyncIterator[Pool]:
    """A pool of connections as LangGraph requires them.

    They are made when they are first needed. A caller waits up to `wait` seconds for a free one, then gets
    `psycopg_pool.PoolTimeout`.
    """
    async with AsyncConnectionPool(
        plain_url(database_url),
        connection_class=AsyncConnection[DictRow],
        min_size=0,
        max_size=max_size,
        timeout=wait,
        open=False,
        kwargs=CONNECTION,
    ) as pool:
        yield pool


class ResilientStore(AsyncPostgresStore):
    """LangGraph's store, which waits for a database that is being restarted instead of failing."""

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out the operations. Every method of the store ends up here.

        Items are stored as JSON, converted like a graph's output. Raises `UnstorableOutputError` naming a part of one
        that has no JSON form.
        """
        storable = [_as_json(op) if isinstance(op, PutOp) and op.value is not None else op for op in ops]
        return await retry_until_available(partial(super().abatch, storable))


def _as_json(op: PutOp) -> PutOp:
    try:
        return op._replace(value=to_json(op.value))
    except NoJsonFormError as error:
        item = f"{'/'.join(op.namespace)}/{op.key}"
        raise UnstorableOutputError(
            f"the store can't hold the item {item!r}: {pointer(*error.path[:10])} {error.fault}"
        ) from None
