"""Fixtures for any test: name this module in `pytest_plugins`, or import from it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from langfuse._client.resource_manager import LangfuseResourceManager

from backend.stack.postgres import Cluster
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.langfuse import LangfuseServer
from tests.kit.servers.postgres import Postgres, erase, migrated_database, running_cluster
from tests.kit.servers.redis import RedisServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A running cluster. Tests may add roles and databases to it."""
    with running_cluster("a superuser's pass/word") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def pg(postgres: Cluster) -> Postgres:
    """A migrated database; a test that also takes `database_url` finds it without rows."""
    return migrated_database(postgres)


@pytest.fixture
def database_url(pg: Postgres) -> str:
    """The backend role's URL of a database whose `visual_ai` tables are empty."""
    erase(pg)
    return pg.backend_url


@pytest.fixture(scope="session")
def running_openai_server() -> Iterator[OpenAIServer]:
    """One for the whole session; tests take `openai_server`, which is reset for each."""
    # langchain-openai never closes its async clients: a connection pooled in one test would be reported as
    # leaked in another, long after its event loop is gone.
    with OpenAIServer(keep_alive=False) as server:
        yield server


@pytest.fixture
def openai_server(running_openai_server: OpenAIServer) -> Iterator[OpenAIServer]:
    """A fake OpenAI server with nothing scripted and an empty log."""
    running_openai_server.reset()
    yield running_openai_server
    running_openai_server.reset()  # what the test left in flight ends with it


@pytest.fixture(scope="session")
def running_redis_server() -> Iterator[RedisServer]:
    """One for the whole session; tests take `redis_server`."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(running_redis_server: RedisServer) -> Iterator[RedisServer]:
    """A real Redis server with nothing in it."""
    running_redis_server.empty()
    yield running_redis_server
    running_redis_server.ensure()


@pytest.fixture(params=["postgres", "redis"])
def redis_url(request: pytest.FixtureRequest) -> str | None:
    """What wakes the event feeds: a test that takes it runs with either. None: Postgres."""
    if request.param == "postgres":
        return None
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


@pytest.fixture
def langfuse() -> Iterator[LangfuseServer]:
    """A stand-in for Langfuse, with keys of its own. The SDK's clients of the test are gone afterwards: it would keep
    one for each key as long as the process lasts."""
    with LangfuseServer(public_key=f"pk-lf-{uuid.uuid4()}") as server:
        yield server
        LangfuseResourceManager.reset()
