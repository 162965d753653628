"""Thresholds that are passed: of rate limits over all of a user's runs, and of a run's and a task's budget."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from backend.core.budget import BudgetExceededError, parse_budget
from backend.core.settings import Settings
from backend.db.engine import Database, make_async_engine
from backend.db.runs import errors, executions
from backend.db.runs.traces import Place
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import run_batch
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of
from tests.kit.failures.raised import raises_failure
from tests.kit.notifications import LENIENT, all_handled, record_error, rows, run_of, target, wants
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres
from tests.kit.servers.webhooks import Receiver

RATE: dict[str, Any] = {
    "events": ["rate_limit_threshold"],
    "thresholds": {"rate_limit_errors": 3, "rate_limit_within": 600},
}
BUDGET: dict[str, Any] = {"events": ["budget_threshold"]}


@pytest.fixture
async def http(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with application(database_url, FakeAirflow(), **PRODUCTION, **LENIENT) as app, client_of(app) as http:
        yield http


# Rate limits


async def test_rate_limits_of_all_runs_are_told_once(
    http: httpx.AsyncClient, ulla: Mapping[str, str], receiver: Receiver, worker: Engine, database_url: str
) -> None:
    await wants(http, ulla, target(receiver, **RATE))
    for user, category in (("uwe", "rate_limit"), ("ulla", "timeout"), (None, "rate_limit")):
        run = run_of(user)
        for _ in range(3):
            record_error(worker, run, category)
    first, second = run_of("ulla"), run_of("ulla")
    record_error(worker, first, "rate_limit")
    record_error(worker, second, "rate_limit")
    await all_handled(database_url)
    assert receiver.received == []
    record_error(worker, second, "rate_limit")
    record_error(worker, first, "rate_limit")
    await all_handled(database_url)
    for _ in range(5):
        record_error(worker, first, "rate_limit")
    await all_handled(database_url)
    (got,) = receiver.received
    assert got.json == got.json | {
        "event": "rate_limit_threshold",
        "dag_run_id": second.dag_run_id,
        "rate_limit": {"errors": 3, "threshold": 3, "within": 600},
    }


async def test_each_target_has_its_own_threshold(
    http: httpx.AsyncClient, ulla: Mapping[str, str], receiver: Receiver, worker: Engine, database_url: str
) -> None:
    one = {"rate_limit_errors": 1, "rate_limit_within": 600}
    await wants(http, ulla, target(receiver, **RATE), target(receiver, "first", **{**RATE, "thresholds": one}))
    run = run_of("ulla")
    record_error(worker, run, "rate_limit")
    await all_handled(database_url)
    assert [request.path for request in receiver.received] == ["/first"]
    record_error(worker, run, "rate_limit")
    record_error(worker, run, "rate_limit")
    await all_handled(database_url)
    assert [request.path for request in receiver.received] == ["/first", "/hook"]


async def test_an_error_that_is_committed_late_still_counts(
    http: httpx.AsyncClient, ulla: Mapping[str, str], receiver: Receiver, worker: Engine, database_url: str
) -> None:
    await wants(http, ulla, target(receiver, **RATE))
    slow, quick = run_of("ulla"), run_of("ulla")
    with worker.begin() as connection:
        place = Place(slow.dag_id, slow.dag_run_id, "work", -1, 1, agent="text")
        errors.add(
            connection,
            executions.ensure(connection, slow),
            place,
            category="rate_limit",
            exception_type="E",
            message="429",
            action="retry",
        )
        record_error(worker, quick, "rate_limit")
        record_error(worker, quick, "rate_limit")
        await all_handled(database_url)
        assert receiver.received == []
    await all_handled(database_url)
    assert [request.json["rate_limit"]["errors"] for request in receiver.received] == [3]


# Budgets

MakeRunner = Callable[..., AgentRunner]
USAGE = {"input_tokens": 300, "output_tokens": 100}


@pytest.fixture
async def make_runner(pg: Postgres, database_url: str, openai_server: OpenAIServer) -> AsyncIterator[MakeRunner]:
    settings = Settings(
        _env_file=None, database_url_override=pg.worker_url, openai_base_url=openai_server.base_url, openai_api_key="k"
    )
    database = Database(make_async_engine(pg.worker_url, application="test", pool_size=4))

    def make(
        budget: dict[str, Any] | None = None,
        *,
        run: dict[str, Any] | None = None,
        task: str = "work",
        try_number: int = 1,
        user: str = "ulla",
    ) -> AgentRunner:
        conf = {"query": "What happened?"}
        system = {"budget": run} if run else {}
        context = TaskContext("reports", "run", task, -1, try_number, conf, user=user, system=system)
        return AgentRunner(settings, database, context, budget=parse_budget(budget))

    yield make
    await database.close()


def spec() -> Any:
    return parse_agent({"type": "text"}, {"text": "The harbour was quiet. Two ships lay at anchor."})


async def work(runner: AgentRunner) -> None:
    async with runner:
        await run_single(runner, spec())


def told(receiver: Receiver) -> list[tuple[Any, ...]]:
    """Scope, task, limit, what is allowed and used, and the share, of each."""
    fields = ("scope", "task_id", "limit", "allowed", "used", "share")
    return [tuple(request.json["budget"][name] for name in fields) for request in receiver.received]


async def test_a_share_of_a_tasks_budget(
    http: httpx.AsyncClient,
    ulla: Mapping[str, str],
    receiver: Receiver,
    make_runner: MakeRunner,
    openai_server: OpenAIServer,
    database_url: str,
) -> None:
    await wants(http, ulla, target(receiver, **BUDGET))
    openai_server.script(usage=USAGE, times=None)
    await work(make_runner({"max_tokens": 501, "max_cost_usd": 10}))
    await all_handled(database_url)
    assert told(receiver) == []
    await work(make_runner({"max_tokens": 500}, task="other"))
    await all_handled(database_url)
    assert told(receiver) == [("task", "other", "max_tokens", 500, 400, 0.8)]
    got = receiver.received[0].json
    assert (got["event"], got["dag_id"], got["dag_run_id"]) == ("budget_threshold", "reports", "run")


@pytest.mark.parametrize(
    ("budget", "limit"), [({"max_cost_usd": 0.0003}, "max_cost_usd"), ({"max_steps": 3}, "max_steps")]
)
async def test_of_any_limit(
    http: httpx.AsyncClient,
    ulla: Mapping[str, str],
    receiver: Receiver,
    make_runner: MakeRunner,
    openai_server: OpenAIServer,
    database_url: str,
    budget: dict[str, Any],
    limit: str,
) -> None:
    await wants(http, ulla, target(receiver, **BUDGET))
    openai_server.script(usage=USAGE, times=None)
    await work(make_runner(budget))
    await all_handled(database_url)
    assert [(scope, name, allowed) for scope, _, name, allowed, *_ in told(receiver)] == [
        ("task", limit, next(iter(budget.values())))
    ]


async def test_a_runs_budget_over_its_tasks_and_tries_is_told_once(
    http: httpx.AsyncClient,
    ulla: Mapping[str, str],
    receiver: Receiver,
    make_runner: MakeRunner,
    openai_server: OpenAIServer,
    database_url: str,
) -> None:
    await wants(http, ulla, target(receiver, **BUDGET))
    openai_server.script(usage=USAGE, times=None)
    run = {"max_tokens": 1500}
    for number in range(3):
        await work(make_runner(run=run, task=f"task_{number}"))
        await all_handled(database_url)
        assert len(told(receiver)) == (1 if number == 2 else 0)
    assert told(receiver) == [("run", None, "max_tokens", 1500, 1200, 0.8)]
    await work(make_runner(run=run, task="last"))
    with raises_failure(BudgetExceededError):
        await work(make_runner(run=run, task="one too many"))
    await all_handled(database_url)
    assert len(told(receiver)) == 1


async def test_targets_have_shares_of_their_own(
    http: httpx.AsyncClient,
    ulla: Mapping[str, str],
    receiver: Receiver,
    make_runner: MakeRunner,
    openai_server: OpenAIServer,
    database_url: str,
) -> None:
    shares = [target(receiver, f"at{share}", **BUDGET, thresholds={"budget_share": share}) for share in (0.2, 0.5, 1.0)]
    await wants(http, ulla, *shares)
    openai_server.script(usage=USAGE, times=None)
    plan = BatchPlan(max_concurrency=1)
    async with make_runner({"max_tokens": 1600}) as runner:
        await run_batch(runner, spec(), [{"query": str(number)} for number in range(3)], plan)
    await all_handled(database_url)
    assert sorted((r.path, r.json["budget"]["share"], r.json["budget"]["used"]) for r in receiver.received) == [
        ("/at0.2", 0.2, 400),
        ("/at0.5", 0.5, 800),
    ]


async def test_a_refused_call_has_passed_every_share(
    http: httpx.AsyncClient,
    ulla: Mapping[str, str],
    receiver: Receiver,
    make_runner: MakeRunner,
    openai_server: OpenAIServer,
    database_url: str,
) -> None:
    await wants(http, ulla, target(receiver, **BUDGET, thresholds={"budget_share": 1.0}))
    with raises_failure(BudgetExceededError):
        await work(make_runner({"max_tokens": 20, "max_cost_usd": 5}))
    await all_handled(database_url)
    assert openai_server.requests == []
    assert told(receiver) == [("task", "work", "max_tokens", 20, 0, 1)]


async def test_what_an_earlier_try_used_counts_although_nobody_was_told(
    http: httpx.AsyncClient,
    ulla: Mapping[str, str],
    receiver: Receiver,
    make_runner: MakeRunner,
    openai_server: OpenAIServer,
    database_url: str,
) -> None:
    openai_server.script(usage=USAGE, times=None)
    await work(make_runner({"max_tokens": 450}))
    await wants(http, ulla, target(receiver, **BUDGET))
    await work(make_runner({"max_tokens": 450}, try_number=2))
    await all_handled(database_url)
    assert told(receiver) == [("task", "work", "max_tokens", 450, 400, 0.8)]


async def test_nobody_asked_and_nothing_is_recorded(
    http: httpx.AsyncClient,
    ulla: Mapping[str, str],
    receiver: Receiver,
    make_runner: MakeRunner,
    openai_server: OpenAIServer,
    database_url: str,
) -> None:
    await wants(http, ulla, target(receiver))
    openai_server.script(usage=USAGE, times=None)
    await work(make_runner({"max_tokens": 400}))
    await work(make_runner({"max_tokens": 400}, task="other", user="uwe"))
    assert rows(database_url) == rows(database_url, "notification_causes") == []
