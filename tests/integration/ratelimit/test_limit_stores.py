"""The contract of a store of rate limits, checked for PostgreSQL, Redis and the memory of one process."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from backend.core.ratelimit.circuit_breaker import Circuit
from backend.core.ratelimit.state import Counts, LimitState, begin
from backend.db.engine import Database, ThreadedDatabase, make_async_engine, make_engine
from backend.ratelimit.redis_store import INDEX, RedisStore
from backend.ratelimit.stores import LimitStore, MemoryStore, PostgresStore
from tests.kit.servers.redis import RedisServer

MODEL = "openai:gpt-4.1@0a1b2c"
STATE = LimitState(
    "learned",
    1 / 3,
    burst=4,
    epoch=7,
    cut_rate=0.3,
    raises=3,
    turn=1234.5678,
    turn_at=1_700_000_007.5,
    tail=1250.5678,
    held_until=1_800_000_000.25,
    limited_at=1_700_000_000.5,
    active_at=float(int(time.time())),
    tokens_at=1_700_000_008.5,
    circuit=Circuit(
        failures=5,
        failed_by=("a", "b"),
        failed_at=1_700_000_004.5,
        opened_at=1_700_000_005.5,
        open_until=1_700_000_006.5,
        open_seconds=20.0,
        probing=True,
    ),
    counts=Counts(1, 2, 3),
)


@pytest.fixture(params=["memory", "postgres", "postgres in threads", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[LimitStore]:
    async with AsyncExitStack() as stack:
        made: LimitStore
        if request.param == "memory":
            made = MemoryStore()
        elif request.param == "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            made = RedisStore(server.url)
        else:
            url = request.getfixturevalue("database_url")
            if request.param == "postgres":
                database = Database(make_async_engine(url, application="test", pool_size=4))
            else:
                engine = make_engine(url, application="test", pool_size=4)
                stack.callback(engine.dispose)
                database = ThreadedDatabase(engine, threads=4)
            stack.push_async_callback(database.close)
            made = PostgresStore(database)
        stack.push_async_callback(made.close)
        yield made


async def test_a_model_that_was_never_called_has_no_state(store: LimitStore) -> None:
    before = time.time()
    snapshot = await store.read(MODEL)
    assert (snapshot.state, snapshot.version) == (None, None)
    assert snapshot.now == pytest.approx(before, abs=5)
    assert await store.read_all() == {}


async def test_a_state_is_read_as_it_was_stored(store: LimitStore) -> None:
    swapped, stored = await store.swap(MODEL, None, STATE)
    assert swapped
    read = await store.read(MODEL)
    assert stored.state == read.state == STATE
    assert (await store.read_all())[MODEL].state == STATE
    swapped, stored = await store.swap(MODEL, read.version, begin(1_700_000_000.0, cap=None))
    assert swapped
    assert (await store.read(MODEL)).state == stored.state == begin(1_700_000_000.0, cap=None)


async def test_only_one_of_several_writers_replaces_a_version(store: LimitStore) -> None:
    for version in (None, (await store.swap("another", None, STATE))[1].version):
        results = await asyncio.gather(
            *(store.swap(MODEL, version, replace(STATE, epoch=number)) for number in range(5))
        )
        assert sorted(swapped for swapped, _ in results) == [False] * 4 + [True]
        winner = next(snapshot for swapped, snapshot in results if swapped)
        for _, snapshot in results:
            assert (snapshot.state, snapshot.version) == (winner.state, winner.version)


async def test_an_old_version_is_not_replaced(store: LimitStore) -> None:
    _, first = await store.swap(MODEL, None, STATE)
    _, second = await store.swap(MODEL, first.version, replace(STATE, epoch=8))
    for version in (None, first.version):
        swapped, snapshot = await store.swap(MODEL, version, replace(STATE, epoch=9))
        assert not swapped
        assert (snapshot.state, snapshot.version) == (second.state, second.version)


async def test_people_can_query_the_state(database_url: str) -> None:
    """The columns that the documentation names are generated from the state."""
    engine = make_async_engine(database_url, application="test", pool_size=1)
    database = Database(engine)
    store = PostgresStore(database)
    await store.swap(MODEL, None, STATE)
    await store.swap("unlimited", None, begin(1_700_000_000.0, cap=None))
    query = text(
        "SELECT model, phase, rate, extract(epoch FROM held_until)::float, opened_at IS NOT NULL, held_back,"
        " rate_limited, opened FROM visual_ai.model_limits ORDER BY model"
    )
    async with engine.connect() as connection:
        rows = (await connection.execute(query)).all()
    await database.close()
    assert [tuple(row) for row in rows] == [
        (MODEL, "learned", 1 / 3, 1_800_000_000.25, True, 1, 2, 3),
        ("unlimited", "ramp", 40.0, None, False, 0, 0, 0),
    ]


async def test_a_state_of_another_release_is_replaced(redis_server: RedisServer) -> None:
    async with Redis.from_url(redis_server.url) as redis:
        await redis.hset(f"{INDEX}:{MODEL}", mapping={"version": 7, "state": '{"phase": "ramp", "speed": 3}'})
    store = RedisStore(redis_server.url)
    snapshot = await store.read(MODEL)
    assert snapshot.state is None
    swapped, snapshot = await store.swap(MODEL, snapshot.version, STATE)
    assert swapped
    assert snapshot.state == STATE
    await store.close()
