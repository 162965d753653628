"""Engines for the `visual_ai` database.

Repositories are plain functions on a `Connection`. Asynchronous callers run them with
`await connection.run_sync(function, ...)`, so that each statement is written once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from backend.core.jsonable import dumps

P = ParamSpec("P")
T = TypeVar("T")


def make_engine(url: str, *, application: str) -> Engine:
    """A synchronous engine without a pool, for processes that write now and then (tasks, listeners, setup)."""
    return create_engine(
        url,
        poolclass=NullPool,
        json_serializer=dumps,
        use_native_hstore=False,  # not used, and asked of the server by every new engine: two round trips
        connect_args={"application_name": application, "connect_timeout": 5},
    )


def make_async_engine(url: str, *, application: str, pool_size: int) -> AsyncEngine:
    """An asynchronous engine with `pool_size` pooled connections; dead ones are replaced when taken."""
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_timeout=10,
        json_serializer=dumps,
        use_native_hstore=False,  # not used, and asked of the server by every new engine: two round trips
        connect_args={"application_name": application, "connect_timeout": 5},
    )


class Database:
    """The one way asynchronous code reaches the database: a repository function in a transaction of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def run(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(connection, …)` in one transaction and commit it.

        Raises `sqlalchemy.exc.OperationalError` when the database is out of reach; a retry may help.
        """
        async with self.engine.begin() as connection:
            return await connection.run_sync(function, *args, **kwargs)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """An `AsyncConnection` in a transaction, for callers that need several repositories at once."""
        async with self.engine.begin() as connection:
            yield connection

    async def close(self) -> None:
        """Close all pooled connections."""
        await self.engine.dispose()


class ThreadedDatabase(Database):
    """The same for a busy event loop: transactions run in threads, so that none of them holds a lock while the loop
    gets round to its next statement. Waiting for one of the connections has no limit: hundreds may ask at once.
    """

    def __init__(self, url: str, *, application: str, connections: int) -> None:
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix="visual-ai-database")
        self._engine = create_engine(
            url,
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=True,
            json_serializer=dumps,
            connect_args={"application_name": application, "connect_timeout": 5},
        )

    async def run(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(connection, …)` in one transaction and commit it.

        A transaction that has begun is not given up: who is cancelled meanwhile is told when it has ended.
        """
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, partial(self._carry_out, function, *args, **kwargs))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError as cancelled:
            if running.cancelled():
                raise
            await asyncio.wait([running])
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
                task.cancel(*cancelled.args)  # at its next step
            return running.result()

    async def close(self) -> None:
        """Close all pooled connections."""
        self._threads.shutdown(wait=False)
        self._engine.dispose()

    def _carry_out(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._engine.begin() as connection:
            return function(connection, *args, **kwargs)
