"""How much of other hosts one user may have fetched."""

import asyncio

import pytest

from backend.core.problems import TooManyRequests
from backend.services.fetch_quota import AT_ONCE, OWN_AT_ONCE, OWN_WAITING, REQUEST_BYTES, FetchQuota

LIMIT = 10 * REQUEST_BYTES


class Time:
    now = 100.0


@pytest.fixture
def moment() -> Time:
    return Time()


@pytest.fixture
def quota(moment: Time) -> FetchQuota:
    return FetchQuota(LIMIT, lambda: moment.now)


async def test_bytes_count_for_a_minute(quota: FetchQuota, moment: Time) -> None:
    async with quota.fetching("ulla") as received:
        received(LIMIT)
    with pytest.raises(TooManyRequests) as caught:
        async with quota.fetching("ulla"):
            pass
    assert caught.value.retry_after == pytest.approx(60)
    async with quota.fetching("otto"):
        pass
    moment.now += 61
    async with quota.fetching("ulla"):
        pass


async def test_fetches_that_bring_nothing_count(quota: FetchQuota) -> None:
    for _ in range(10):
        async with quota.fetching("ulla"):
            pass
    with pytest.raises(TooManyRequests, match="655360 bytes"):
        async with quota.fetching("ulla"):
            pass


async def test_one_user_keeps_nobody_waiting() -> None:
    quota, running, end = FetchQuota(0), [], asyncio.Event()

    async def fetch(user: str) -> None:
        async with quota.fetching(user):
            running.append(user)
            await end.wait()

    mine = [asyncio.create_task(fetch("ulla")) for _ in range(OWN_AT_ONCE + OWN_WAITING)]
    await asyncio.sleep(0.01)
    assert running == ["ulla"] * OWN_AT_ONCE
    with pytest.raises(TooManyRequests, match="Too many"):
        await fetch("ulla")
    others = [asyncio.create_task(fetch("otto")) for _ in range(AT_ONCE)]
    await asyncio.sleep(0.01)
    assert running.count("otto") == OWN_AT_ONCE
    end.set()
    await asyncio.gather(*mine, *others)
    assert running.count("ulla") == OWN_AT_ONCE + OWN_WAITING
