"""Engines for the `visual_ai` database.

Repositories are plain functions on a `Connection`. Asynchronous callers run them with
`await connection.run_sync(function, ...)`, so that each statement is written once.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from backend.core.jsonable import dumps

P = ParamSpec("P")
T = TypeVar("T")


def make_engine(url: str, *, application: str, pool_size: int = 2, wait: float | None = 10) -> Engine:
    """A synchronous engine with `pool_size` pooled connections, made when they are needed; dead ones are replaced when
    taken. `wait` is how long, in seconds, one is waited for; None: as long as it takes."""
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_timeout=wait,
        json_serializer=dumps,
        use_native_hstore=False,  # not used, and asked of the server by every new engine: two round trips
        connect_args={"application_name": application, "connect_timeout": 5},
    )


@lru_cache(maxsize=4)
def task_engine(url: str) -> Engine:
    """The engine of a worker's task: of its agents, its listener and what else runs in its process.

    The process that forks tasks makes it and `backend.db.rehearsal` uses it there, so that tasks find all statements
    compiled. That process must not use it in threads: a lock that one of them holds during a fork would stay locked
    in the task.
    """
    engine = make_engine(url, application="visual_ai_worker", pool_size=4)
    # Connections are their maker's.
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
    return engine


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

    async def run_autocommit(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(connection, …)` with each of its statements committed by itself.

        No lock outlives its statement, however long this process takes to get round to the next one. Raises as `run`.
        """
        async with self.engine.connect() as connection:
            connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
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
    """The same with a synchronous engine in at most `threads` threads.

    For a busy event loop: no transaction holds a lock while the loop gets round to its next statement. And for a
    short-lived process: it takes half the time of an asynchronous engine.
    """

    def __init__(self, engine: Engine, *, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="visual-ai-database")
        self._engine = engine

    async def run(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(connection, …)` in one transaction and commit it.

        A transaction that has begun is not given up: who is cancelled meanwhile is told when it has ended.
        """
        return await self._in_thread(partial(self._carry_out, function, *args, **kwargs))

    async def run_autocommit(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(connection, …)` with each of its statements committed by itself."""
        return await self._in_thread(partial(self._carry_out_autocommit, function, *args, **kwargs))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
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
        """End the threads. The engine is its maker's."""
        self._threads.shutdown(wait=False)

    def _carry_out(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._engine.begin() as connection:
            return function(connection, *args, **kwargs)

    def _carry_out_autocommit(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with self._engine.connect() as connection:
            return function(connection.execution_options(isolation_level="AUTOCOMMIT"), *args, **kwargs)
