"""A server that doesn't stream costs a run nothing: no paid call, no error, no lost answer, but a notice."""

from typing import Any

import pytest
from sqlalchemy import text

from backend.runtime.runner import AgentRunner
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent
from tests.kit.fixtures.tasks import MakeRunner
from tests.kit.openai.refusals import STREAMING
from tests.kit.openai.server import OpenAIServer

TEXT = "The harbour was quiet. Two ships lay at anchor."
WHOLE = {
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Two ships."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}  # fmt: skip


async def run(runner: AgentRunner, **config: Any) -> dict[str, Any]:
    async with runner:
        return await run_single(runner, parse_agent({"type": "text", **config}, {"text": TEXT}))


async def rows(runner: AgentRunner, query: str) -> list[tuple[Any, ...]]:
    async with runner.database.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


async def tokens(runner: AgentRunner) -> str:
    query = "SELECT payload->>'text' FROM visual_ai.workflow_events WHERE event_type = 'token' ORDER BY seq"
    return "".join(row[0] for row in await rows(runner, query))


@pytest.mark.parametrize("ignored", [False, True])
async def test_the_answer_arrives_whole(make_runner: MakeRunner, openai_server: OpenAIServer, ignored: bool) -> None:
    if ignored:
        openai_server.script(body=WHOLE, times=None)
    else:
        status, body = STREAMING["openai unverified"]
        openai_server.script(sends='"stream":true', status=status, body=body, times=None)
        openai_server.script(content="Two ships.", usage={"input_tokens": 7, "output_tokens": 3}, times=None)
    runner = make_runner()
    result = await run(runner)
    assert result["output"]["answer"] == "Two ships."
    assert (result["usage"]["input_tokens"], result["usage"]["output_tokens"]) == (7, 3)
    assert "doesn't stream its answers here, so they arrive whole" in result["notice"]
    assert await tokens(runner) == "Two ships."
    assert await rows(runner, "SELECT * FROM visual_ai.workflow_errors") == []
    assert len(openai_server.requests) == (1 if ignored else 2)


async def test_an_agent_can_do_without_streams(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script(content="Two ships.", times=None)
    runner = make_runner()
    result = await run(runner, streaming=False)
    assert (result["output"]["answer"], result["notice"]) == ("Two ships.", None)
    assert await tokens(runner) == "Two ships."
    assert [request.stream for request in openai_server.requests] == [False]


async def test_a_users_graph_does_without_streams(
    make_runner: MakeRunner, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    status, body = STREAMING["openai o1"]
    openai_server.script(sends='"stream":true', status=status, body=body, times=None)
    runner = make_runner()
    async with runner:
        graph = "tests.kit.graphs.foreign:nested"
        result = await run_single(runner, parse_agent(None, {"question": "What about Bristol?"}, graph=graph))
    assert result["output"]["answer"] == "You said: What about Bristol?"
    assert await rows(runner, "SELECT * FROM visual_ai.workflow_errors") == []
    assert [request.stream for request in openai_server.requests] == [True, False]
    assert result["usage"]["output_tokens"] > 0
