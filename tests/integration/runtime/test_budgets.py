"""Budgets stop agents before the call that would go over them, over all tries of a task and for a whole run."""

from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from sqlalchemy import text

from backend.core.budget import Budget, BudgetExceededError, parse_budget
from backend.core.errors.input_error import InputError
from backend.core.workflow_error_handler import classify
from backend.models.token_estimate import PICTURE_TOKENS, estimate_messages, estimate_text
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import BatchFailedError, run_batch
from backend.runtime.budget.guard import Purse
from backend.runtime.budget.ledger import Ledger, Spent
from backend.runtime.runner import AgentRunner
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent, parse_team
from backend.runtime.team.run import run_team
from tests.kit.failures.raised import raises_failure
from tests.kit.fixtures.tasks import MakeRunner
from tests.kit.openai.server import OpenAIServer

TEXT = "The harbour was quiet. Two ships lay at anchor. The third had left at dawn for the north."
USAGE = {"input_tokens": 300, "output_tokens": 100}


@pytest.fixture
def make_runner(make_runner: MakeRunner) -> MakeRunner:
    """Makes runners with a budget of the task; `run` is a budget of the whole run."""

    def make(budget: dict[str, Any] | None, *, run: dict[str, Any] | None = None, **options: Any) -> AgentRunner:
        return make_runner(system={"budget": run} if run else {}, budget=parse_budget(budget), **options)

    return make


def spec(**changes: Any) -> Any:
    return parse_agent({"type": "text"}, {"text": TEXT}, **changes)


async def errors(runner: AgentRunner) -> list[tuple[Any, ...]]:
    query = text("SELECT category, action FROM visual_ai.workflow_errors ORDER BY occurred_at")
    async with runner.database.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(query)]


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"max_tokens": 50}, "max_tokens 50: 0 are used"),
        ({"max_cost_usd": 0.000001}, "max_cost_usd 0.000001: 0.000000 are spent"),
        ({"max_steps": 1}, "max_steps 1, and all of them were made"),
        ({"max_tokens": 0}, "max_tokens 0"),
    ],
)
async def test_a_call_over_the_budget_is_never_made(
    make_runner: MakeRunner, openai_server: OpenAIServer, budget: dict[str, Any], message: str
) -> None:
    async with make_runner(budget) as runner:
        with raises_failure(BudgetExceededError, match=message) as caught:
            await run_single(runner, spec())
    assert openai_server.requests == []
    assert classify(caught.value).final
    assert await errors(runner) == [("budget", "fail")]


async def test_calls_within_the_budget_are_not_stopped(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script(usage=USAGE)
    async with make_runner({"max_tokens": 5_000, "max_cost_usd": "0.5", "max_steps": 3}) as runner:
        assert (await run_single(runner, spec()))["usage"] == USAGE


async def test_an_unknown_price_is_not_guessed(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    async with make_runner({"max_cost_usd": 5}) as runner:
        with raises_failure(BudgetExceededError, match=r"price of openai:house-model is not known"):
            await run_single(runner, spec(model="openai:house-model"))
    assert openai_server.requests == []


async def test_an_earlier_tries_unknown_price_is_not_guessed(
    make_runner: MakeRunner, openai_server: OpenAIServer
) -> None:
    """The first try used a model without a known price; the second one's model has one, and yet nothing is asked."""
    openai_server.script(usage=USAGE)
    openai_server.script("server_error", contains="second")
    inputs, plan = [{"query": "first"}, {"query": "second"}], BatchPlan(max_concurrency=1)
    async with make_runner(None) as runner:
        with raises_failure(BatchFailedError):
            await run_batch(runner, spec(model="openai:house-model"), inputs, plan)
    asked = len(openai_server.requests)
    async with make_runner({"max_cost_usd": 5}, try_number=2) as runner:
        with raises_failure(BudgetExceededError, match="what was used before has no known price; use max_tokens"):
            await run_batch(runner, spec(), inputs, plan)
    assert len(openai_server.requests) == asked


async def test_earlier_tries_count(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script(usage={"input_tokens": 900, "output_tokens": 80})
    inputs = [{"query": "first"}, {"query": "second"}]
    openai_server.script("server_error", contains="second")
    plan = BatchPlan(max_concurrency=1)
    async with make_runner({"max_tokens": 1_000}) as runner:
        with raises_failure(BudgetExceededError):
            await run_batch(runner, spec(), inputs, plan)
    assert len(openai_server.requests) == 1
    async with make_runner({"max_tokens": 1_000}, try_number=2) as runner:
        with raises_failure(BudgetExceededError, match="980 are used"):
            await run_batch(runner, spec(), inputs, plan)
    assert len(openai_server.requests) == 1
    openai_server.reset()
    async with make_runner({"max_tokens": 9_000}, try_number=3) as runner:  # somebody raised it
        assert (await run_batch(runner, spec(), inputs, plan))["batch"]["succeeded"] == 2


async def test_steps_of_earlier_tries_count(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script("server_error")
    async with make_runner({"max_steps": 3}) as runner:
        with pytest.raises(Exception, match="500"):
            await run_single(runner, spec())
    async with make_runner({"max_steps": 3}, try_number=2) as runner:  # prepare, analyse; analyse
        with raises_failure(BudgetExceededError, match="max_steps 3"):
            await run_single(runner, spec())
    assert len(openai_server.requests) == 2


async def test_concurrent_agents_share_the_budget(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script(times=None, delay=0.3, usage={"input_tokens": 100, "output_tokens": 10})
    agents = [{"name": f"a{n}", "type": "text", "input_data": {"text": TEXT}, "required": False} for n in range(6)]
    async with make_runner({"max_tokens": 330}) as runner:  # a prompt is about 100 tokens
        result = await run_team(runner, parse_team(agents, "parallel"), "parallel", synthesis=None)
    states = [agent["state"] for agent in result["agents"].values()]
    assert 1 <= states.count("success") <= 3
    assert states.count("success") == len(openai_server.requests)
    assert "failed" in states


async def test_a_run_has_a_budget_for_all_its_tasks(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script(times=None, usage=USAGE)
    run = {"max_tokens": 450}
    async with make_runner(None, run=run, task="one") as runner:
        await run_single(runner, spec())
    async with make_runner(None, run=run, task="two") as runner:
        with raises_failure(BudgetExceededError, match="the run's budget has max_tokens 450: 400 are used"):
            await run_single(runner, spec())
    assert len(openai_server.requests) == 1


async def test_an_invalid_budget_of_the_run_is_reported(make_runner: MakeRunner) -> None:
    async with make_runner(None, run={"max_tokens": -1}) as runner:
        with pytest.raises(InputError, match=r"_visual_ai.budget.max_tokens: has to be a whole number"):
            await run_single(runner, spec())


@pytest.mark.parametrize("kind", ["sync", "async", "nested"])
async def test_users_graphs_are_stopped_unchanged(
    make_runner: MakeRunner, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    graph = {"nested": "tests.kit.graphs.foreign:nested"}.get(kind, f"tests.kit.graphs.calling:calling_{kind}")
    async with make_runner({"max_tokens": 3}) as runner:
        with raises_failure(BudgetExceededError):
            await run_single(runner, parse_agent(None, {"question": "Why is the harbour so quiet?"}, graph=graph))
    assert openai_server.requests == []


@pytest.mark.parametrize(
    ("argument", "field"),
    [
        ({"max_token": 1}, "budget.max_token"),
        ({"max_tokens": -1}, "budget.max_tokens"),
        ({"max_tokens": 1.5}, "budget.max_tokens"),
        ({"max_steps": True}, "budget.max_steps"),
        ({"max_cost_usd": "much"}, "budget.max_cost_usd"),
        ({"max_cost_usd": float("nan")}, "budget.max_cost_usd"),
        ({"max_cost_usd": -0.1}, "budget.max_cost_usd"),
        (5, "budget"),
    ],
)
def test_wrong_budgets_are_named(argument: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_budget(argument)
    assert caught.value.field == field


def test_a_budget_survives_json() -> None:
    budget = parse_budget({"max_tokens": "10", "max_cost_usd": 0.1})
    assert budget == Budget(10, Decimal("0.1"))
    assert budget is not None
    assert parse_budget(budget.to_json()) == budget
    assert parse_budget(None) is None
    assert parse_budget({}) is None


def test_a_failed_call_releases_its_reservation() -> None:
    purse = Purse([Ledger(Budget(max_tokens=100), "task", Spent(tokens=40))])
    first = purse.reserve("openai:gpt-4.1", 60)
    with pytest.raises(BudgetExceededError):
        purse.reserve("openai:gpt-4.1", 1)
    purse.settle(first, 0, Decimal(0))
    purse.reserve("openai:gpt-4.1", 60)


def test_prompts_are_estimated() -> None:
    assert estimate_text("a" * 40) == 10
    assert estimate_text("港" * 4) == 3
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 90_000}}
    messages = [HumanMessage([{"type": "text", "text": "a" * 40}, picture]), AIMessage("abcd")]
    assert estimate_messages(messages) == 10 + PICTURE_TOKENS + 1 + 8


def test_a_spent_budget_is_an_error_of_its_own_kind() -> None:
    assert classify(BudgetExceededError("spent")).category == "budget"
