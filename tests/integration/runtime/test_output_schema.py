"""Data in the form of a schema: made by a hosted model, checked, asked for once more, and refused."""

import base64
from typing import Any

import pytest
from sqlalchemy import text

from backend.core.errors.agent_errors import InvalidOutputError
from backend.core.errors.input_error import InputError
from backend.core.workflow_error_handler import classify
from backend.runtime.runner import AgentRunner
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent, parse_team
from backend.runtime.team.run import run_team
from tests.kit.failures.raised import raises_failure
from tests.kit.fixtures.tasks import MakeRunner
from tests.kit.openai.server import OpenAIServer
from tests.kit.pictures import encode, invoice

TEXT = "The harbour was quiet. Two ships lay at anchor. The third had left at dawn for the north."
SCHEMA = {
    "title": "Harbour",
    "type": "object",
    "properties": {"ships": {"type": "integer", "minimum": 0}, "left_at": {"type": ["string", "null"]}},
    "required": ["ships"],
    "additionalProperties": False,
}
PICTURE = f"data:image/png;base64,{base64.b64encode(encode(invoice())).decode()}"


async def run(
    runner: AgentRunner, kind: str, argument: dict[str, Any], schema: Any = SCHEMA, **more: Any
) -> dict[str, Any]:
    async with runner:
        return await run_single(runner, parse_agent({"type": kind}, argument, output_schema=schema, **more))


async def rows(runner: AgentRunner, query: str) -> list[tuple[Any, ...]]:
    async with runner.database.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


@pytest.mark.parametrize(
    ("kind", "argument"),
    [
        ("text", {"text": TEXT}),
        ("vision", {"image_url": PICTURE}),
        ("synthesis", {"results": {"reader": {"answer": TEXT}}}),
    ],
)
async def test_an_answer_is_converted_to_the_schema(
    make_runner: MakeRunner, openai_server: OpenAIServer, kind: str, argument: dict[str, Any]
) -> None:
    openai_server.script(content="There are two ships.")
    openai_server.script(contains="There are two ships.", content={"ships": 2, "left_at": None})
    runner = make_runner()
    result = await run(runner, kind, argument)
    assert result["output"]["data"] == {"ships": 2, "left_at": None}
    assert result["output"]["answer" if kind != "synthesis" else "summary"] == "There are two ships."
    answered, structured = openai_server.requests
    assert "response_format" not in answered.params
    assert structured.params["response_format"]["json_schema"]["schema"]["required"] == ["ships"]
    nodes = await rows(
        runner,
        "SELECT node, output_tokens > 0 FROM visual_ai.agent_traces WHERE model IS NOT NULL AND node IS NOT NULL",
    )
    assert ("structure", True) in nodes
    total = sum(row[0] for row in await rows(runner, "SELECT output_tokens FROM visual_ai.workflow_executions"))
    assert total == result["usage"]["output_tokens"]


async def test_without_a_schema_there_is_no_data(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    result = await run(make_runner(), "text", {"text": TEXT}, None)
    assert "data" not in result["output"]
    assert len(openai_server.requests) == 1


async def test_a_pydantic_model_can_be_the_schema(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script(content={"total": 79.5, "date": "2026-11-14"})
    result = await run(make_runner(), "extraction", {"image_url": PICTURE}, "tests.kit.schema_models:Invoice")
    assert result["output"]["data"] == {"total": 79.5, "date": "2026-11-14", "customer": None}
    assert result["output"]["missing"] == ["customer"]
    assert result["output"]["image"]["width"] == 1000
    (request,) = openai_server.requests
    assert len(request.images) == 1
    assert "customer" in request.params["response_format"]["json_schema"]["schema"]["properties"]


async def test_extraction_reads_text_and_picture_at_once(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script(content={"ships": 2})
    argument = {"text": TEXT, "image_url": PICTURE, "query": "Count the ships."}
    result = await run(make_runner(), "extraction", argument)
    assert result["output"]["data"] == {"ships": 2}
    assert result["output"]["offline"] is False
    assert f"Count the ships.\n<text>\n{TEXT}\n</text>" in openai_server.requests[0].prompt


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"ships": -1}, "$.ships: -1 is less than the minimum of 0"),
        ({"left_at": "dawn"}, '$: "ships" is a required property'),
        ({"ships": 1, "sea": True}, "$: Additional properties are not allowed ('sea' was unexpected)"),
        ('{"ships": 2, "left_at"', "it is no JSON: "),  # LangChain's own parser would complete it
        ('{"ships": NaN}', "it is no JSON: NaN is no JSON value"),
        ("[1]", '$: [1] is not of type "object"'),
        ("Two ships.", "it is no JSON: "),
    ],
)
async def test_invalid_data_is_requested_once_more(
    make_runner: MakeRunner, openai_server: OpenAIServer, wrong: Any, problem: str
) -> None:
    openai_server.script(content=wrong)
    openai_server.script(content='```json\n{"ships": 2}\n```')
    result = await run(make_runner(), "extraction", {"text": TEXT})
    assert result["output"]["data"] == {"ships": 2}
    first, second = openai_server.requests
    assert second.prompt.startswith(first.prompt)
    assert f"It does not fit the form that was asked for: {problem}" in second.prompt


async def test_data_that_stays_invalid_is_a_final_failure(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script(content="There are two ships.")
    openai_server.script(content={"ships": "two"}, times=None)
    runner = make_runner()
    with raises_failure(
        InvalidOutputError, match=r'also when asked again: \$\.ships: "two" is not of type "integer"'
    ) as e:
        await run(runner, "text", {"text": TEXT})
    assert len(openai_server.requests) == 3
    assert classify(e.value).final
    query = "SELECT category, node, action, attempt, recovered FROM visual_ai.workflow_errors ORDER BY occurred_at"
    assert await rows(runner, query) == [
        ("invalid_output", "structure", "repair", 1, False),
        ("invalid_output", "structure", "fail", 2, False),
    ]


@pytest.mark.parametrize(("preset", "requests"), [("refusal", 2), ("length", 3)])
async def test_answers_without_data_are_left_to_the_next_model(
    make_runner: MakeRunner, openai_server: OpenAIServer, preset: Any, requests: int
) -> None:
    openai_server.script(preset, times=None)
    with pytest.raises(Exception, match=r"refused|token limit") as caught:
        await run(make_runner(), "extraction", {"text": TEXT}, model="gpt-4.1-mini")
    assert classify(caught.value).category == "invalid_output"
    assert len(openai_server.requests) == requests


async def test_a_retry_repeats_only_the_conversion(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script(content="There are two ships.")
    openai_server.script("server_error", contains="There are two ships.")
    with pytest.raises(Exception, match="500"):
        await run(make_runner(1), "text", {"text": TEXT})
    openai_server.script(contains="There are two ships.", content={"ships": 2})
    result = await run(make_runner(2), "text", {"text": TEXT})
    assert result["output"]["data"] == {"ships": 2}
    assert len(openai_server.requests) == 3


async def test_an_entry_of_a_team_has_its_own_schema(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script(contains="You put the answer inside", content={"ships": 2})
    entries = [
        {"name": "a", "type": "text", "input_data": {"text": TEXT}, "output_schema": SCHEMA},
        {"name": "b", "type": "text", "input_data": {"text": TEXT}},
    ]
    async with make_runner() as runner:
        result = await run_team(runner, parse_team(entries, "parallel"), "parallel", synthesis=None)
    assert result["results"]["a"]["data"] == {"ships": 2}
    assert "data" not in result["results"]["b"]


async def test_offline_only_extraction_fills_a_schema(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    with raises_failure(InputError, match=r"^output_schema: needs a hosted model") as caught:
        await run(make_runner(1), "text", {"text": TEXT}, model="local:text")
    assert classify(caught.value).final
    result = await run(make_runner(2), "extraction", {"text": "Ships: 2"}, model="local:text")
    assert result["output"]["data"] == {"ships": 2, "left_at": None}
    assert (result["output"]["offline"], result["model"], result["notice"]) == (True, "local:text", None)
    assert openai_server.requests == []


async def test_a_review_judges_by_the_criteria(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    findings = [{"criterion": "It names the captain.", "ok": False, "comment": "No captain is named."}]
    openai_server.script(content={"findings": findings, "score": 1.5, "verdict": "revise"})
    openai_server.script(content={"findings": findings, "score": 0.5, "verdict": "revise"})
    argument = {"results": {"reader": {"answer": TEXT}}, "criteria": ["It names the captain."]}
    result = await run(make_runner(), "review", argument, None)
    assert result["output"] == {
        "verdict": "revise",
        "score": 0.5,
        "findings": findings,
        "offline": False,
        "notice": None,
    }
    assert '1. It names the captain.\n<text name="reader">' in openai_server.requests[0].prompt
    assert "$.score: 1.5 is greater than the maximum of 1" in openai_server.requests[1].prompt
