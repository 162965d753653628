"""Waits for a database that is being restarted, failing over, read-only or overloaded: its calls are repeated."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg
from psycopg_pool import PoolClosed
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_delay,
    wait_exponential,
    wait_random,
)

from backend.core.problems import Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

OUTAGE_SECONDS = 60.0
"""How long a database may be unavailable. A restart takes seconds, a failover of a managed database up to a minute."""


def connection_lost(error: BaseException) -> bool:
    """Whether the connection failed, rather than the statement: on another connection it may succeed."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    if isinstance(error, PoolClosed):
        return False
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        # Without a state the error is the client's. The states are connection exceptions and a server shutting down or
        # starting up.
        state = error.sqlstate
        return state is None or state.startswith("08") or state in ("57P01", "57P02", "57P03")
    return isinstance(error, OSError | NoConnectionFree)


_TEMPORARY = (
    "08", "53", "58",  # connections, resources such as disk and memory, the system
    "40001", "40P01",  # serialization failure, deadlock
    "25006", "25P03", "25P04",  # read-only, as after a failover; a transaction took too long
    "55P03", "57",  # locked; a time limit, a shutdown or a start
)  # fmt: skip
"""States, or their first characters, of errors that are the database's and not the statement's."""


def temporary(error: BaseException) -> bool:
    """Whether the same call may succeed later: the connection failed, or the database can't carry it out now."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, psycopg.Error) and cause.sqlstate is not None:
        return cause.sqlstate.startswith(_TEMPORARY)
    return connection_lost(error)


def database_problem(error: BaseException) -> Unavailable:
    """What to tell a client whose request the database did not serve, without the database's own words."""
    state = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
    if connection_lost(error):
        detail = "The database is out of reach; try again shortly."
    elif state == "57014":
        detail = "The database did not answer within the time limit of a query; try again, or ask for less at once."
    elif state == "55P03":
        detail = "The database is busy: a lock was not released in time; try again shortly."
    elif state == "25006":
        detail = "The database is read-only at the moment; try again shortly."
    else:
        detail = f"The database reported an error ({state or type(error).__name__}); the log has the details."
    return Unavailable(detail, retry_after=5)


async def retry_until_available(call: Callable[[], Awaitable[T]], *, within: float = OUTAGE_SECONDS) -> T:
    """Return the result of `call()`, repeating it after errors that are `temporary`.

    Only for calls that may be repeated: a connection can be lost after the commit. Raises the last error once the
    database has been unavailable for `within` seconds, and any other error at once.
    """
    retrying = AsyncRetrying(
        retry=retry_if_exception(temporary),
        wait=wait_exponential(multiplier=0.1, max=2.0) + wait_random(0, 0.1),
        stop=stop_after_delay(within),
        before_sleep=_warn,
        reraise=True,
    )
    return await retrying(call)


def _warn(state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        log.warning("the database is unavailable, retrying: %s", type(state.outcome.exception()).__name__)
