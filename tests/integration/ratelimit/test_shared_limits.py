"""Agents in several processes, a real server that limits them, and a real store for the shared state."""

import pytest

from tests.kit.gated_callers import call_in_processes, waste
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.redis import RedisServer

CLOSED = "postgresql+psycopg://nobody:secret@127.0.0.1:1/none"


@pytest.mark.parametrize("shared_in", ["postgres", "redis"])
def test_two_hundred_agents_waste_little(database_url: str, redis_server: RedisServer, shared_in: str) -> None:
    with OpenAIServer.subprocess(rate=20, latency=0.2) as server:
        called = call_in_processes(
            4,
            200,
            base_url=server.base_url,
            database_url=database_url if shared_in == "postgres" else CLOSED,
            redis_url=redis_server.url if shared_in == "redis" else None,
        )
        statuses = server.stats().statuses
    assert sum(one.failed for one in called) == 0
    assert statuses[200] == 200
    assert statuses.get(429, 0) == sum(one.refused for one in called)
    assert waste(called) <= 0.15, called


@pytest.mark.parametrize("shared_in", ["postgres", "redis"])
def test_agents_continue_without_a_store(redis_server: RedisServer, shared_in: str) -> None:
    if shared_in == "redis":
        redis_server.kill()
    with OpenAIServer.subprocess(rate=20, latency=0.2) as server:
        called = call_in_processes(
            2,
            60,
            base_url=server.base_url,
            database_url=CLOSED,
            redis_url=redis_server.url if shared_in == "redis" else None,
        )
    assert sum(one.answered for one in called) == 60
    # Each process learns the limit by itself, so more calls are wasted.
    assert waste(called) < 0.5, called
