"""Engines for the `visual_ai` database.

Repositories are plain functions on a `Connection`. Asynchronous callers run them with
`await connection.run_sync(function, ...)`, so that each statement is written once.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from backend.core.jsonable import dumps
from backend.db.announcements import OPTION, Announcement, Announcer, AsyncAnnouncer, notify

log = logging.getLogger(__name__)

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
        self._announcer = AsyncAnnouncer(redis_url) if redis_url else None

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
        if announcements and self._announcer is not None and not await self._announcer.publish(announcements):
            await self._notify(announcements)
        return result

    async def read(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a `function` of single statements that only reads: without a transaction, which costs two round trips."""
        async with self._autocommit.connect() as connection:
            return await connection.run_sync(function, *args, **kwargs)

    async def write(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a `function` of single statements, each of which may stand by itself: it is committed at once, which
        costs one round trip instead of three."""
        return await self._run(self._autocommit, function, *args, **kwargs)

    async def close(self) -> None:
        """Close all pooled connections."""
        if self._announcer is not None:
            await self._announcer.close()
        await self.engine.dispose()

    async def _notify(self, announcements: list[Announcement]) -> None:
        try:
            async with self.engine.begin() as connection:
                await connection.run_sync(notify, announcements)
        except SQLAlchemyError as error:  # what was to be told is committed: the feeds find it by themselves
            log.warning("the event feeds could not be woken: %s", type(error).__name__)


class ThreadedDatabase(Database):
    """The same for a busy event loop: transactions run in threads, so that none of them holds a lock while the loop
    gets round to its next statement. Waiting for one of the connections has no limit: hundreds may ask at once.
    """

    def __init__(self, url: str, *, application: str, connections: int, redis_url: str | None = None) -> None:
        self._redis = Announcer(redis_url) if redis_url else None
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

    async def read(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same as `run`."""
        return await self.run(function, *args, **kwargs)

    async def write(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same as `run`."""
        return await self.run(function, *args, **kwargs)

    async def close(self) -> None:
        """Close all pooled connections."""
        self._threads.shutdown(wait=False)
        self._engine.dispose()
        if self._redis is not None:
            self._redis.close()

    def _carry_out(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return run_in(self._engine, self._redis, function, *args, **kwargs)


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
