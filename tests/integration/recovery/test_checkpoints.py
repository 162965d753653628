"""A retry goes on where the try before it stopped, and a superseded try can write nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from sqlalchemy import Connection, text

from backend.checkpoints.batch_writer import CheckpointWriter
from backend.checkpoints.batched_saver import BatchedSaver
from backend.checkpoints.pool import open_pool
from backend.core.states import TaskState
from backend.db.address import plain_url
from backend.db.runs import executions, observations, threads
from backend.db.runs.threads import Claim, ClaimRequest, SupersededError
from backend.runtime.runner import AgentRunner
from backend.runtime.single import run_single
from backend.runtime.specs import parse_agent, parse_team, synthesis_spec
from backend.runtime.team.run import run_team
from tests.kit.fixtures.tasks import MakeRunner
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres

TEXT = "The harbour was quiet. Two ships lay at anchor. The third had left at dawn for the north."


async def trace_nodes(runner: AgentRunner) -> list[tuple[int, str, str, str]]:
    query = text(
        "SELECT try_number, agent_name, node, state FROM visual_ai.agent_traces"
        " WHERE node IS NOT NULL ORDER BY started_at"
    )
    async with runner.database.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(query)]


async def test_a_retry_runs_only_the_failed_node_and_counts_all_tokens(
    make_runner: MakeRunner, openai_server: OpenAIServer
) -> None:
    spec = parse_agent({"type": "text"}, {"text": TEXT, "query": "Where did the third ship go?"})
    openai_server.script("server_error")
    async with make_runner(1) as first:
        with pytest.raises(Exception, match="500"):
            await run_single(first, spec)
    async with make_runner(2) as second:
        result = await run_single(second, spec)
    assert await trace_nodes(second) == [
        (1, "text", "prepare", "success"),
        (1, "text", "analyse", "failed"),
        (2, "text", "analyse", "success"),
        (2, "text", "report", "success"),
    ]
    assert result["usage"]["output_tokens"] > 0
    assert len(openai_server.requests) == 2


async def test_without_checkpoints_nothing_is_stored_and_a_retry_begins_anew(
    make_runner: MakeRunner, openai_server: OpenAIServer
) -> None:
    spec = parse_agent({"type": "text"}, {"text": TEXT, "query": "Where did the third ship go?"})
    openai_server.script("server_error")
    async with make_runner(1, durability=None) as first:
        with pytest.raises(Exception, match="500"):
            await run_single(first, spec)
    async with make_runner(2, durability=None) as second:
        await run_single(second, spec)
    nodes = [(number, node, state) for number, _, node, state in await trace_nodes(second)]
    assert nodes[1:3] == [(1, "analyse", "failed"), (2, "prepare", "success")]
    async with second.database.engine.connect() as connection:
        kept = await connection.execute(text("SELECT count(*) FROM visual_ai.checkpoints"))
        assert kept.scalar_one() == 0


async def test_finished_agents_of_a_team_are_not_run_again(
    make_runner: MakeRunner, openai_server: OpenAIServer
) -> None:
    specs = parse_team(
        [
            {"name": "good", "type": "text", "input_data": {"text": TEXT, "query": "first question"}},
            {"name": "bad", "type": "text", "input_data": {"text": TEXT, "query": "second question"}},
        ],
        "parallel",
    )
    openai_server.script(contains="first question", content="The first answer.")
    openai_server.script("server_error", contains="second question")
    openai_server.script(contains="second question", content="The second answer.")
    synthesis = synthesis_spec(True, specs, None)
    async with make_runner(1) as first:
        with pytest.raises(Exception, match="500"):
            await run_team(first, specs, "parallel", synthesis=synthesis)
    asked_before = len(openai_server.requests)
    async with make_runner(2) as second:
        result = await run_team(second, specs, "parallel", synthesis=synthesis)
    asked = [request.prompt for request in openai_server.requests[asked_before:]]
    assert not any("first question" in prompt for prompt in asked)
    assert len(asked) == 2  # the failed agent and the synthesis
    assert set(result["results"]) == {"good", "bad"}
    assert result["agents"]["good"]["usage"]["output_tokens"] > 0


async def test_another_input_starts_from_nothing(make_runner: MakeRunner, openai_server: OpenAIServer) -> None:
    openai_server.script("server_error")
    async with make_runner(1) as first:
        with pytest.raises(Exception, match="500"):
            await run_single(first, parse_agent({"type": "text"}, {"text": TEXT}))
    async with make_runner(2) as second:
        await run_single(second, parse_agent({"type": "text"}, {"text": "Another text about the sea and its tides."}))
    assert [row[2] for row in await trace_nodes(second) if row[0] == 2] == ["prepare", "analyse", "report"]
    assert "tides" in openai_server.requests[-1].prompt


async def test_a_cleared_task_that_had_succeeded_runs_again(
    make_runner: MakeRunner, openai_server: OpenAIServer
) -> None:
    spec = parse_agent({"type": "text"}, {"text": TEXT})
    for try_number in (1, 2):
        async with make_runner(try_number) as runner:
            await run_single(runner, spec)
        seen = TaskState("task", -1, try_number, "success")
        await runner.database.run(observations.observe, runner.task.run_state(), [seen])
    assert len(openai_server.requests) == 2


async def test_a_task_that_died_before_airflow_had_its_result_pays_no_model_twice(
    make_runner: MakeRunner, openai_server: OpenAIServer
) -> None:
    spec = parse_agent({"type": "text"}, {"text": TEXT})
    results = []
    for try_number in (1, 2):
        async with make_runner(try_number) as runner:
            results.append(await run_single(runner, spec))
    assert len(openai_server.requests) == 1
    assert results[0]["output"] == results[1]["output"]


@pytest.mark.parametrize(("next_try", "action"), [(2, "task_retry"), (1, "resume")])
async def test_a_lost_process_is_reported(
    make_runner: MakeRunner, openai_server: OpenAIServer, next_try: int, action: str
) -> None:
    spec = parse_agent({"type": "text"}, {"text": TEXT})
    openai_server.script(hang=True)
    async with make_runner(1) as lost:
        working = asyncio.ensure_future(run_single(lost, spec))
        try:
            while ("analyse", "running") not in [row[2:] for row in await trace_nodes(lost)]:  # noqa: ASYNC110  # its writer's
                await asyncio.sleep(0.02)
            async with make_runner(next_try) as second:
                await run_single(second, spec)
                assert (await trace_nodes(second))[:2] == [
                    (1, "text", "prepare", "success"), (1, "text", "analyse", "cancelled"),
                ]  # fmt: skip
                query = text("SELECT event_type, payload FROM visual_ai.workflow_events ORDER BY seq")
                async with second.database.engine.connect() as connection:
                    events = [(row[0], row[1]) for row in await connection.execute(query)]
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    cancelled = [payload["node"] for kind, payload in events if payload.get("state") == "cancelled"]
    assert cancelled == [None, "analyse"]
    (error,) = [payload for kind, payload in events if kind == "error"]
    assert (error["try_number"], error["agent"], error["node"]) == (1, "text", "analyse")
    assert (error["category"], error["action"]) == ("internal", action)
    assert "killed" in error["message"]


async def test_an_older_try_can_neither_begin_nor_write(make_runner: MakeRunner, pg: Postgres) -> None:
    older, newer, late = make_runner(1), make_runner(2), make_runner(1)
    thread = older.task.thread_id
    async with older, newer, late:
        await older.claim({"text": thread}, "input")
        await newer.claim({"text": thread}, "input")
        with pytest.raises(SupersededError):
            await late.claim({"text": thread}, "input")
        async with savers(pg) as make_saver:
            config = config_of(thread)
            stale, current = (make_saver(Claim(thread, number, number, False)) for number in (1, 2))
            await stale.aput(config, empty_checkpoint(), {}, {})
            with pytest.raises(SupersededError):
                await stale.flush()
            assert await latest(make_saver, thread) is None
            kept = await current.aput(config, empty_checkpoint(), {}, {})
            with pytest.raises(SupersededError):
                await stale.aput_writes(kept, [("channel", "value")], "task")
            await current.aput_writes(kept, [("channel", "value")], "task")
            found = await current.aget_tuple(config)
            assert found is not None
            assert found.pending_writes == [("task", "channel", "value")]


async def test_a_try_without_records_finds_out_that_it_lost_its_thread(make_runner: MakeRunner) -> None:
    first, second = make_runner(1), make_runner(1)  # the same try, taken over by another triggerer
    thread = first.task.thread_id
    async with first, second:
        await first.claim({"text": thread}, "input")
        assert await first.recorder.check_claim()
        await second.claim({"text": thread}, "input")
        assert not await first.recorder.check_claim()
        assert await second.recorder.check_claim()


MakeSaver = Callable[..., BatchedSaver]


@asynccontextmanager
async def savers(pg: Postgres, *, gather: float = 0) -> AsyncIterator[MakeSaver]:
    """Makes savers that share one writer."""
    writer = CheckpointWriter(pg.worker_url, gather=gather)
    try:
        async with open_pool(pg.worker_url, max_size=1) as pool:
            yield lambda claim, known=(): BatchedSaver(pool, claim, writer, known)
    finally:
        writer.close()


def config_of(thread: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}


async def latest(make_saver: MakeSaver, thread: str) -> CheckpointTuple | None:
    """What another try would find."""
    return await make_saver(Claim(thread, 9, 9, True), [thread]).aget_tuple(config_of(thread))


async def test_checkpoints_that_share_a_transaction_are_fenced_as_well(make_runner: MakeRunner, pg: Postgres) -> None:
    runner = make_runner(1)
    thread = runner.task.thread_id
    config = config_of(thread)
    async with runner, savers(pg) as make_saver:
        await runner.claim({"text": thread}, "input")
        async with make_saver(Claim(thread, 7, 7, False)).writing() as stale:
            await stale.aput(config, empty_checkpoint(), {}, {})
            with pytest.raises(SupersededError):
                await stale.flush()
            with pytest.raises(SupersededError):
                await stale.aput(config, empty_checkpoint(), {}, {})
        assert await latest(make_saver, thread) is None


async def test_of_many_claims_only_the_superseded_one_is_refused(make_runner: MakeRunner, pg: Postgres) -> None:
    runner = make_runner(1)
    names = [f"{runner.task.thread_id}/{number}" for number in range(5)]
    claims = [await runner.database.run(claim_alone, runner, name) for name in names]
    await runner.database.run(claim_alone, runner, names[2])
    async with savers(pg, gather=0.01) as make_saver:
        opened = [make_saver(claim) for claim in claims]
        configs = [config_of(name) for name in names]
        for saver, config in zip(opened, configs, strict=True):
            await saver.aput(config, empty_checkpoint(), {}, {})
        ended = await asyncio.gather(*(saver.flush() for saver in opened), return_exceptions=True)
        assert [type(end) for end in ended] == [SupersededError if n == 2 else type(None) for n in range(5)]
        kept = [await latest(make_saver, name) is not None for name in names]
    assert kept == [True, True, False, True, True]


async def test_rejected_checkpoints_do_not_affect_others(make_runner: MakeRunner, pg: Postgres) -> None:
    runner = make_runner(1)
    names = [f"{runner.task.thread_id}/{number}" for number in range(5)]
    claims = [await runner.database.run(claim_alone, runner, name) for name in names]
    async with savers(pg, gather=0.01) as make_saver:
        opened = [make_saver(claim) for claim in claims]
        configs = [config_of(name) for name in names]
        for number, (saver, config) in enumerate(zip(opened, configs, strict=True)):
            kept = await saver.aput(config, empty_checkpoint(), {}, {})
            await saver.aput_writes(kept, [("chan\x00nel" if number == 1 else "channel", "value")], "task")
        ended = await asyncio.gather(*(saver.flush() for saver in opened), return_exceptions=True)
        assert [end is None for end in ended] == [True, False, True, True, True]
        with pytest.raises(psycopg.DataError):
            await opened[1].aput(configs[1], empty_checkpoint(), {}, {})
        found = [
            await saver.aget_tuple(config)
            for saver, config in zip(opened, configs, strict=True)
            if saver is not opened[1]
        ]
    assert [len(one.pending_writes or ()) if one is not None else None for one in found] == [1, 1, 1, 1]


def claim_alone(connection: Connection, runner: AgentRunner, thread: str) -> Claim:
    """A claim of a task instance that has this one thread."""
    execution_id = executions.ensure(connection, runner.task.run_state())
    return threads.begin_one(connection, ClaimRequest(execution_id, thread, 1, [thread], "input"))


async def test_a_lost_connection_costs_no_checkpoint(make_runner: MakeRunner, pg: Postgres) -> None:
    runner = make_runner(1)
    thread = runner.task.thread_id
    config = config_of(thread)
    async with runner, savers(pg) as make_saver:
        await runner.claim({"text": thread}, "input")
        async with make_saver(Claim(thread, 1, 1, False)).writing() as saver:
            first = await saver.aput(config, empty_checkpoint(), {}, {})
            await saver.flush()
            with psycopg.connect(plain_url(pg.admin_url), autocommit=True) as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'visual_ai_checkpoints'"
                )
            kept = await saver.aput(first, empty_checkpoint(), {}, {})
            found = await saver.aget_tuple(config)
            assert found is not None
            assert found.config == kept


async def test_a_checkpoint_holds_the_state_of_the_moment_it_was_put(make_runner: MakeRunner, pg: Postgres) -> None:
    runner = make_runner(1)
    thread = runner.task.thread_id
    async with runner, savers(pg, gather=0.05) as make_saver:
        await runner.claim({"text": thread}, "input")
        saver = make_saver(Claim(thread, 1, 1, False))
        messages = ["before"]
        put = empty_checkpoint()
        put["channel_values"], put["channel_versions"] = {"messages": messages}, {"messages": "1"}
        kept = await saver.aput(config_of(thread), put, {}, {"messages": "1"})
        await saver.aput_writes(kept, [("messages", messages)], "task")
        messages.append("after")
        await saver.flush()
        found = await latest(make_saver, thread)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"messages": ["before"]}
    assert found.pending_writes == [("task", "messages", ["before"])]


async def test_a_deleted_thread_stays_deleted(make_runner: MakeRunner, pg: Postgres) -> None:
    runner = make_runner(1)
    thread = runner.task.thread_id
    async with runner, savers(pg, gather=0.05) as make_saver:
        await runner.claim({"text": thread}, "input")
        saver = make_saver(Claim(thread, 1, 1, False))
        await saver.aput(config_of(thread), empty_checkpoint(), {}, {})
        await saver.adelete_thread(thread)
        await saver.flush()
        assert await latest(make_saver, thread) is None


async def test_checkpoints_of_finished_runs_are_pruned_by_age(make_runner: MakeRunner, pg: Postgres) -> None:
    async with make_runner(1) as runner:
        await run_single(runner, parse_agent({"type": "text"}, {"text": TEXT}))
    database = runner.database
    ended = text("UPDATE visual_ai.workflow_executions SET state = 'success', finished_at = now() - interval '2 days'")
    await database.run(lambda connection: connection.execute(ended))
    assert await database.run(threads.prune, older_than=3 * 86400, limit=10) == 0
    assert await database.run(threads.prune, older_than=86400, limit=10) == 1
    count = text("SELECT count(*) FROM visual_ai.checkpoints")
    left = await database.run(lambda connection: connection.execute(count).scalar_one())
    assert left == 0
