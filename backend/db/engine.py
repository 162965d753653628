"""Access to the `visual_ai` database, from event loops and from threads.

Repositories are plain functions whose first argument is a `Connection`, so each statement is written once. They never
commit: `Database.run` (asynchronous) and `run_in` (synchronous) run a function in a transaction of its own. Events that
the function appends are announced to the feeds through Redis after the commit, if there is a Redis; without one, or if
it is unavailable, `NOTIFY` does that.
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

from backend.core.jsonable import dumps, loads_stored
from backend.db.runs.announcements import OPTION, Announcement, Announcer, notify

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def make_engine(url: str, *, application: str, pool_size: int = 2, wait: float | None = 10) -> Engine:
    """A synchronous engine with at most `pool_size` connections, which are opened on demand and replaced when dead.

    `wait` is how many seconds to wait for a free connection; None waits indefinitely.
    """
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=True,
        pool_timeout=wait,
        json_serializer=dumps,
        json_deserializer=loads_stored,
        use_native_hstore=False,  # unused, and costs each new engine two round trips
        connect_args={"application_name": application, "connect_timeout": 5},
    )


@lru_cache(maxsize=4)
def task_engine(url: str) -> Engine:
    """The engine of a task's process in a worker, shared by its agents and its listener.

    The process that forks tasks creates it, and `backend.db.rehearsal` compiles all statements there for the tasks.
    That process must not use it in threads: a lock that a thread holds during a fork would stay locked in the task.
    """
    engine = make_engine(url, application="visual_ai_worker", pool_size=4)
    # Connections can't be shared with the parent process.
    os.register_at_fork(after_in_child=partial(engine.dispose, close=False))
    return engine


def make_async_engine(url: str, *, application: str, pool_size: int, check: bool = True) -> AsyncEngine:
    """An asynchronous engine with `pool_size` pooled connections, which are replaced when dead.

    Without `check`, dead connections are not detected beforehand, which saves a round trip: the caller has to retry.
    """
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=check,
        pool_timeout=10,
        json_serializer=dumps,
        json_deserializer=loads_stored,
        use_native_hstore=False,  # unused, and costs each new engine two round trips
        connect_args={"application_name": application, "connect_timeout": 5},
    )


class Database:
    """Runs repository functions for asynchronous code, each in a transaction of its own."""

    def __init__(self, engine: AsyncEngine, redis_url: str | None = None) -> None:
        self.engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._announcer = Announcer(redis_url) if redis_url else None

    async def run(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(connection, …)` in one transaction and commit it.

        Raises `sqlalchemy.exc.OperationalError` if the database is unavailable; a retry may help.
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
        """Run `function(connection, …)` and commit each of its statements separately, in one round trip each.

        No lock outlives its statement, however busy this process is. Raises the same errors as `run`.
        """
        return await self._run(self._autocommit, function, *args, **kwargs)

    def run_from_thread(
        self,
        loop: asyncio.AbstractEventLoop,
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """The same as `run`, for a thread that may wait, which isn't that of the event `loop`."""
        return asyncio.run_coroutine_threadsafe(self.run(function, *args, **kwargs), loop).result()

    async def close(self) -> None:
        """Close all pooled connections."""
        if self._announcer is not None:
            self._announcer.close()
        await self.engine.dispose()

    async def _notify(self, announcements: list[Announcement]) -> None:
        try:
            async with self.engine.begin() as connection:
                await connection.run_sync(notify, announcements)
        except SQLAlchemyError as error:  # the events are committed, and the feeds find them when they poll
            log.warning("the event feeds could not be notified: %s", type(error).__name__)


class ThreadedDatabase(Database):
    """Runs repository functions with a synchronous engine in at most `threads` threads.

    In a busy event loop, a transaction would hold its locks until the loop gets round to the next statement; in a
    thread it doesn't. A short-lived process saves half the time that an asynchronous engine takes.
    """

    def __init__(self, engine: Engine, *, threads: int, redis_url: str | None = None) -> None:
        self._redis = Announcer(redis_url) if redis_url else None
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="visual-ai-database")
        self._engine = engine

    async def run(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(connection, …)` in one transaction and commit it.

        A transaction that has started is completed. If the caller is cancelled meanwhile, it is cancelled afterwards.
        """
        return await self._in_thread(partial(self._execute, function, *args, **kwargs))

    async def run_autocommit(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(connection, …)` and commit each of its statements separately."""
        return await self._in_thread(partial(self._execute_autocommit, function, *args, **kwargs))

    def run_from_thread(
        self,
        loop: asyncio.AbstractEventLoop,  # noqa: ARG002  # the thread does it itself
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """The same as `run`, in the thread that calls, which may be that of an event loop."""
        return self._execute(function, *args, **kwargs)

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
                task.cancel(*cancelled.args)  # takes effect at its next await
            return running.result()

    async def close(self) -> None:
        """Stop the threads. The caller disposes of the engine."""
        self._threads.shutdown(wait=False)
        if self._redis is not None:
            self._redis.close()

    def _execute(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return run_in(self._engine, self._redis, function, *args, **kwargs)

    def _execute_autocommit(
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
    """Run `function(connection, …)` in one transaction, then announce the events that it appended. For threads."""
    announcements = announcer.open() if announcer is not None else None
    with engine.begin() as connection:
        if announcements is not None:
            connection.execution_options(**{OPTION: announcements})
        result = function(connection, *args, **kwargs)
    if announcements and announcer is not None and not announcer.publish(announcements):
        try:
            with engine.begin() as connection:
                notify(connection, announcements)
        except SQLAlchemyError as error:  # the events are committed, and the feeds find them when they poll
            log.warning("the event feeds could not be notified: %s", type(error).__name__)
    return result
