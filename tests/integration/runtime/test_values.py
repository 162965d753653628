"""Values of every kind in outputs, states, inputs and models' answers: each survives, or is refused by name at once.

A batch runs all kinds side by side, each as an item of its own.
"""

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from backend.core.errors.agent_errors import InvalidOutputError, UnstorableOutputError
from backend.core.errors.input_error import InputError
from backend.core.exact_json import to_json
from backend.core.settings import Settings
from backend.core.workflow_error_handler import AgentFailure
from backend.db.engine import Database
from backend.runtime.batch.plan import BatchPlan
from backend.runtime.batch.run import run_batch
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent, parse_team
from backend.runtime.team.run import run_team
from tests.kit.failures.raised import raises_failure
from tests.kit.graphs import values
from tests.kit.openai.server import OpenAIServer
from tests.kit.value_kinds import KINDS

GRAPH = "tests.kit.graphs.values:builder"
STORING = "tests.kit.graphs.values:storing"
Runner = Callable[..., AgentRunner]


@pytest.fixture
def runner(task_settings: Settings, database: Database) -> Runner:
    """Makes runners for successive tries of the test's one task."""
    values.calls.clear()
    values.failures.clear()
    values.seen.clear()
    run_id = uuid.uuid4().hex
    return lambda try_number=1, **conf: AgentRunner(
        task_settings, database, TaskContext("dag", run_id, "task", -1, try_number, conf)
    )


async def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    async with database.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


async def run_all(runner: AgentRunner, place: str) -> None:
    """Run every kind in the place: `answer`, `kept` or `question`."""
    given = [{"question": kind.make()} if place == "question" else {} for kind in KINDS.values()]
    inputs = [{"kind": name, "place": place, **more} for name, more in zip(KINDS, given, strict=True)]
    async with runner:
        spec = parse_agent(None, None, graph=GRAPH)
        await run_batch(runner, spec, inputs, BatchPlan(max_concurrency=4, on_item_error="continue"))
    assert runner.recorder.dropped == 0


async def items(database: Database) -> dict[str, tuple[Any, ...]]:
    query = "SELECT state, output, category, error FROM visual_ai.batch_items ORDER BY item_index"
    return dict(zip(KINDS, await rows(database, query), strict=True))


async def test_outputs(runner: Runner, database: Database) -> None:
    await run_all(runner(), "answer")
    for name, (state, output, category, error) in (await items(database)).items():
        kind = KINDS[name]
        if kind.refused is None and kind.is_kept:
            assert (name, state, output) == (name, "success", {"answer": kind.output})
            continue
        assert (name, state, output, category) == (name, "failed", None, "invalid_output")
        assert "'produce'" in error
        if kind.refused is not None:
            assert (name, kind.refused[1] in error) == (name, True)
            assert f"/answer{kind.refused[0]}".replace("\x00", "\ufffd") in error
        assert values.calls.count((name, "produce")) == 1
    # A million rows in a state are no reason for a million in its excerpts.
    sizes = await rows(database, "SELECT max(length(coalesce(input, output)::text)) FROM visual_ai.agent_traces")
    assert sizes[0][0] < 1_000_000
    assert await rows(database, "SELECT count(*) FROM visual_ai.agent_traces WHERE state = 'running'") == [(0,)]
    refused = sum(state == "failed" for state, *_ in (await items(database)).values())
    assert await rows(database, "SELECT count(*), count(DISTINCT item_index) FROM visual_ai.workflow_errors") == [
        (refused, refused)
    ]


async def test_states_are_the_same_after_a_retry(runner: Runner, database: Database) -> None:
    values.failures.update(KINDS)
    await run_all(runner(), "kept")
    assert not values.seen
    for name, (_, _, category, error) in (await items(database)).items():
        if KINDS[name].is_kept:
            assert (name, category) == (name, "server")
        else:
            assert (name, category) == (name, "invalid_output")
            assert "the node 'produce' returned what no checkpoint can keep: /kept" in error
            assert (name, "finish") not in values.calls  # nothing more is paid for
    await run_all(runner(2), "kept")
    for name, kind in KINDS.items():
        assert (name, values.calls.count((name, "pay"))) == (name, 1)
        if kind.is_kept:
            assert (name, values.calls.count((name, "produce"))) == (name, 1)
            # Where Python's own types stand in for others, the values are the same.
            seen, made = values.seen[name], kind.make()
            assert (name, repr(seen) == repr(made) or to_json(seen) == kind.output) == (name, True)


async def test_inputs(runner: Runner, database: Database) -> None:
    await run_all(runner(), "question")
    for name, (state, _, category, error) in (await items(database)).items():
        kind = KINDS[name]
        if state == "success":
            assert (name, kind.refused is None or "reserve" in kind.refused[1]) == (name, True)
            continue
        assert (name, category, "input_data/question" in error) == (name, "input", True)
        assert not kind.is_kept or kind.refused is not None
        assert not [call for call in values.calls if call[0] == name]  # nothing is paid for


@pytest.mark.parametrize("place", ["answer", "kept"])
@pytest.mark.parametrize("name", ["65 bits", "NUL", "object", "3,000 levels"])
async def test_what_is_refused_fails_once_and_for_good(
    runner: Runner, database: Database, name: str, place: str
) -> None:
    """One error row with its node, nothing left open, and the checkpoint before the node is kept."""
    if place == "kept" and KINDS[name].is_kept:
        pytest.skip("checkpoints hold it")
    async with runner() as first:
        with raises_failure(UnstorableOutputError, match=place) as caught:
            await run_single(first, parse_agent(None, {"kind": name, "place": place}, graph=GRAPH))
    assert isinstance(caught.value, AgentFailure)
    assert (caught.value.classified.final, first.recorder.dropped) == (True, 0)
    query = "SELECT category, action, node, exception_type LIKE '%UnstorableOutputError' FROM visual_ai.workflow_errors"
    assert await rows(database, query) == [("invalid_output", "fail", "produce", True)]
    assert await rows(database, "SELECT count(*) FROM visual_ai.agent_traces WHERE state = 'running'") == [(0,)]
    # Clearing the task does not pay again for what was done before.
    async with runner(2) as second:
        with raises_failure(UnstorableOutputError, match=place):
            await run_single(second, parse_agent(None, {"kind": name, "place": place}, graph=GRAPH))
    assert values.calls.count((name, "pay")) == 1
    assert len(await rows(database, query)) == 2


async def test_an_input_is_refused_before_anything_is_paid_for(runner: Runner, database: Database) -> None:
    given = {"kind": "plain", "question": {"a/b": ["x", "\ud83d"]}}
    async with runner() as one:
        with raises_failure(InputError, match="input_data/question/a~1b/1: contains half of a surrogate pair"):
            await run_single(one, parse_agent(None, given, graph=GRAPH))
    assert values.calls == []
    assert await rows(database, "SELECT category, action FROM visual_ai.workflow_errors") == [("input", "fail")]


async def test_only_what_is_passed_on_has_to_be_storable(runner: Runner) -> None:
    async with runner() as one:
        spec = parse_agent(None, {"kind": "1e999", "place": "kept"}, graph=GRAPH, output_mapping={"said": "answer"})
        assert (await run_single(one, spec))["output"] == {"said": "done"}


async def test_a_notice_says_where_nan_became_null(runner: Runner, database: Database) -> None:
    async with runner() as one:
        result = await run_single(one, parse_agent(None, {"kind": "NaN", "place": "answer"}, graph=GRAPH))
    assert result["output"] == {"answer": [1.0, None]}
    assert result["notice"] == "NaN became null, because JSON has none: /answer/1"
    stored = await rows(database, "SELECT notice FROM visual_ai.agent_traces WHERE node IS NULL")
    assert stored == [(result["notice"],)]


async def test_the_results_of_a_team(runner: Runner, database: Database) -> None:
    agents = [
        {"name": "numbers", "graph": GRAPH, "input_data": {"kind": "array", "place": "answer"}},
        {"name": "broken", "graph": GRAPH, "input_data": {"kind": "65 bits", "place": "answer"}, "required": False},
    ]
    async with runner() as one:
        result = await run_team(one, parse_team(agents, "parallel"), "parallel", synthesis=None)
    assert result["results"] == {"numbers": {"answer": list(range(5000))}, "broken": None}
    assert "65" not in result["agents"]["broken"]["error"]
    assert "/answer/0" in result["agents"]["broken"]["error"]
    stored = await rows(
        database,
        "SELECT jsonb_array_length(output_data #> '{results,numbers,answer}') FROM visual_ai.workflow_executions",
    )
    assert stored == [(5000,)]


async def test_items_of_the_store(runner: Runner, database: Database) -> None:
    """As in an output: converted, or refused in the node that puts them."""
    values.stored.clear()
    async with runner() as one:
        await run_single(one, parse_agent(None, {"kind": "matrix", "place": "answer"}, graph=STORING))
    assert values.stored == [{"value": [[1.5, None]]}]
    async with runner(2, again=True) as one:
        with raises_failure(UnstorableOutputError, match="the item 'values/NUL': /value contains a NUL character"):
            await run_single(one, parse_agent(None, {"kind": "NUL", "place": "answer"}, graph=STORING))
    query = "SELECT category, action, node FROM visual_ai.workflow_errors"
    assert await rows(database, query) == [("invalid_output", "fail", "store")]


TEXT = {"text": "The harbour was quiet. Two ships lay at anchor."}
SCHEMA = {"type": "object", "properties": {"n": {}}, "required": ["n"]}


def streamed(pieces: list[str]) -> str:
    """The body of a streamed answer. JSON may hold half of a surrogate pair as an escape."""
    choices: list[dict[str, Any]] = [{"index": 0, "delta": {"role": "assistant", "content": piece}} for piece in pieces]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    chunks = [{"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]} for choice in choices]
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["x" * 1_000_000] * 10, "x" * 10_000_000),
        (["a \ud83d", "\ude00 b"], "a \U0001f600 b"),
        (["a\x00b"], "/answer, which the node 'report' wrote, contains a NUL character"),
        (
            ["a\ud83d"],
            "'analyse' returned what no checkpoint can keep: /reply/content contains half of a",
        ),
    ],
    ids=["10 MB", "an emoji in halves", "NUL", "half a pair"],
)
async def test_texts_of_models(
    runner: Runner, openai_server: OpenAIServer, database: Database, pieces: list[str], expected: str
) -> None:
    openai_server.script(body=streamed(pieces), times=None)
    async with runner() as one:
        spec = parse_agent({"type": "text"}, TEXT)
        if "/" not in expected:
            assert (await run_single(one, spec))["output"]["answer"] == expected
        else:
            with raises_failure(UnstorableOutputError, match=expected) as caught:
                await run_single(one, spec)
            assert isinstance(caught.value, AgentFailure)
            assert caught.value.classified.final
    assert len(openai_server.requests) == 1
    if "/" not in expected:
        query = "SELECT payload ->> 'text' FROM visual_ai.workflow_events WHERE event_type = 'token' ORDER BY seq"
        assert "".join(piece for (piece,) in await rows(database, query)) == expected


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("18446744073709551616", "/n is an integer outside 64 bits; use a text"),
        ("1e999", "/n is an infinity, or a number too large"),
        ('"a\\u0000b"', "/n contains a NUL character"),
        ('{"\\ud83d": 1}', "half of a surrogate pair"),
        ("[" * 3000 + "]" * 3000, "nested"),
        ("1" * 5000, "no JSON|outside 64 bits"),
    ],
    ids=["65 bits", "1e999", "NUL", "half a pair", "3,000 levels", "5,000 digits"],
)
async def test_data_of_models(
    runner: Runner, openai_server: OpenAIServer, database: Database, written: str, words: str
) -> None:
    """The model is told once what is wrong, as with any other answer that doesn't fit."""
    openai_server.script(content="There are ships.")
    openai_server.script(body=streamed([f'{{"n": {written}}}']), times=None)
    async with runner() as one:
        with raises_failure(InvalidOutputError, match=words):
            await run_single(one, parse_agent({"type": "text"}, TEXT, output_schema=SCHEMA))
    assert len(openai_server.requests) == 3
    assert await rows(database, "SELECT action FROM visual_ai.workflow_errors ORDER BY occurred_at") == [
        ("repair",),
        ("fail",),
    ]
