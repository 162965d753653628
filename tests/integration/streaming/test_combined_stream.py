"""One stream for several runs: each run's events as in its own stream, and one cursor for all of them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection

from backend.core.roles import STANDARD_RIGHTS, Principal, Role
from backend.core.states import TaskState
from backend.db.runs import events
from backend.db.runs.executions import RunState
from backend.services.streaming import subscriptions
from backend.services.streaming.combined import CombinedStream
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, served, sign_in
from tests.kit.processes.log_writer import LogWriter
from tests.kit.streams import DAG, Got, Parser
from tests.kit.waiting import eventually


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[FastAPI]:
    airflow = FakeAirflow()
    airflow.fail("/dags/~/")  # the runs here are not Airflow's
    async with application(database_url, airflow, **PRODUCTION) as app:
        await eventually(app.state.application.health.feed_connected)
        yield app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with served(app) as address, httpx.AsyncClient(base_url=address, timeout=20) as http:
        http.headers.update(await sign_in(http, "otto"))
        yield http


@pytest.fixture
def database(database_url: str) -> Iterator[LogWriter]:
    with LogWriter(database_url) as writer:
        yield writer


async def combined(
    http: httpx.AsyncClient, *runs: str, after: str | None = None, parser: Parser | None = None
) -> AsyncGenerator[Got]:
    parser = parser or Parser()
    query = httpx.QueryParams({"run": [f"{DAG}/{run}" for run in runs]})
    headers = {"Last-Event-ID": after} if after is not None else {}
    async with http.stream("GET", "/workflow-status/streams", params=query, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if (got := parser.feed(line)) is not None:
                yield got


def log_of(database: LogWriter, execution_id: str) -> list[tuple[str, str, Any]]:
    def read(connection: Connection) -> list[tuple[str, str, Any]]:
        log = events.read_after(connection, execution_id, 0, limit=10_000)
        return [(str(event.seq), event.type, event.payload) for event in log]

    with database.engine.connect() as connection:
        return read(connection)


def of_run(got: list[Got], position: int) -> list[tuple[str, str, Any]]:
    """The events of one run, each with its own cursor."""
    found = []
    for one in got:
        place, _, cursors = (one.id or "").partition(";")
        if int(place) == position:
            found.append((cursors.split(",")[position], one.type, one.data))
    return found


def start(database: LogWriter, run_id: str) -> str:
    return database.observe(RunState(DAG, run_id, "running"), TaskState("work", -1, 1, "running"))


async def test_each_run_is_streamed_as_in_its_own_stream_until_its_end(
    http: httpx.AsyncClient, database: LogWriter
) -> None:
    ids = [start(database, f"run/{number}") for number in range(3)]
    parser = Parser()
    got: list[Got] = []
    runs = [f"run/{number}" for number in range(3)]
    async with aclosing(combined(http, *runs, after=",".join("0" * 3), parser=parser)) as frames:
        for number, execution_id in enumerate(ids):
            database.say(execution_id, *(f"{number}: {text}" for text in "ab"))
            database.observe(RunState(DAG, f"run/{number}", "success" if number else "failed"))
            while sum(one.type == "end" for one in got) <= number:
                got.append(await anext(frames))
            assert (parser.retry == 3_600_000) == (number == 2), "a browser must come back while a run goes on"
        got += [one async for one in frames]
    for number, execution_id in enumerate(ids):
        log = log_of(database, execution_id)
        assert of_run(got, number) == [*log[:-1], (f"{log[-1][0]}-", *log[-1][1:])]


async def test_every_id_resumes_all_runs_without_loss_or_repetition(
    http: httpx.AsyncClient, database: LogWriter
) -> None:
    for run in ("a", "b"):
        execution_id = start(database, run)
        database.say(execution_id, *"xyz")
        database.observe(RunState(DAG, run, "success"))
    whole = [one async for one in combined(http, "a", "b", after="0,0")]
    assert len(whole) == 2 * len(log_of(database, execution_id))
    for index, one in enumerate(whole):
        rest = [later async for later in combined(http, "a", "b", after=one.id)]
        for position in range(2):
            assert of_run(rest, position) == of_run(whole[index + 1 :], position)


async def test_without_cursors_each_run_begins_with_its_state(http: httpx.AsyncClient, database: LogWriter) -> None:
    start(database, "a")
    database.observe(RunState(DAG, "b", "success"))
    async with aclosing(combined(http, "a", "b")) as frames:
        got = [await anext(frames) for _ in range(4)]
    assert [(cursor, kind) for cursor, kind, _ in of_run(got, 0)] == [("", "workflow_update"), ("3", "task_update")]
    assert [kind for _, kind, _ in of_run(got, 1)] == ["workflow_update", "end"]


async def test_a_run_that_may_not_be_seen_doesnt_stop_the_others(http: httpx.AsyncClient, database: LogWriter) -> None:
    database.observe(RunState(DAG, "of otto", "success"))
    database.observe(RunState(DAG, "of ulla", "success", user="ulla"))
    uwe = await sign_in(http, "uwe")
    http.headers.update(uwe)
    got = [one async for one in combined(http, "of ulla", "unknown")]
    assert [(one.type, one.data["status"], one.id) for one in got] == [
        ("problem", 404, "0;-,"),
        ("problem", 404, "1;-,-"),
    ]
    http.headers.update(await sign_in(http, "otto"))
    got = [one async for one in combined(http, "unknown", "of ulla")]
    assert (got[0].type, got[0].id) == ("problem", "0;-,")
    assert [kind for _, kind, _ in of_run(got, 1)] == ["workflow_update", "end"]
    assert [one async for one in combined(http, "unknown", "of ulla", after=got[-1].id)] == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ([("run", "no-slash")], "?run/0"),
        ([("run", "dag/run"), ("last_event_id", "1,2")], "?last_event_id"),
        ([("run", "dag/run"), ("last_event_id", "x")], "?last_event_id"),
        ([("run", "dag/run")] * 51, "?run"),
        ([], "?run"),
    ],
)
async def test_invalid_requests_are_refused(
    http: httpx.AsyncClient, query: list[tuple[str, str]], pointer: str
) -> None:
    answer = await http.get("/workflow-status/streams", params=tuple(query))
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


async def test_a_client_that_leaves_frees_all_its_runs(
    http: httpx.AsyncClient, app: FastAPI, database: LogWriter
) -> None:
    start(database, "a")
    start(database, "b")
    async with aclosing(combined(http, "a", "b")) as frames:
        await anext(frames)
        await eventually(lambda: app.state.application.streams.open_streams == 2)
    await eventually(lambda: app.state.application.streams.open_streams == 0)
    streams = app.state.application.streams
    gone = CombinedStream(streams, Principal("otto", STANDARD_RIGHTS[Role.OP]), [(DAG, "a"), (DAG, "b")], ["", ""])
    await gone.open()
    chunks = gone.chunks()
    await anext(chunks)
    gone.leave()  # before the streams of the runs have begun
    async with asyncio.timeout(5):
        assert [chunk async for chunk in chunks] == []
    assert streams.open_streams == 0
    assert not [task for task in asyncio.all_tasks() if "_pull" in repr(task.get_coro())]


async def test_a_run_that_overflows_ends_the_stream_and_nothing_is_lost(
    http: httpx.AsyncClient, database: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "QUEUE_LIMIT", 5)
    ids = {run: start(database, run) for run in "ab"}
    got: list[Got] = []

    async def read() -> None:
        while sum(one.type == "end" for one in got) < 2:
            got.extend([one async for one in combined(http, "a", "b", after=got[-1].id if got else "0,0")])

    async with asyncio.timeout(20):
        reading = asyncio.create_task(read())
        for _ in range(20):
            for execution_id in ids.values():
                await asyncio.to_thread(database.say, execution_id, *"123456")
        for run in ids:
            await asyncio.to_thread(database.observe, RunState(DAG, run, "success"))
        await reading
    for position, execution_id in enumerate(ids.values()):
        assert [one[1:] for one in of_run(got, position)] == [one[1:] for one in log_of(database, execution_id)]
