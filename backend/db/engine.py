"""Engines for the `visual_ai` database.

Repositories are plain functions on a `Connection`. Asynchronous callers run them with
`await connection.run_sync(function, ...)`, so that each statement is written once.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from backend.core.jsonable import dumps
from backend.db.runs.announcements import OPTION, Announcement, Announcer, notify

log = logging.getLogger(__name__)

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


def make_async_engine(url: str, *, application: str, pool_size: int, check: bool = True) -> AsyncEngine:
    """An asynchronous engine with `pool_size` pooled connections; dead ones are replaced when taken.

    Without `check` that costs no round trip: what then fails must be tried again by the caller.
    """
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=check,
        pool_timeout=10,
        json_serializer=dumps,
        use_native_hstore=False,  # not used, and asked of the server by every new engine: two round trips
        connect_args={"application_name": application, "connect_timeout": 5},
    )


class Database:
    """The one way asynchronous code reaches the database: a repository function in a transaction of its own.

    With a `redis_url` the feeds hear of appended events through Redis.
    """

    def __init__(self, engine: AsyncEngine, redis_url: str | None = None) -> None:
        self.engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._announcer = Announcer(redis_url) if redis_url else None

    async def run(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(connection, …)` in one transaction and commit it.

        Raises `sqlalchemy.exc.OperationalError` when the database is out of reach; a retry may help.
        """
        return await self._run(self.engine, function, *args, **kwargs)

    async def _run(
        self,
        engine: AsyncEngine,
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        announcements = self._announcer.open() if self._announcer is not None else None
        async with engine.begin() as connection:
            if announcements is not None:
                await connection.execution_options(**{OPTION: announcements})
            result = await connection.run_sync(function, *args, **kwargs)
        if announcements and self._announcer is not None:
            # In a thread: a Redis that does not answer must not block the event loop.
            announced = await asyncio.to_thread(self._announcer.publish, announcements)
            if not announced:
                await self._notify(announcements)
        return result

    async def run_autocommit(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(connection, …)` with each of its statements committed by itself, in one round trip each.

        No lock outlives its statement, however long this process takes to get round to the next one. Raises as `run`.
        """
        return await self._run(self._autocommit, function, *args, **kwargs)

    async def close(self) -> None:
        """Close all pooled connections."""
        if self._announcer is not None:
            self._announcer.close()
        await self.engine.dispose()

    async def _notify(self, announcements: list[Announcement]) -> None:
        try:
            async with self.engine.begin() as connection:
                await connection.run_sync(notify, announcements)
        except SQLAlchemyError as error:  # what was to be told is committed: the feeds find it by themselves
            log.warning("the event feeds could not be woken: %s", type(error).__name__)


class ThreadedDatabase(Database):
    """The same with a synchronous engine in at most `threads` threads.

    For a busy event loop: no transaction holds a lock while the loop gets round to its next statement. And for a
    short-lived process: it takes half the time of an asynchronous engine.
    """

    def __init__(self, engine: Engine, *, threads: int, redis_url: str | None = None) -> None:
        self._redis = Announcer(redis_url) if redis_url else None
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
        if self._redis is not None:
            self._redis.close()

    def _carry_out(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return run_in(self._engine, self._redis, function, *args, **kwargs)

    def _carry_out_autocommit(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        return run_in(autocommit, self._redis, function, *args, **kwargs)


def run_in(
    engine: Engine,
    announcer: Announcer | None,
    function: Callable[Concatenate[Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run `function(connection, …)` in one transaction and tell the feeds what it appended, for threads."""
    announcements = announcer.open() if announcer is not None else None
    with engine.begin() as connection:
        if announcements is not None:
            connection.execution_options(**{OPTION: announcements})
        result = function(connection, *args, **kwargs)
    if announcements and announcer is not None and not announcer.publish(announcements):
        try:
            with engine.begin() as connection:
                notify(connection, announcements)
        except SQLAlchemyError as error:  # what was to be told is committed: the feeds find it by themselves
            log.warning("the event feeds could not be woken: %s", type(error).__name__)
    return result
