"""The limit on how many runs a user may trigger per minute.

The limit is a sliding window per user. All backend processes count together, in Redis or, without `REDIS_URL`, in
PostgreSQL, so a user has one limit however many processes there are. While that is unreachable each process counts by
itself: a user may then trigger up to the limit in each of them, which is better than to refuse triggers because a
counter is missing.
"""

import logging
import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis import RedisError
from redis.asyncio import ConnectionPool
from sqlalchemy.exc import SQLAlchemyError

from backend.core.problems import TooManyRequests
from backend.db.engine import Database
from backend.db.limits import trigger_windows
from backend.db.runs.announcements import redis_options

log = logging.getLogger(__name__)

PAUSE = 5.0
"""Seconds for which what is shared is not asked after it failed, so that not every trigger waits for its timeout."""

_KEY = "trigger"


class TriggerRate:
    """Counts triggers and refuses those above the limit. `per_minute` 0 means no limit."""

    def __init__(self, per_minute: int, database: Database, redis_url: str | None = None) -> None:
        self._database = database
        self._limit = RateLimitItemPerMinute(per_minute) if per_minute else None
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._pool = ConnectionPool.from_url(redis_url, **redis_options()) if redis_url else None
        self._shared = (
            SlidingWindowCounterRateLimiter(
                RedisStorage(
                    "async+redis://",  # not used: the pool knows the address
                    implementation="redispy",
                    key_prefix="visual_ai:limits",
                    connection_pool=self._pool,  # type: ignore[arg-type]  # the stubs know plain options only
                )
            )
            if self._pool is not None
            else None
        )
        self._paused_until = 0.0

    async def check(self, username: str) -> None:
        """Count one trigger of this user. Raises `TooManyRequests` with the seconds after which to retry."""
        if self._limit is None:
            return
        if time.monotonic() >= self._paused_until:
            try:
                if self._shared is not None:
                    await self._hit(self._shared, self._limit, username)
                else:
                    await self._hit_database(self._limit, username)
                return
            except (RedisError, SQLAlchemyError, OSError) as error:
                store = "Redis" if self._shared is not None else "PostgreSQL"
                log.warning(
                    "%s is out of reach (%s); this process counts triggers by itself", store, type(error).__name__
                )
                self._paused_until = time.monotonic() + PAUSE
        await self._hit(self._local, self._limit, username)

    async def _hit_database(self, limit: RateLimitItemPerMinute, username: str) -> None:
        if not await self._database.run_autocommit(trigger_windows.hit, username, limit.amount):
            raise _too_many(limit, 60 - time.time() % 60)

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._pool is not None:
            await self._pool.aclose()

    @staticmethod
    async def _hit(limiter: SlidingWindowCounterRateLimiter, limit: RateLimitItemPerMinute, username: str) -> None:
        if await limiter.hit(limit, _KEY, username):
            return
        window = await limiter.get_window_stats(limit, _KEY, username)
        raise _too_many(limit, window.reset_time - time.time())


def _too_many(limit: RateLimitItemPerMinute, wait: float) -> TooManyRequests:
    return TooManyRequests(f"More than {limit.amount} triggers a minute.", retry_after=max(1.0, wait))
