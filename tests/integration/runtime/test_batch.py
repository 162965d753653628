"""Batches: each item is on its own, a retry runs only what is missing, and memory and events stay within bounds."""

import asyncio
import gc
import io
import json
import uuid
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from backend.core.errors.input_error import InputError
from backend.core.settings import Settings
from backend.core.workflow_error_handler import classify
from backend.db.engine import Database
from backend.db.runs import batch_items, threads
from backend.runtime.batch.plan import BatchPlan, parse_inputs, parse_plan
from backend.runtime.batch.run import BatchFailedError, run_batch
from backend.runtime.runner import AgentRunner, TaskContext
from backend.runtime.specs import parse_agent
from tests.kit.failures.raised import raises_failure
from tests.kit.openai.server import OpenAIServer

TEXT = "The harbour was quiet. Two ships lay at anchor. The third had left at dawn for the north."
COUNTED = "tests.kit.graphs.foreign:builder"

Batch = Callable[..., Any]


@pytest.fixture
def batch(task_settings: Settings, database: Database) -> Batch:
    """Runs a batch of the text agent, or of a graph, as the given try of the test's one task."""
    run_id = uuid.uuid4().hex

    async def run(
        inputs: list[Any],
        *,
        try_number: int = 1,
        graph: str | None = None,
        write_to: Any = None,
        **plan: Any,
    ) -> Any:
        task = TaskContext("dag", run_id, "task", -1, try_number, {"query": "the run's own"})
        spec = parse_agent({"type": "text"}, {"text": TEXT}) if graph is None else parse_agent(None, None, graph=graph)
        async with AgentRunner(task_settings, database, task) as runner:
            return await run_batch(runner, spec, inputs, BatchPlan(**plan), write_to=write_to)

    return run


async def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    async with database.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


def questions(number: int) -> list[dict[str, Any]]:
    return [{"query": f"Question number {index:03d}?"} for index in range(number)]


def asked(server: OpenAIServer, since: int = 0) -> list[str]:
    return [request.prompt for request in server.requests[since:]]


async def test_each_item_has_its_own_thread_trace_and_output(
    batch: Batch, database: Database, openai_server: OpenAIServer
) -> None:
    for index in range(3):
        openai_server.script(contains=f"number {index:03d}", content=f"Answer {index}.")
    result = await batch(questions(3))
    assert result["batch"] == {"items": 3, "succeeded": 3, "failed": 0, "failures": []}
    assert [output["answer"] for output in result["results"]] == ["Answer 0.", "Answer 1.", "Answer 2."]
    assert result["usage"]["output_tokens"] > 0
    assert result["cost_usd"] > 0
    kept = await rows(database, "SELECT thread_id FROM visual_ai.checkpoints GROUP BY 1 ORDER BY 1")
    assert [thread.rpartition("/")[2] for (thread,) in kept] == ["0", "1", "2"]
    traced = await rows(
        database,
        "SELECT item_index, agent_name, count(*), count(*) FILTER (WHERE node IS NULL) FROM visual_ai.agent_traces"
        " WHERE state = 'success' GROUP BY 1, 2 ORDER BY 1",
    )
    assert traced == [(index, "text", 4, 1) for index in range(3)]
    totals = await rows(database, "SELECT output_tokens FROM visual_ai.workflow_executions")
    summed = await rows(database, "SELECT sum(output_tokens) FROM visual_ai.batch_items")
    assert totals == summed == [(result["usage"]["output_tokens"],)]


async def test_a_retry_runs_only_what_failed_from_its_checkpoint(
    batch: Batch, database: Database, openai_server: OpenAIServer
) -> None:
    openai_server.script("server_error", contains="number 004")
    openai_server.script("server_error", contains="number 007")
    with raises_failure(BatchFailedError, match=r"^2 of 10 items failed: \[[47]\] .*500") as caught:
        await batch(questions(10), max_concurrency=1)
    assert not classify(caught.value).final
    first = len(openai_server.requests)
    assert first == 10
    result = await batch(questions(10), try_number=2)
    assert sorted(prompt[-300:].count("number 004") for prompt in asked(openai_server, first)) == [0, 1]
    assert len(openai_server.requests) == first + 2
    assert result["batch"]["succeeded"] == 10
    assert all(output["answer"] for output in result["results"])
    nodes = await rows(
        database,
        "SELECT DISTINCT item_index, node FROM visual_ai.agent_traces WHERE try_number = 2 AND node IS NOT NULL"
        " ORDER BY 1, 2",
    )
    assert nodes == [(4, "analyse"), (4, "report"), (7, "analyse"), (7, "report")]
    totals = await rows(database, "SELECT output_tokens FROM visual_ai.workflow_executions")
    assert totals == [(result["usage"]["output_tokens"],)]


async def test_a_batch_continues_after_failures_if_configured(
    batch: Batch, database: Database, openai_server: OpenAIServer
) -> None:
    openai_server.script("bad_request", contains="number 001")
    result = await batch([*questions(3), {"text": "  "}], on_item_error="continue")
    assert (result["batch"]["succeeded"], result["batch"]["failed"]) == (2, 2)
    assert {failure["index"]: failure["category"] for failure in result["batch"]["failures"]} == {
        1: "bad_request",
        3: "input",
    }
    assert result["results"][1] is None
    recorded = await rows(
        database, "SELECT item_index, category, agent_name FROM visual_ai.workflow_errors ORDER BY item_index"
    )
    assert recorded == [(1, "bad_request", "text"), (3, "input", "text")]
    reported = await rows(
        database,
        "SELECT payload ->> 'agent' FROM visual_ai.workflow_events WHERE event_type = 'error' ORDER BY 1",
    )
    assert reported == [("text[1]",), ("text[3]",)]


async def test_errors_that_no_retry_helps_are_final(batch: Batch) -> None:
    with raises_failure(BatchFailedError) as caught:
        await batch([{"text": "  "}, {"query": "What?"}])
    assert classify(caught.value).final


async def test_an_error_that_all_items_would_meet_ends_the_batch(batch: Batch, openai_server: OpenAIServer) -> None:
    openai_server.script("auth", times=None)
    with pytest.raises(Exception, match="Incorrect API key") as caught:
        await batch(questions(40), max_concurrency=4, on_item_error="continue")
    assert classify(caught.value).final
    assert len(openai_server.requests) <= 8


async def test_an_interrupted_batch_resumes(batch: Batch, database: Database, openai_server: OpenAIServer) -> None:
    openai_server.script(hold=True, contains="number 005")
    running = asyncio.create_task(batch(questions(12), max_concurrency=3))
    async with asyncio.timeout(30):
        while (await rows(database, "SELECT count(*) FROM visual_ai.batch_items"))[0][0] < 11:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    states = await rows(
        database, "SELECT state FROM visual_ai.agent_traces WHERE item_index = 5 AND node IS NULL AND try_number = 1"
    )
    assert states == [("cancelled",)]
    before = len(openai_server.requests)
    result = await batch(questions(12), try_number=2)
    assert result["batch"]["succeeded"] == 12
    assert len(asked(openai_server, before)) == 1


async def test_no_more_items_run_at_once_than_allowed(batch: Batch, openai_server: OpenAIServer) -> None:
    openai_server.script(times=None, delay=0.1)
    await batch(questions(20), max_concurrency=5)
    assert openai_server.max_in_flight == 5


async def test_changed_inputs_and_a_finished_batch_start_from_nothing(
    batch: Batch, database: Database, openai_server: OpenAIServer
) -> None:
    await batch(questions(3))
    await batch(questions(3), try_number=2)  # the process died before Airflow had the result
    assert len(openai_server.requests) == 3
    thread = (await rows(database, "SELECT thread_id FROM visual_ai.workflow_threads"))[0][0]
    await database.run(threads.complete, [(thread, 2)])
    await batch(questions(3), try_number=2)  # cleared by somebody
    assert len(openai_server.requests) == 6
    await database.run(threads.complete, [(thread, 2)])
    openai_server.script("server_error", contains="number 000")
    with raises_failure(BatchFailedError):
        await batch(questions(3), try_number=3)
    result = await batch(questions(2), try_number=4)
    assert result["batch"] == {"items": 2, "succeeded": 2, "failed": 0, "failures": []}
    assert len(openai_server.requests) == 11


async def test_a_superseded_try_writes_no_results(batch: Batch, openai_server: OpenAIServer) -> None:
    openai_server.script(hold=True, contains="number 000")
    older = asyncio.create_task(batch(questions(1)))
    await asyncio.to_thread(openai_server.wait_for, lambda stats: stats.in_flight == 1)
    newer = asyncio.create_task(batch(questions(1), try_number=2))
    assert (await newer)["batch"]["succeeded"] == 1
    openai_server.release()
    with pytest.raises(Exception, match="superseded by another claim"):
        await older


async def test_memory_and_events_dont_grow_with_the_number_of_items(batch: Batch, database: Database) -> None:
    async def watch() -> None:
        while True:
            sizes.append(process.memory_info().rss)
            await asyncio.sleep(0.1)

    process = psutil.Process()
    await batch([{"value": index} for index in range(250)], graph=COUNTED, try_number=2)
    gc.collect()
    sizes = [process.memory_info().rss]
    watcher = asyncio.create_task(watch())
    result = await batch([{"value": index} for index in range(1_000)], graph=COUNTED, try_number=3)
    watcher.cancel()
    assert max(sizes) - sizes[0] < 20 * 2**20
    assert result["batch"]["succeeded"] == 1_000
    assert "results" not in result
    [(events, about_batch)] = await rows(
        database,
        "SELECT count(*), count(*) FILTER (WHERE payload ? 'batch') FROM visual_ai.workflow_events"
        " WHERE (payload ->> 'try_number')::int = 3",
    )
    assert events <= 50 * 6 + about_batch
    assert 1 <= about_batch < 200
    sampled = await rows(
        database,
        "SELECT count(DISTINCT payload ->> 'agent') FROM visual_ai.workflow_events"
        " WHERE (payload ->> 'try_number')::int = 3 AND NOT payload ? 'batch'",
    )
    assert sampled == [(50,)]
    assert await rows(
        database, "SELECT count(*) FROM visual_ai.agent_traces WHERE try_number = 3 AND state = 'success'"
    ) == [(3_000,)]


async def test_results_are_written_as_json_lines(batch: Batch) -> None:
    class File(io.StringIO):
        def close(self) -> None:
            lines[:] = self.getvalue().splitlines()

    lines: list[str] = []
    await batch([{"value": index} for index in range(1_100)], graph=COUNTED, write_to=File)
    items = [json.loads(line) for line in lines]
    assert [item["index"] for item in items] == list(range(1_100))
    assert items[7]["output"] == {"value": 16}


async def test_an_empty_batch(batch: Batch) -> None:
    result = await batch([])
    assert result["batch"]["items"] == 0
    assert result["results"] == []


async def test_a_graph_takes_items_that_are_no_dicts(batch: Batch) -> None:
    result = await batch(["ahoy", ["all", "hands"]], graph="tests.kit.graphs.foreign:shout")
    assert result["results"] == ["AHOY", "ALL HANDS"]


def test_items_that_are_no_dicts_have_nothing_in_common() -> None:
    assert parse_inputs(["a", 1, None], own_graph=True) == ["a", 1, None]
    with pytest.raises(InputError, match="input_data is common to all inputs") as caught:
        parse_inputs([{"a": 1}, "b"], own_graph=True, common={"c": 1})
    assert caught.value.field == "inputs[1]"
    with pytest.raises(InputError, match="common to all inputs") as caught:
        parse_inputs([{"a": 1}], own_graph=True, common="all")
    assert caught.value.field == "input_data"


async def test_a_factory_finds_configurable_in_a_batch(batch: Batch) -> None:
    result = await batch([{"value": 1}], graph="tests.kit.graphs.foreign:async_factory")
    assert result["results"] == [{"value": 2}]


async def test_checkpoints_of_items_are_pruned_with_the_run(batch: Batch, database: Database) -> None:
    await batch([{"value": 1}] * 3, graph=COUNTED)
    ended = text("UPDATE visual_ai.workflow_executions SET state = 'success', finished_at = now() - interval '2 days'")
    await database.run(lambda connection: connection.execute(ended))
    assert await database.run(threads.prune, older_than=86400, limit=10) == 1
    assert await rows(database, "SELECT count(*) FROM visual_ai.checkpoints") == [(0,)]


@pytest.mark.parametrize(
    ("argument", "field"), [("text", "inputs"), ({"a": 1}, "inputs"), ([{}, 3], "inputs[1]"), ([{1: 2}], "inputs[0]")]
)
def test_wrong_inputs_are_named(argument: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_inputs(argument)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("concurrency", "mode", "field"),
    [
        (0, "fail", "max_concurrency"),
        (True, "fail", "max_concurrency"),
        (1001, "fail", "max_concurrency"),
        ("many", "fail", "max_concurrency"),
        (5, "stop", "on_item_error"),
    ],
)
def test_wrong_plans_are_named(concurrency: Any, mode: str, field: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_plan(concurrency, mode)
    assert caught.value.field == field
    assert parse_plan("7", "continue") == BatchPlan(7, "continue")


async def test_counts_know_the_size_of_the_outputs(batch: Batch, database: Database) -> None:
    await batch([{"value": 1}], graph=COUNTED)
    (execution,) = (await rows(database, "SELECT id::text FROM visual_ai.workflow_executions"))[0]
    place = TaskContext("dag", "run", "task", -1, 1, {}).place()
    counts = await database.run(batch_items.count, execution, place)
    assert counts == batch_items.Counts(1, 0, len('{"value": 4}'))
