"""An operator's limits stop model calls before they are made, in whatever process, and count each call once."""

import asyncio
import uuid
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from backend.core.limits import LimitReachedError
from backend.core.settings import Settings
from backend.core.workflow_error_handler import AgentFailure, classify
from backend.db.engine import Database, ThreadedDatabase, make_async_engine, make_engine
from backend.db.limits import book
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import run_batch
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from tests.kit.failures.raised import raises_failure
from tests.kit.fixtures.tasks import MakeRunner
from tests.kit.limits import add_use, counters, reserved, set_limit
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres

TEXT = "The harbour was quiet. Two ships lay at anchor. The third had left at dawn for the north."
USAGE = {"input_tokens": 300, "output_tokens": 100}
ALICE: dict[str, Any] = {"user": "Alice"}


def spec(**changes: Any) -> Any:
    return parse_agent({"type": "text"}, {"text": TEXT}, **changes)


@pytest.mark.parametrize(
    ("subject", "kind", "message"),
    [
        ("everybody", "tokens", r"500 tokens a day for everybody together\) is reached: 400 used or in progress"),
        ("each_user", "tokens", "for each user"),
        ("user:alice", "tokens", "for the user alice"),
        ("user:ALICE", "cost_usd", "US dollars a day for the user alice"),
        ("role:Analysts", "tokens", "for the role Analysts"),
        ("team:harbour", "tokens", "for the team harbour"),
    ],
)
async def test_a_call_over_a_limit_is_never_made(
    make_runner: MakeRunner, openai_server: OpenAIServer, engine: Engine, subject: str, kind: Any, message: str
) -> None:
    with engine.begin() as connection:
        book.set_roles(connection, "alice", ["Analysts"])
        book.set_team(connection, "dag", "harbour")
    openai_server.script(times=None, usage=USAGE)
    set_limit(engine, subject, kind, 500 if kind == "tokens" else 0.000001, "day")
    async with make_runner(**ALICE) as runner:
        if kind == "tokens":
            await run_single(runner, spec())
    if kind == "tokens":
        assert counters(engine)[("alice", "dag")][0] == 400
    asked = len(openai_server.requests)
    async with make_runner(task="next", **ALICE) as runner:
        with raises_failure(LimitReachedError, match=message) as caught:
            await run_single(runner, spec())
    assert classify(caught.value).category == "budget"
    assert classify(caught.value).final
    assert "It resets at 2" in str(caught.value)
    assert len(openai_server.requests) == asked
    with engine.connect() as connection:
        assert book.count_refusals(connection) == {kind: 1}


async def test_others_are_not_stopped(make_runner: MakeRunner, openai_server: OpenAIServer, engine: Engine) -> None:
    openai_server.script(times=None, usage=USAGE)
    for subject in ("user:bob", "role:Analysts", "team:harbour"):
        set_limit(engine, subject, "tokens", 0, "day")
    async with make_runner(**ALICE) as runner:
        assert (await run_single(runner, spec()))["usage"] == USAGE


async def test_usage_counts_once_whether_or_not_a_limit_is_set(
    make_runner: MakeRunner, openai_server: OpenAIServer, engine: Engine
) -> None:
    openai_server.script(times=None, usage=USAGE)
    async with make_runner(**ALICE) as runner:
        await run_single(runner, spec())
    set_limit(engine, "user:alice", "tokens", 10_000, "month")
    async with make_runner(task="two", **ALICE) as runner:
        await run_single(runner, spec())
    async with make_runner(task="three", **ALICE) as runner:
        await run_single(runner, spec())
    for period in ("day", "month"):
        assert {key: used[0] for key, used in counters(engine, period).items()} == {("alice", "dag"): 1200}
    assert reserved(engine) == []
    with engine.connect() as connection:
        total = connection.execute(text("SELECT sum(input_tokens + output_tokens) FROM visual_ai.workflow_executions"))
        assert total.scalar_one() == 1200


async def test_a_run_of_nobody_counts_for_everybody_only(
    make_runner: MakeRunner, openai_server: OpenAIServer, engine: Engine
) -> None:
    openai_server.script(times=None, usage=USAGE)
    set_limit(engine, "each_user", "tokens", 0, "day")
    async with make_runner() as runner:
        await run_single(runner, spec())
    assert counters(engine)[("", "dag")][0] == 400
    set_limit(engine, "everybody", "tokens", 401, "day")
    async with make_runner(task="two") as runner:
        with raises_failure(LimitReachedError, match="400 used"):
            await run_single(runner, spec())


async def test_processes_share_the_last_of_a_limit(
    pg: Postgres, task_settings: Settings, openai_server: OpenAIServer, engine: Engine
) -> None:
    """Eight tasks, each with connections of its own, ask at the same moment; there is room for one prompt."""
    openai_server.script(times=None, delay=0.5, usage=USAGE)
    set_limit(engine, "everybody", "tokens", 1_000, "day")
    add_use(engine.url.render_as_string(hide_password=False), "alice", 850)  # a prompt is about 100 tokens
    databases = [Database(make_async_engine(pg.worker_url, application="test", pool_size=2)) for _ in range(8)]

    async def one(database: Database, number: int) -> bool:
        task = TaskContext("dag", f"run {number}", "task", -1, 1, {}, user=f"user {number}")
        async with AgentRunner(task_settings, database, task) as runner:
            try:
                await run_single(runner, spec())
            except AgentFailure as failure:
                return not isinstance(failure.error, LimitReachedError)
            return True

    try:
        made = await asyncio.gather(*(one(database, number) for number, database in enumerate(databases)))
    finally:
        for database in databases:
            await database.close()
    assert made.count(True) == 1
    assert len(openai_server.requests) == 1


async def test_a_run_that_meets_a_limit_resumes_once_it_is_raised(
    make_runner: MakeRunner, openai_server: OpenAIServer, engine: Engine
) -> None:
    openai_server.script(times=None, usage=USAGE)
    set_limit(engine, "user:alice", "tokens", 410, "month")
    inputs, plan = [{"query": "first"}, {"query": "second"}], BatchPlan(max_concurrency=1)
    async with make_runner(**ALICE) as runner:
        with raises_failure(LimitReachedError):
            await run_batch(runner, spec(), inputs, plan)
    assert len(openai_server.requests) == 1
    set_limit(engine, "user:alice", "tokens", 5_000, "month")
    async with make_runner(try_number=2, **ALICE) as runner:
        assert (await run_batch(runner, spec(), inputs, plan))["batch"]["succeeded"] == 2
    assert len(openai_server.requests) == 2


async def test_a_new_figure_is_known_to_running_agents(
    make_runner: MakeRunner, openai_server: OpenAIServer, engine: Engine
) -> None:
    """The limit is lowered while the first item is being answered, in another process."""
    openai_server.script(times=None, usage=USAGE)
    set_limit(engine, "user:alice", "tokens", 50_000, "day")
    async with make_runner(**ALICE) as runner:
        await run_single(runner, spec())
        set_limit(engine, "user:alice", "tokens", 1, "day")
        outcome = await runner.run(spec(), {"text": TEXT}, call=2)
    assert outcome.error is not None
    assert isinstance(outcome.error.error, LimitReachedError)


async def test_an_unknown_price_is_not_guessed(
    make_runner: MakeRunner, openai_server: OpenAIServer, engine: Engine
) -> None:
    set_limit(engine, "everybody", "cost_usd", 5, "day")
    async with make_runner(**ALICE) as runner:
        with raises_failure(LimitReachedError, match=r"price of openai:house-model is not known"):
            await run_single(runner, spec(model="openai:house-model"))
    assert openai_server.requests == []


async def test_failed_calls_use_nothing(make_runner: MakeRunner, openai_server: OpenAIServer, engine: Engine) -> None:
    openai_server.script("server_error")
    set_limit(engine, "user:alice", "tokens", 5_000, "day")
    async with make_runner(**ALICE) as runner:
        with pytest.raises(Exception, match="500"):
            await run_single(runner, spec())
    assert reserved(engine) == []
    assert counters(engine) == {}


async def test_a_server_that_reports_no_usage_is_counted_by_estimate(
    make_runner: MakeRunner, openai_server: OpenAIServer, engine: Engine
) -> None:
    openai_server.script(times=None, usage_in="never")
    set_limit(engine, "user:alice", "tokens", 5_000, "day")
    async with make_runner(**ALICE) as runner:
        result = await run_single(runner, spec())
    assert result["usage"] == {"input_tokens": 0, "output_tokens": 0}
    assert counters(engine)[("alice", "dag")][0] > 50
    assert reserved(engine) == []


@pytest.mark.parametrize("kind", ["sync", "async", "nested"])
async def test_users_graphs_are_stopped_unchanged(
    make_runner: MakeRunner,
    openai_server: OpenAIServer,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    set_limit(engine, "everybody", "tokens", 1, "day")
    graph = {"nested": "tests.kit.graphs.foreign:nested"}.get(kind, f"tests.kit.graphs.calling:calling_{kind}")
    async with make_runner() as runner:
        with raises_failure(LimitReachedError):
            await run_single(runner, parse_agent(None, {"question": "Why is the harbour so quiet?"}, graph=graph))
    assert openai_server.requests == []


@pytest.mark.parametrize("limited", [False, True])
async def test_the_queries_of_a_call(
    pg: Postgres, task_settings: Settings, openai_server: OpenAIServer, engine: Engine, *, limited: bool
) -> None:
    """Without limits a call costs none, however many calls and past runs there are; with one, a constant number."""
    openai_server.script(times=None, usage=USAGE)
    if limited:
        set_limit(engine, "user:alice", "tokens", 10_000_000, "month")
    sync = make_engine(pg.worker_url, application="test", pool_size=4)
    statements: list[str] = []
    event.listen(sync, "before_cursor_execute", lambda *given: statements.append(given[2]))
    database = ThreadedDatabase(sync, threads=2)

    async def queries(items: int) -> int:
        statements.clear()
        task = TaskContext("dag", uuid.uuid4().hex, "task", -1, 1, {}, user="alice")
        async with AgentRunner(task_settings, database, task) as runner:
            inputs = [{"query": f"item {number}"} for number in range(items)]
            await run_batch(runner, spec(), inputs, BatchPlan(max_concurrency=1))
        return sum(
            "limit_reservations" in one or "operator_limits" in one
            for one in statements
            if "INTO visual_ai.limit_usage" not in one
        )

    try:
        few, many = await queries(2), await queries(12)
    finally:
        await database.close()
        sync.dispose()
    each = 3 if limited else 0  # what is used, the reservation, and what the call has used
    assert many - few == each * 10
