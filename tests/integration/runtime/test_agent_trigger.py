"""Agents in the triggerer: how a task ends, how errors reach the worker, and when a task may be taken over."""

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent
from sqlalchemy import create_engine, text

from backend.core.settings import get_settings
from backend.runtime import triggerer_resources
from tests.kit.graphs import foreign
from tests.kit.openai.server import OpenAIServer
from tests.kit.servers.postgres import Postgres
from visual_ai_triggers import PUSHES, AgentTrigger

TEXT = "The harbour was quiet. Two ships lay at anchor. The third had left at dawn for the north."
HERE = "tests.kit.graphs.foreign"

Make = Callable[..., AgentTrigger]

pushed: list[dict[str, Any]] = []
"""The XComs of a test."""


@pytest.fixture
def make(
    pg: Postgres, database_url: str, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Make]:
    """Triggers of one task instance, as triggerers make them."""
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", pg.worker_url)
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    monkeypatch.setenv("VISUAL_AI_BLOCKING_WARNING", "0.3")
    monkeypatch.setattr(triggerer_resources, "IDLE_SECONDS", 0.05)
    pushed.clear()
    monkeypatch.setattr(XCom, "set", lambda **argument: pushed.append(argument))
    get_settings.cache_clear()
    run_id = uuid.uuid4().hex

    def make(*, try_number: int = 1, task_id: str = "task", **changes: Any) -> AgentTrigger:
        arguments = changes.pop("arguments", {"agent_config": {"type": "text"}, "input_data": {"text": TEXT}})
        single = {"model": None, "timeout": None, "graph": None, "context": None, "configurable": None}
        trigger = AgentTrigger("LangGraphOperator", {**single, "output_mapping": None, **arguments}, **changes)
        place: Any = SimpleNamespace(
            dag_id="dag",
            run_id=run_id,
            task_id=task_id,
            map_index=-1,
            try_number=try_number,
            id=f"{run_id}-{task_id}-{try_number}",
        )
        trigger._task_instance = place
        return trigger

    yield make
    get_settings.cache_clear()


@pytest.fixture
def rows(pg: Postgres) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    engine = create_engine(pg.admin_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield lambda query: [tuple(row) for row in connection.execute(text(query))]
    engine.dispose()


async def outcome(trigger: AgentTrigger) -> TriggerEvent:
    try:
        events = [event async for event in trigger.run()]
    finally:
        await trigger.cleanup()
    await closed()
    (event,) = events
    return event


async def closed() -> None:
    """Wait until what the agents of this loop shared is closed."""
    keepers = [task for task in asyncio.all_tasks() if task.get_name() == triggerer_resources.KEEPER]
    await asyncio.gather(*keepers, return_exceptions=True)


@pytest.fixture(autouse=True)
async def nothing_left_open() -> AsyncIterator[None]:
    yield
    await closed()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # anything may be waited for
            await asyncio.sleep(0.02)


async def test_success_ends_the_task_and_is_recorded_like_a_workers(make: Make, rows: Any) -> None:
    event = await outcome(make())
    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms is None
    (xcom,) = pushed
    assert (xcom["dag_id"], xcom["task_id"], xcom["key"], xcom["map_index"]) == ("dag", "task", "return_value", -1)
    assert xcom["value"]["agent"] == "text"
    query = "SELECT payload ->> 'state' FROM visual_ai.workflow_events WHERE event_type = 'task_update' ORDER BY seq"
    states = rows(query)
    assert states == [("running",), ("success",)]
    assert rows("SELECT state, try_number FROM visual_ai.workflow_tasks") == [("success", 1)]
    assert rows("SELECT output_data ->> 'agent' FROM visual_ai.workflow_executions") == [("text",)]


async def test_a_task_with_work_left_for_a_worker_resumes_there(make: Make, rows: Any) -> None:
    event = await outcome(make(ends_task=False))
    assert type(event) is TriggerEvent
    assert event.payload["error"] is None
    assert event.payload["result"]["agent"] == "text"
    assert rows("SELECT state FROM visual_ai.workflow_tasks") == [("running",)]


async def test_without_a_triggerer_the_task_goes_on_in_its_own_process(make: Make, rows: Any) -> None:
    """`airflow dags test` sets no task instance, and resumes the task with whatever the trigger yields."""
    in_triggerer = make()
    instance: Any = in_triggerer.task_instance
    inline = make(place=dict(vars(instance)))
    inline._task_instance = None
    event = await outcome(inline)
    assert type(event) is TriggerEvent
    assert event.payload["error"] is None
    assert event.payload["result"]["agent"] == "text"
    assert pushed == []
    assert rows("SELECT dag_id FROM visual_ai.workflow_executions") == [("dag",)]
    assert rows("SELECT task_id, state, try_number FROM visual_ai.workflow_tasks") == [("task", "running", 1)]


async def test_a_task_without_xcom_pushes_nothing(make: Make) -> None:
    event = await outcome(make(pushes_xcom=False))
    assert isinstance(event, TaskSuccessEvent)
    assert not pushed


async def test_a_result_that_cannot_be_pushed_here_is_pushed_by_a_worker(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = make()

    def refuse(**argument: Any) -> None:
        raise OSError("no backend")

    monkeypatch.setattr(XCom, "set", refuse)
    event = await outcome(trigger)
    assert type(event) is TriggerEvent
    assert event.payload["result"]["agent"] == "text"


async def test_hundreds_of_results_do_not_block_other_messages(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def push(**argument: Any) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)  # Airflow takes one message after the other
        with lock:
            under_way -= 1
        pushed.append(argument)

    monkeypatch.setattr(XCom, "set", push)
    tasks = [f"task-{number}" for number in range(20)]
    await asyncio.gather(*(outcome(make(task_id=task)) for task in tasks))
    assert {xcom["task_id"] for xcom in pushed} == set(tasks)
    assert 1 < most <= PUSHES


async def test_a_finished_task_that_comes_back_is_not_paid_for_again(make: Make, openai_server: OpenAIServer) -> None:
    for _ in range(2):  # the first one's triggerer died before it reported the end to Airflow
        assert isinstance(await outcome(make()), TaskSuccessEvent)
    assert len(openai_server.requests) == 1
    assert pushed[0]["value"]["output"] == pushed[1]["value"]["output"]


async def test_an_error_is_recorded_once_and_passed_to_a_worker(
    make: Make, rows: Any, openai_server: OpenAIServer
) -> None:
    openai_server.script("rate_limit", retry_after=700)
    event = await outcome(make())
    assert type(event) is TriggerEvent
    error = event.payload["error"]
    assert (error["category"], error["final"], error["recorded"]) == ("rate_limit", False, True)
    assert error["reschedule_after"] == 700
    found = rows("SELECT category, action, retry_in FROM visual_ai.workflow_errors")
    assert found == [("rate_limit", "reschedule", 700)]
    assert rows("SELECT state FROM visual_ai.workflow_tasks") == [("running",)]


async def test_invalid_arguments_are_passed_to_a_worker_too(make: Make) -> None:
    event = await outcome(make(arguments={"agent_config": {"type": "visoin"}, "input_data": None}))
    assert event.payload["error"]["final"]
    assert not event.payload["error"]["recorded"]
    assert "agent_config.type" in event.payload["error"]["message"]


async def test_key_and_model_come_from_the_connection(
    make: Make, monkeypatch: pytest.MonkeyPatch, openai_server: OpenAIServer
) -> None:
    connection = Connection(
        conn_id="models", conn_type="langchain", password="of-the-connection", host=openai_server.base_url,
        extra=json.dumps({"model": "openai:gpt-4.1"}),
    )  # fmt: skip

    async def get(conn_id: str) -> Connection:
        if conn_id != "models":
            raise AirflowNotFoundException
        return connection

    monkeypatch.setattr(Connection, "async_get", get)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    get_settings.cache_clear()
    event = await outcome(make(llm_conn_id="models"))
    assert isinstance(event, TaskSuccessEvent)
    assert openai_server.requests[0].model == "gpt-4.1"
    event = await outcome(make(llm_conn_id="nothing"))
    assert event.payload["error"]["message"] == "llm_conn_id: there is no connection 'nothing'"
    assert event.payload["error"]["final"]


async def test_cancelling_closes_the_models_connection(make: Make, rows: Any, openai_server: OpenAIServer) -> None:
    openai_server.script(hang=True)
    trigger = make()
    running = asyncio.create_task(outcome(trigger))
    await until(lambda: openai_server.requests)
    running.cancel("user-action")
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: openai_server.requests[0].client_disconnected)
    await trigger.on_kill()
    await closed()
    assert rows("SELECT DISTINCT state FROM visual_ai.agent_traces WHERE node IS NULL") == [("cancelled",)]


async def test_another_triggerer_resumes_from_the_checkpoint(make: Make, rows: Any) -> None:
    foreign.runs.clear()
    foreign.failures["hesitate"] = 1
    arguments = {"graph": f"{HERE}:hesitant", "agent_config": None, "input_data": {"value": 3}}
    first = asyncio.create_task(outcome(make(arguments=arguments)))
    await until(lambda: "hesitate" in foreign.runs)
    first.cancel()  # as a triggerer does that is shut down
    with pytest.raises(asyncio.CancelledError):
        await first
    event = await outcome(make(arguments=arguments))
    assert isinstance(event, TaskSuccessEvent)
    assert pushed[0]["value"]["output"] == {"value": 8}
    assert foreign.runs == ["add_one", "hesitate", "hesitate"]
    assert rows("SELECT try_number, epoch, completed FROM visual_ai.workflow_threads") == [(1, 2, True)]


async def test_a_superseded_triggerer_reports_nothing(make: Make, rows: Any, openai_server: OpenAIServer) -> None:
    openai_server.script(hang=True)
    openai_server.script(content="The second triggerer's answer.")
    dead = asyncio.create_task(outcome(make()))
    await until(lambda: openai_server.requests)
    alive = await outcome_of(make())
    assert isinstance(alive, TaskSuccessEvent)
    before = rows("SELECT count(*) FROM visual_ai.workflow_events")
    openai_server.reset()  # cuts the first one's connection: an error, whose word counts no more
    await asyncio.sleep(1.0)
    assert not dead.done()
    assert rows("SELECT count(*) FROM visual_ai.workflow_events") == before
    dead.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dead
    await closed()
    assert rows("SELECT count(*) FROM visual_ai.workflow_events") == before
    assert "second triggerer" in str(rows("SELECT output_data FROM visual_ai.workflow_executions"))


async def outcome_of(trigger: AgentTrigger) -> TriggerEvent:
    (event,) = [event async for event in trigger.run()]
    return event


async def test_many_triggers_share_connections(
    make: Make, pg: Postgres, rows: Any, openai_server: OpenAIServer
) -> None:
    openai_server.configure(latency=0.5)
    events = await asyncio.gather(*(outcome_of(make(task_id=f"task_{number}")) for number in range(40)))
    names = "('visual_ai_triggerer', 'visual_ai_checkpoints')"
    used = rows(f"SELECT count(*) FROM pg_stat_activity WHERE application_name IN {names}")[0][0]
    await closed()
    assert all(isinstance(event, TaskSuccessEvent) for event in events)
    assert used <= 20
    assert openai_server.max_in_flight > 3, "no agent waits for another one's model"


async def test_a_blocking_node_is_named(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    arguments = {"graph": f"{HERE}:blocking", "agent_config": None, "input_data": {"value": 1}}
    await outcome(make(arguments=arguments))
    (warning,) = [record.message for record in caplog.records if "event loop has been blocked" in record.message]
    assert "node 'stare' of agent 'blocking' in dag/" in warning
    assert "foreign.py" in warning
