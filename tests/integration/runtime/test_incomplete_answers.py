"""Half an answer is no success of any built-in agent: it is recorded, asked for again, and then fails the agent."""

import base64
from typing import Any

import pytest
from sqlalchemy import text

from backend.core.errors.agent_errors import IncompleteAnswerError
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import run_batch
from backend.runtime.runner import AgentRunner
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent, parse_team
from backend.runtime.team.run import run_team
from tests.kit.failures.raised import raises_failure
from tests.kit.fixtures.tasks import MakeRunner
from tests.kit.openai.server import OpenAIServer
from tests.kit.pictures import encode, invoice

TEXT = "The harbour was quiet. Two ships lay at anchor. The third had left at dawn for the north."
SCHEMA = {"type": "object", "properties": {"ships": {"type": "integer"}}}
PICTURE = f"data:image/png;base64,{base64.b64encode(encode(invoice())).decode()}"
CUT = "This answer ends in the"
ERRORS = "SELECT category, action, attempt, recovered FROM visual_ai.workflow_errors ORDER BY occurred_at"


async def rows(runner: AgentRunner, query: str) -> list[tuple[Any, ...]]:
    async with runner.database.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


@pytest.mark.parametrize(
    ("config", "argument"),
    [
        ({"type": "text"}, {"text": TEXT}),
        ({"type": "vision"}, {"image_url": PICTURE}),
        ({"type": "synthesis"}, {"results": {"reader": {"answer": TEXT}}}),
        ({"type": "extraction", "output_schema": SCHEMA}, {"text": TEXT}),
        ({"type": "review"}, {"text": TEXT}),
        ({"type": "supervisor"}, {"agents": {"reader": "reads"}}),
    ],
    ids=lambda value: value.get("type"),
)
async def test_every_built_in_agent_fails_on_half_an_answer(
    make_runner: MakeRunner, openai_server: OpenAIServer, config: dict[str, Any], argument: dict[str, Any]
) -> None:
    openai_server.script("length", times=None)
    runner = make_runner()
    async with runner:
        with raises_failure(IncompleteAnswerError, match="cut off by the token limit"):
            await run_single(runner, parse_agent(config, argument, model="gpt-4.1-mini"))
    assert [request.model for request in openai_server.requests] == ["gpt-4.1-mini"] * 2 + ["gpt-4.1-nano"]
    assert await rows(runner, ERRORS) == [
        ("invalid_output", "repair", 1, False),
        ("invalid_output", "fallback", 2, False),
        ("invalid_output", "fail", 3, False),
    ]
    known = await rows(runner, "SELECT context FROM visual_ai.workflow_errors")
    assert [(row[0]["finish_reason"], row[0]["answer"]) for row in known] == [("length", CUT)] * 3


async def test_a_second_attempt_recovers(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script("length", usage={"input_tokens": 100, "output_tokens": 10})
    openai_server.script(content="All of it.", usage={"input_tokens": 100, "output_tokens": 20})
    runner = make_runner()
    async with runner:
        result = await run_single(runner, parse_agent({"type": "text", "max_tokens": 10}, {"text": TEXT}))
    assert result["output"]["answer"] == "All of it."
    assert result["usage"] == {"input_tokens": 200, "output_tokens": 30}  # both are paid for
    assert [request.params["max_completion_tokens"] for request in openai_server.requests] == [10, 1_000]
    assert await rows(runner, ERRORS) == [("invalid_output", "repair", 1, True)]


async def test_what_is_accepted_is_said(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script("length")
    runner = make_runner()
    async with runner:
        spec = parse_agent({"type": "text", "on_incomplete": "accept"}, {"text": TEXT})
        result = await run_single(runner, spec)
    assert result["output"]["answer"] == CUT
    assert "cut off by the token limit (length)" in result["notice"]
    assert result["output"]["notice"] == result["notice"]
    assert await rows(runner, ERRORS) == []
    assert len(openai_server.requests) == 1


async def test_an_agent_of_a_team_fails_or_accepts(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script("length", times=None)
    entries = [
        {"name": "a", "type": "text", "input_data": {"text": TEXT}, "on_incomplete": "accept"},
        {"name": "b", "type": "text", "input_data": {"text": TEXT}, "required": False},
    ]
    async with make_runner() as runner:
        found = await run_team(runner, parse_team(entries, "parallel"), "parallel", synthesis=None)
    assert [found["agents"][name]["state"] for name in ("a", "b")] == ["success", "failed"]


async def test_an_item_of_a_batch_fails(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script("length", times=None, contains="Two ships")
    async with make_runner() as runner:
        spec = parse_agent({"type": "text"}, {"query": "What?"})
        done = await run_batch(
            runner, spec, [{"text": TEXT}, {"text": "Three ships."}], BatchPlan(on_item_error="continue")
        )
    assert (done["batch"]["succeeded"], done["batch"]["failed"]) == (1, 1)
