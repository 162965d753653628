"""Agents of several processes, a real server that limits them, and the state they share in a real database."""

import pytest

from tests.kit.gated_callers import call_in_processes, waste
from tests.kit.openai_server import OpenAIServer
from tests.kit.redis_server import RedisServer


@pytest.mark.parametrize("shared_in", ["postgres", "redis"])
def test_two_hundred_agents_waste_little(database_url: str, shared_in: str) -> None:
    with OpenAIServer.subprocess(rate=20, latency=0.2) as server, RedisServer() as redis:
        called = call_in_processes(
            4,
            200,
            base_url=server.base_url,
            database_url=database_url,
            redis_url=redis.url if shared_in == "redis" else None,
        )
        statuses = server.stats().statuses
    assert sum(one.failed for one in called) == 0
    assert statuses[200] == 200
    assert statuses.get(429, 0) == sum(one.refused for one in called)
    assert waste(called) <= 0.15, called
