"""What real failures lead to: category, action, the requests that the server gets, the waits between them, the rows."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, text

from backend.core.settings import Settings
from backend.db.engine import Database, make_async_engine
from backend.models.resolve import ModelCredentials
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import run_batch
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from tests.kit.certificates import Certificate, self_signed
from tests.kit.clock import Clock
from tests.kit.failures.case import Case
from tests.kit.failures.table import CASES
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres

TEXT = {"text": "The harbour was quiet. Two ships lay at anchor."}
MODELS = {"openai": "openai:gpt-4.1-mini", "anthropic": "anthropic:claude-sonnet-5", "ollama": "ollama:llama3"}

Rows = list[tuple[Any, ...]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return self_signed("127.0.0.1")


@pytest.fixture
async def tls_address(certificate: Certificate) -> AsyncIterator[str]:
    """A server with a self-signed certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.file, certificate.key_file)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    yield f"127.0.0.1:{port}"
    server.close()


@asynccontextmanager
async def running(
    pg: Postgres, case: Case, server: OpenAIServer, tls_address: str, clock: Clock
) -> AsyncIterator[AgentRunner]:
    usual = server.base_url if case.speaks == "openai" else server.root_url
    address = (case.address or usual).format(server=server.url.removeprefix("http://"), tls=tls_address)
    settings = Settings(
        _env_file=None, database_url_override=pg.worker_url, model_timeout=case.timeout, rate_limiter=False
    )
    database = Database(make_async_engine(pg.worker_url, application="test", pool_size=2))
    credentials = ModelCredentials(case.speaks, SecretStr(case.key), address)
    task = TaskContext("dag", "run", "task", -1, 1, {})
    try:
        async with AgentRunner(settings, database, task, credentials=credentials, timing=clock.timing) as runner:
            yield runner
    finally:
        await database.close()


def read(engine: Engine, query: str) -> Rows:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_there_are_at_least_sixty_cases() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_failure_leads_to_the_expected_actions(
    pg: Postgres, engine: Engine, openai_server: OpenAIServer, tls_address: str, clock: Clock, case: Case
) -> None:
    if case.behaviour:
        openai_server.script(**{**case.behaviour, "times": case.times})
    spec = parse_agent({"type": "text"}, TEXT, model=MODELS[case.speaks])
    answered = True
    async with running(pg, case, openai_server, tls_address, clock) as runner:
        try:
            if case.whole:
                await run_batch(runner, replace(spec, input_data=None), [TEXT], BatchPlan())
            else:
                await run_single(runner, spec)
        except Exception:
            answered = False
    assert answered == case.answered

    errors = read(
        engine,
        "SELECT category, action, attempt, recovered, retry_in FROM visual_ai.workflow_errors ORDER BY occurred_at",
    )
    assert [row[0] for row in errors] == [case.category] * len(case.actions)
    assert [row[1] for row in errors] == list(case.actions)
    assert [row[2] for row in errors] == list(range(1, len(case.actions) + 1))
    assert {row[3] for row in errors} == {answered}
    assert clock.waits == pytest.approx(case.waits)
    if case.address is None and not case.key.count("\n"):
        requests = openai_server.requests
        assert len(requests) == len(case.actions) + answered
        models = [request.model for request in requests]
        assert len(set(models)) == 1 + ("fallback" in case.actions)
        if case.category == "context_length":
            assert len(set(models)) == len(models)
    reported = read(
        engine,
        "SELECT payload ->> 'action', CAST(payload ->> 'retry_in' AS float) FROM visual_ai.workflow_events "
        "WHERE event_type = 'error' ORDER BY seq",
    )
    assert reported == [(row[1], row[4]) for row in errors]


async def test_the_providers_words_are_in_the_record_and_on_the_stream(
    pg: Postgres, engine: Engine, openai_server: OpenAIServer, tls_address: str, clock: Clock
) -> None:
    body = {
        "detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs are not permitted"}],
        "seen": "Bearer abcdefghij",
    }
    openai_server.script(status=422, body=body, times=None)
    async with running(pg, Case("words", "bad_request"), openai_server, tls_address, clock) as runner:
        with pytest.raises(Exception, match="422"):
            await run_single(runner, parse_agent({"type": "text"}, TEXT, model=MODELS["openai"]))
    rows = read(engine, "SELECT message, context FROM visual_ai.workflow_errors")
    message, context = rows[0]
    assert message == "Error code: 422 - body.top_k: Extra inputs are not permitted"
    assert context["provider_message"] == "body.top_k: Extra inputs are not permitted"
    assert context["request_id"].startswith("req_")
    assert "top_k" in context["body"]
    assert "abcdefghij" not in str(rows)
    reported = read(engine, "SELECT payload ->> 'message' FROM visual_ai.workflow_events WHERE event_type = 'error'")
    assert reported == [(message,)]
