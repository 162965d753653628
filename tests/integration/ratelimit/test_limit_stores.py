"""What every store of models' limits does: the same for PostgreSQL, Redis and the memory of one process."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from backend.core.ratelimit.adaptive_rate import Pace
from backend.core.ratelimit.circuit_breaker import Circuit
from backend.core.ratelimit.state import Change, Counts, LimitState, Reservation, Seen, first_time, turns
from backend.db.engine import Database, ThreadedDatabase, make_async_engine, make_engine
from backend.ratelimit.redis_store import RedisStore
from backend.ratelimit.stores import LimitStore, MemoryStore, PostgresStore
from tests.kit.servers.redis import RedisServer

MODEL = "openai:gpt-4.1@0a1b2c"
NOTHING = Counts()
ACTIVE = float(int(time.time()))


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


def paced(rate: float | None, *, burst: int = 1, held_until: float = 0.0) -> Pace:
    return Pace("open" if rate is None else "learned", rate, burst=burst, held_until=held_until)


async def begin(store: LimitStore, pace: Pace, *, turn: float = 0.0) -> tuple[LimitState, float]:
    """A model with a pace; its counter stands still for an hour, so that the test's own time makes no difference."""
    now = (await store.read(MODEL)).now
    made, seen = await store.swap(MODEL, None, Change(pace, Circuit(), turn, now + 3600), NOTHING)
    assert made
    return known(seen), now


def known(seen: Seen) -> LimitState:
    assert seen.state is not None
    return seen.state


def wanted(calls: int = 1, within: float = 10_000.0, *, paced: bool = True, **more: float) -> Reservation:
    return Reservation(calls, within, paced, **more)


async def test_nothing_is_known_at_first(store: LimitStore) -> None:
    assert (await store.read(MODEL)).state is None
    assert await store.read_all() == {}
    assert (await store.add(MODEL, Counts(held_back=1))).state is None
    taken, seen = await store.reserve(MODEL, wanted(), NOTHING)
    assert (taken, seen.state) == (False, None)


async def test_a_state_comes_back_as_it_was_put(store: LimitStore) -> None:
    pace = Pace(
        "learned",
        1 / 3,
        burst=4,
        epoch=7,
        streak=3,
        held_until=1_800_000_000.25,
        limited_at=1_700_000_000.5,
        active_at=ACTIVE,
        changed_at=1_700_000_002.5,
        changed_served=11,
        measured_at=1_700_000_003.5,
        measured_served=12,
    )
    circuit = Circuit(
        failures=5,
        failed_by=("a", "b"),
        failed_at=1_700_000_004.5,
        opened_at=1_700_000_005.5,
        open_until=1_700_000_006.5,
        open_seconds=20.0,
        probing=True,
    )
    change = Change(pace, circuit, 1234.5678, 1_700_000_007.5)
    made, first = await store.swap(MODEL, None, change, Counts(1, 2, 3))
    assert made
    again = await store.read(MODEL)
    expected = LimitState(pace, circuit, version=1, turn=1234.5678, turn_at=1_700_000_007.5, counts=Counts(1, 2, 3))
    assert (first.state, again.state) == (expected, expected)
    assert (await store.read_all())[MODEL].state == expected
    assert again.now > 1_700_000_000


async def test_only_one_change_of_a_version_is_made(store: LimitStore) -> None:
    state, now = await begin(store, paced(5.0))
    changes = [Change(replace(state.pace, epoch=number), Circuit(), 0.0, now) for number in (1, 2)]
    first, second = await asyncio.gather(
        *(store.swap(MODEL, state.version, change, Counts(rate_limited=1)) for change in changes)
    )
    assert sorted((first[0], second[0])) == [False, True]
    after = known(await store.read(MODEL))
    assert after == known(first[1]) == known(second[1])
    assert after.version == state.version + 1
    assert after.counts == Counts(rate_limited=1)
    made, seen = await store.swap(MODEL, None, changes[0], NOTHING)
    assert (made, seen.state) == (False, after)


async def test_turns_are_given_away_once(store: LimitStore) -> None:
    _, now = await begin(store, paced(5.0), turn=100.0)
    answers = await asyncio.gather(*(store.reserve(MODEL, wanted(2), NOTHING) for _ in range(10)))
    numbers = []
    for taken, seen in answers:
        assert taken
        numbers += [turn.number for turn in turns(known(seen), wanted(2), seen.now)]
    assert sorted(numbers) == pytest.approx([100.0 + call for call in range(20)])
    state = known(await store.read(MODEL))
    assert state.tail == pytest.approx(120.0)
    assert state.admitted == 20
    assert state.version == 1
    assert state.time_of(110.0) == pytest.approx(now + 3600 + 2.0)
    assert state.pace.active_at == pytest.approx(now, abs=5.0)


async def test_a_turn_that_comes_too_late_is_not_taken(store: LimitStore) -> None:
    before, now = await begin(store, paced(0.5))
    taken, seen = await store.reserve(MODEL, wanted(1, within=3500.0), Counts(held_back=2))
    assert not taken
    assert known(seen) == replace(before, counts=Counts(held_back=2))
    assert first_time(known(seen), wanted(), seen.now) == pytest.approx(now + 3600)
    assert (await store.reserve(MODEL, wanted(3, within=3601.0), NOTHING))[0]
    # Three are before the next one, two seconds each.
    assert not (await store.reserve(MODEL, wanted(1, within=3604.0), NOTHING))[0]
    assert (await store.reserve(MODEL, wanted(1, within=3607.0), NOTHING))[0]


async def test_nobody_goes_while_all_are_held(store: LimitStore) -> None:
    now = (await store.read(MODEL)).now
    await store.swap(MODEL, None, Change(paced(5.0, held_until=now + 60), Circuit(), 0.0, now), NOTHING)
    assert not (await store.reserve(MODEL, wanted(1, within=50.0), NOTHING))[0]
    assert (await store.reserve(MODEL, wanted(1, within=61.0), NOTHING))[0]


async def test_a_burst_runs_ahead_of_the_counter(store: LimitStore) -> None:
    now = (await store.read(MODEL)).now
    # One turn in 1,000 s, four at once.
    await store.swap(MODEL, None, Change(paced(0.001, burst=4), Circuit(), 0.0, now), NOTHING)
    assert [(await store.reserve(MODEL, wanted(1, within=0.0), NOTHING))[0] for _ in range(5)] == [True] * 4 + [False]


async def test_turns_that_nobody_wanted_are_gone(store: LimitStore) -> None:
    now = (await store.read(MODEL)).now
    await store.swap(MODEL, None, Change(paced(100.0), Circuit(), 0.0, now - 50), NOTHING)
    taken, seen = await store.reserve(MODEL, wanted(1, within=0.0), NOTHING)
    assert taken
    assert known(seen).tail == pytest.approx(5001.0, abs=200)


async def test_a_pace_that_was_not_seen_is_not_taken_from(store: LimitStore) -> None:
    state, now = await begin(store, paced(5.0))
    unpaced = wanted(paced=False, interval=1.0)
    assert not (await store.reserve(MODEL, unpaced, NOTHING))[0]
    await store.swap(MODEL, state.version, Change(paced(None), Circuit(), 0.0, now), NOTHING)
    assert not (await store.reserve(MODEL, wanted(), NOTHING))[0]
    assert (await store.reserve(MODEL, unpaced, NOTHING))[0]


async def test_configured_requests_are_spread(store: LimitStore) -> None:
    await begin(store, paced(None))
    slow = wanted(paced=False, interval=20.0)
    first, second = [await store.reserve(MODEL, slow, NOTHING) for _ in range(2)]
    times = [turns(known(seen), slow, seen.now)[0].not_before for _, seen in (first, second)]
    assert times[0] <= first[1].now
    assert times[1] - times[0] == pytest.approx(20.0, abs=0.5)
    assert not (await store.reserve(MODEL, replace(slow, within=30.0), NOTHING))[0]


async def test_one_second_of_a_configured_limit_goes_at_once(store: LimitStore) -> None:
    await begin(store, paced(None))
    quick = wanted(6, paced=False, interval=0.25)
    _, seen = await store.reserve(MODEL, quick, NOTHING)
    waits = [turn.not_before - seen.now for turn in turns(known(seen), quick, seen.now)]
    assert waits == pytest.approx([0.0, 0.0, 0.0, 0.0, 0.25, 0.5], abs=0.2)


async def test_configured_tokens_are_owed(store: LimitStore) -> None:
    await begin(store, paced(None))
    large = wanted(paced=False, token_seconds=40.0, within=0.0)
    assert (await store.reserve(MODEL, large, NOTHING))[0]
    taken, seen = await store.reserve(MODEL, large, NOTHING)
    assert not taken
    assert first_time(known(seen), large, seen.now) - seen.now == pytest.approx(39.0, abs=1.0)


async def test_what_was_used_otherwise_than_expected_is_settled_by_the_next(store: LimitStore) -> None:
    await begin(store, paced(None))
    call = wanted(paced=False, token_seconds=40.0)
    await store.reserve(MODEL, call, NOTHING)
    for debt, expected in ((25.0, 64.0), (-60.0, 44.0)):
        taken, seen = await store.reserve(MODEL, replace(call, token_debt=debt), NOTHING)
        assert taken
        assert turns(known(seen), call, seen.now)[0].not_before - seen.now == pytest.approx(expected, abs=1.0)


async def test_counts_add_up(store: LimitStore) -> None:
    await begin(store, paced(None))
    await asyncio.gather(*(store.add(MODEL, Counts(1, 2, 3)) for _ in range(5)))
    assert known(await store.add(MODEL, NOTHING)).counts == Counts(5, 10, 15)
