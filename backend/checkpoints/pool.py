"""Connections for reading checkpoints and for LangGraph's store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from backend.db.address import plain_url

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
