"""The gate and its store as the settings have them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backend.core.ratelimit.interface import ModelGate, OpenGate
from backend.core.settings import Settings
from backend.db.engine import Database
from backend.ratelimit.limiter import SharedGate
from backend.ratelimit.stores import LimitStore, PostgresStore, SteadyStore


def limit_store(settings: Settings, database: Database) -> LimitStore:
    """What keeps models' limits: Redis with `REDIS_URL`, else `database`, which stays the caller's to close."""
    if settings.redis_address is None:
        return PostgresStore(database)
    from backend.ratelimit.redis_store import RedisStore  # most have no Redis

    return RedisStore(settings.redis_address)


@asynccontextmanager
async def open_gate(settings: Settings, database: Database) -> AsyncIterator[ModelGate]:
    """The gate for the model calls of the running event loop.

    One is enough for all agents of a loop, and several of the same process share what they know only as processes do.
    """
    if not settings.rate_limiter:
        yield OpenGate()
        return
    gate = SharedGate(SteadyStore(limit_store(settings, database)), settings.model_limits)
    try:
        yield gate
    finally:
        await gate.close()
