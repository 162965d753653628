"""Outlasts a database that is restarted or fails over: what lost its connection is done again on a new one."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg
from psycopg_pool import PoolClosed
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_exponential_jitter

log = logging.getLogger(__name__)

T = TypeVar("T")

OUTAGE_SECONDS = 60.0
"""How long a database may be away. A restart takes seconds, the failover of a managed one up to a minute."""


def connection_lost(error: BaseException) -> bool:
    """Whether it was the connection that failed, not what was asked of the database: on another one it may succeed."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    if isinstance(error, PoolClosed):
        return False
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        # No state: the client's own word. Else connection exceptions, and a server that shuts down or starts.
        state = error.sqlstate
        return state is None or state.startswith("08") or state in ("57P01", "57P02", "57P03")
    return isinstance(error, OSError | NoConnectionFree)


async def outlast(call: Callable[[], Awaitable[T]], *, within: float = OUTAGE_SECONDS) -> T:
    """The result of `call()`, which is made again as long as it loses its connection.

    For what may be done twice: a connection can be lost after the commit. Raises the last error when the database has
    been away for `within` seconds, and any other error at once.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception(connection_lost),
        wait=wait_exponential_jitter(multiplier=0.1, max=2.0, jitter=0.1),
        stop=stop_after_delay(within),
        before_sleep=_tell,
        reraise=True,
    )
    return await retrying(call)


def _tell(state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        log.warning("the database is out of reach, trying again: %s", type(state.outcome.exception()).__name__)
