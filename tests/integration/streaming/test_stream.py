"""Streams over a real server and real connections: no event is lost or repeated, whatever fails."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from httpx_sse import aconnect_sse
from sqlalchemy import Connection, text

from backend.core.states import TaskState
from backend.db.address import plain_url
from backend.db.engine import Database
from backend.db.runs import events
from backend.db.runs.executions import RunState
from backend.services.recording.retention import EventRetention
from backend.services.streaming import listen, subscriptions
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of, make_settings, served, sign_in
from tests.kit.processes.log_writer import LogWriter
from tests.kit.streams import DAG, Got, Parser, all_of, stream, until
from tests.kit.waiting import eventually


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    airflow.fail("/dags/~/")  # the runs here are not Airflow's
    return airflow


@pytest.fixture
async def app(database_url: str, airflow: FakeAirflow, redis_url: str | None) -> AsyncIterator[FastAPI]:
    async with application(database_url, airflow, stream_heartbeat=0.3, redis_url=redis_url) as app:
        await eventually(app.state.application.health.feed_connected)
        yield app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None)
    async with served(app) as address, httpx.AsyncClient(base_url=address, limits=limits, timeout=20) as http:
        yield http


@pytest.fixture
def database(database_url: str, redis_url: str | None) -> Iterator[LogWriter]:
    with LogWriter(database_url, redis_url) as writer:
        yield writer


def observe(database: LogWriter, state: str | None, *tasks: TaskState, run_id: str = "run", **more: Any) -> str:
    return database.observe(RunState(DAG, run_id, state, **more), *tasks)


def task(state: str, task_id: str = "work") -> TaskState:
    return TaskState(task_id, -1, 1, state)


def say(database: LogWriter, execution_id: str, *texts: str) -> None:
    database.say(execution_id, *texts)


def stored(database: LogWriter, execution_id: str) -> list[Got]:
    """The log as a client should receive it."""

    def read(connection: Connection) -> list[Got]:
        log = events.read_after(connection, execution_id, 0, limit=100_000)
        return [Got(str(event.seq), event.type, event.payload) for event in log]

    with database.engine.connect() as connection:
        return read(connection)


def whole_run(database: LogWriter) -> str:
    execution_id = observe(database, "queued")
    observe(database, "running")
    observe(database, None, task("running"))
    say(database, execution_id, "a", "b\nc: d\r\n\nid: 7", "ü\u2028🙂\x85")
    observe(database, None, task("success"))
    observe(database, "success")
    return execution_id


async def test_a_stream_starts_with_the_current_state(http: httpx.AsyncClient, database: LogWriter) -> None:
    execution_id = observe(database, "running", task("success", "first"), task("running", "second"))
    say(database, execution_id, "said before")
    async with aclosing(stream(http)) as frames:
        first = await until(frames, 3)
        assert [(got.type, got.data.get("task_id"), got.data["state"]) for got in first] == [
            ("workflow_update", None, "running"),
            ("task_update", "first", "success"),
            ("task_update", "second", "running"),
        ]
        assert [got.id for got in first] == [None, None, stored(database, execution_id)[-1].id]
        say(database, execution_id, "said after")
        assert await until(frames, 1) == stored(database, execution_id)[-1:]


async def test_live_events_are_those_of_the_log(http: httpx.AsyncClient, database: LogWriter) -> None:
    execution_id = observe(database, "queued")
    parser = Parser()
    async with aclosing(stream(http, parser=parser)) as frames:
        assert [got.id for got in await until(frames, 1)] == ["1"]
        assert parser.retry == 2000
        whole_run(database)
        rest = await all_of(frames)
    assert rest == stored(database, execution_id)[1:]
    assert (rest[-2].type, rest[-1].type, rest[-1].data) == ("workflow_update", "end", {"state": "success"})
    assert parser.retry == 3_600_000, "a browser must not come back at once"


async def test_every_cursor_receives_exactly_the_rest(http: httpx.AsyncClient, database: LogWriter) -> None:
    execution_id = whole_run(database)
    log = stored(database, execution_id)
    for cursor in range(len(log)):
        assert await all_of(stream(http, cursor)) == log[cursor:]
    assert await all_of(stream(http, len(log))) == [Got(None, "end", {"state": "success"})]


async def test_an_independent_parser_reads_the_same(http: httpx.AsyncClient, database: LogWriter) -> None:
    log = stored(database, whole_run(database))
    path = f"/workflow-status/stream/{DAG}/run"
    async with aconnect_sse(http, "GET", path, params={"last_event_id": "0"}) as source:
        read = [Got(sse.id, sse.event, sse.json()) async for sse in source.aiter_sse()]
    assert read == log


async def test_the_header_takes_precedence_over_the_query(http: httpx.AsyncClient, database: LogWriter) -> None:
    """A browser that reconnects requests the original URL again."""
    log = stored(database, whole_run(database))
    path = f"/workflow-status/stream/{DAG}/run?last_event_id=0"
    async with aconnect_sse(http, "GET", path, headers={"Last-Event-ID": "3"}) as source:
        assert [sse.id async for sse in source.aiter_sse()] == [got.id for got in log[3:]]


async def test_a_running_run_can_be_resumed_at_every_cursor(http: httpx.AsyncClient, database: LogWriter) -> None:
    execution_id = observe(database, "running")
    say(database, execution_id, *"abc")
    streams = [stream(http, cursor) for cursor in range(6)]
    reading = [asyncio.create_task(all_of(frames)) for frames in streams]
    await asyncio.sleep(0.2)
    say(database, execution_id, *"de")
    observe(database, "failed")
    log = stored(database, execution_id)
    for cursor, got in enumerate(await asyncio.gather(*reading)):
        assert got == log[cursor:]


async def test_a_finished_run_is_sent_as_state_and_end(http: httpx.AsyncClient, database: LogWriter) -> None:
    execution_id = whole_run(database)
    log = stored(database, execution_id)
    got = await all_of(stream(http))
    assert [frame.type for frame in got] == ["workflow_update", "task_update", "end"]
    assert (got[0].data["state"], got[0].data["progress"]) == ("success", 100)
    assert [frame.id for frame in got] == [None, log[-2].id, log[-1].id]
    assert await all_of(stream(http, got[1].id)) == log[-1:], "a client that missed the end receives just that"


async def test_a_cleared_run_continues_after_its_end(http: httpx.AsyncClient, database: LogWriter) -> None:
    execution_id = whole_run(database)
    end = len(stored(database, execution_id))
    observe(database, "running")
    async with aclosing(stream(http, end)) as frames:
        assert (await until(frames, 1))[0].data["attempt"] == 2
        observe(database, "failed")
        assert (await all_of(frames))[-1].data == {"state": "failed"}


@pytest.mark.parametrize(("cursor", "lost"), [(0, (1, 4)), (3, (4, 4)), (4, None), (5, None)])
async def test_pruned_events_are_reported_as_a_gap(
    http: httpx.AsyncClient, database: LogWriter, cursor: int, lost: tuple[int, int] | None
) -> None:
    execution_id = whole_run(database)
    log = stored(database, execution_id)
    with database.engine.begin() as connection:
        connection.execute(text("DELETE FROM visual_ai.workflow_events WHERE seq <= 4"))
        connection.execute(text("UPDATE visual_ai.workflow_executions SET pruned_seq = 4"))
    got = await all_of(stream(http, cursor))
    if lost is None:
        assert got == log[cursor:]
    else:
        assert got[0] == Got("4", "gap", {"from": lost[0], "to": lost[1]})
        assert got[1:] == log[4:]


async def test_old_events_are_pruned(
    http: httpx.AsyncClient, database: LogWriter, app: FastAPI, database_url: str
) -> None:
    execution_id = whole_run(database)
    observe(database, "running", run_id="goes on")
    observe(database, "success", run_id="of today")
    with database.engine.begin() as connection:
        connection.execute(
            text("UPDATE visual_ai.workflow_executions SET finished_at = now() - interval '40 days' WHERE id = :id"),
            {"id": execution_id},
        )
    log = stored(database, execution_id)
    retention = EventRetention(make_settings(database_url), Database(app.state.application.database.engine))
    assert await retention.prune() == len(log) - 2
    assert await retention.prune() == 0
    assert [got.type for got in await all_of(stream(http, 0))] == ["gap", "workflow_update", "end"]
    assert await all_of(stream(http, len(log) - 2)) == log[-2:]
    assert [got.type for got in await all_of(stream(http))] == ["workflow_update", "task_update", "end"]
    assert [got.id for got in await all_of(stream(http, 0, run_id="of today"))] == ["1", "2", "3"]


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "9" * 30, "١"])
async def test_an_invalid_cursor_is_refused(http: httpx.AsyncClient, database: LogWriter, cursor: str) -> None:
    whole_run(database)
    response = await http.get(f"/workflow-status/stream/{DAG}/run", params={"last_event_id": cursor})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "?last_event_id")


async def test_a_cursor_of_another_database_starts_over(http: httpx.AsyncClient, database: LogWriter) -> None:
    whole_run(database)
    assert [got.type for got in await all_of(stream(http, 9_999))] == ["workflow_update", "task_update", "end"]


async def test_a_long_log_is_read_in_pages(
    http: httpx.AsyncClient, database: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = observe(database, "running")
    say(database, execution_id, *map(str, range(1_200)))
    observe(database, "success")
    assert await all_of(stream(http, 0)) == stored(database, execution_id)


async def test_a_burst_larger_than_a_page_is_delivered_live(http: httpx.AsyncClient, database: LogWriter) -> None:
    execution_id = observe(database, "running")
    async with aclosing(stream(http, 1)) as frames:
        reading = asyncio.create_task(all_of(frames))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(say, database, execution_id, *map(str, range(1_300)))
        await asyncio.to_thread(observe, database, "success")
        assert await reading == stored(database, execution_id)[1:]


async def test_a_hundred_subscribers_receive_what_four_writers_append(
    http: httpx.AsyncClient, app: FastAPI, database: LogWriter
) -> None:
    execution_id = observe(database, "running")
    reading = [asyncio.create_task(all_of(stream(http, 0 if i % 2 else None))) for i in range(100)]

    def write(writer: int) -> None:
        for number in range(40):
            say(database, execution_id, f"{writer}: {number}")

    await eventually(lambda: app.state.application.streams.open_streams >= 50)  # the others come meanwhile
    await asyncio.gather(*(asyncio.to_thread(write, writer) for writer in range(4)))
    observe(database, "success")
    log = stored(database, execution_id)
    assert len(log) == 2 + 160 + 2
    for index, got in enumerate(await asyncio.gather(*reading)):
        if index % 2:
            assert got == log
        else:
            start = int(got[0].id or 0)
            assert got[0].type == "workflow_update"
            assert got[1:] == log[start:]
    assert app.state.application.streams.open_streams == 0


def kill(url: str, application_name: str) -> int:
    """End the connections of an application as a restart of the database would; returns how many."""
    with psycopg.connect(plain_url(url), autocommit=True) as connection:
        return connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [application_name]
        ).rowcount


async def test_a_feed_that_loses_its_connection_loses_nothing(
    pg: Any, app: FastAPI, http: httpx.AsyncClient, database: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "RECONNECT_DELAY", 0.1)
    execution_id = observe(database, "running")
    async with aclosing(stream(http)) as frames:
        await until(frames, 1)
        for number in range(3):
            assert kill(pg.admin_url, "visual_ai_feed") == 1
            say(database, execution_id, f"while nobody listens {number}")
            assert await until(frames, 1) == stored(database, execution_id)[-1:]
            await eventually(app.state.application.health.feed_connected)
        observe(database, "success")
        assert [got.type for got in await all_of(frames)] == ["workflow_update", "end"]


async def test_events_during_a_reconnect_of_the_feed_are_delivered(
    pg: Any, http: httpx.AsyncClient, database: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "RECONNECT_DELAY", 0.1)
    execution_id = observe(database, "running")
    real = psycopg.AsyncConnection.connect

    async def connect(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("application_name") == "visual_ai_feed":
            await asyncio.sleep(0.3)  # the feed has read the log once more, and does not listen yet
            say(database, execution_id, "in between")
        return await real(*args, **kwargs)

    async with aclosing(stream(http)) as frames:
        await until(frames, 1)
        monkeypatch.setattr(psycopg.AsyncConnection, "connect", connect)
        kill(pg.admin_url, "visual_ai_feed")
        async with asyncio.timeout(5):
            assert (await until(frames, 1))[0].data == {"text": "in between"}


async def test_dead_pooled_connections_are_replaced(
    pg: Any, http: httpx.AsyncClient, database: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = observe(database, "running")
    async with aclosing(stream(http)) as frames:
        await until(frames, 1)
        await asyncio.sleep(0.2)
        assert kill(pg.admin_url, "visual_ai_backend") >= 1
        say(database, execution_id, "still told")
        assert (await until(frames, 1))[0].data == {"text": "still told"}


async def test_a_slow_subscriber_is_dropped_and_resumes(
    http: httpx.AsyncClient,
    app: FastAPI,
    database: LogWriter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(subscriptions, "QUEUE_LIMIT", 50)
    execution_id = observe(database, "running")
    streams = app.state.application.streams
    async with aclosing(stream(http)) as slow, aclosing(stream(http)) as fast:
        got = await until(slow, 1)
        await until(fast, 1)
        reading = asyncio.create_task(until(fast, 400))
        for number in range(100):  # more than the sockets' buffers take
            texts = [f"{number} {part} " + "x" * 50_000 for part in range(4)]
            await asyncio.to_thread(say, database, execution_id, *texts)
        assert [frame.id for frame in await reading] == [str(seq) for seq in range(3, 403)]
        with suppress(httpx.RemoteProtocolError):
            async for frame in slow:
                got.append(frame)
        assert 1 < len(got) < 400, "the slow client was dropped"
        await eventually(lambda: streams.open_streams == 1)
        observe(database, "success")
        assert [frame.type for frame in await all_of(fast)] == ["workflow_update", "end"]
    got += await all_of(stream(http, got[-1].id))
    assert got[1:] == stored(database, execution_id)[2:]
    assert caplog.text == "", "being slow is not an error"


async def test_a_stream_ends_when_its_client_disconnects(
    http: httpx.AsyncClient, app: FastAPI, database: LogWriter
) -> None:
    observe(database, "running")
    streams = app.state.application.streams
    async with aclosing(stream(http)) as frames:
        await until(frames, 1)
        assert streams.open_streams == 1
    await eventually(lambda: not streams.open_streams)


async def test_a_quiet_stream_sends_heartbeats(http: httpx.AsyncClient, database: LogWriter) -> None:
    execution_id = observe(database, "running")
    parser = Parser()
    async with aclosing(stream(http, parser=parser)) as frames:
        await until(frames, 1)
        await asyncio.sleep(1)
        say(database, execution_id, "at last")
        assert (await until(frames, 1))[0].data == {"text": "at last"}
    assert parser.comments[:2] == ["keep-alive", "keep-alive"]


@pytest.mark.parametrize(
    ("username", "sees"), [("ulla", True), ("uwe", False), ("victor", True), ("otto", True), ("anna", True)]
)
async def test_another_users_run_is_not_found(
    http: httpx.AsyncClient, database: LogWriter, username: str, sees: bool
) -> None:
    observe(database, "success", user="ulla")
    headers = await sign_in(http, username)
    for path in (f"/workflow-status/stream/{DAG}/run", f"/workflow-status/{DAG}/run"):
        response = await http.get(path, headers=headers)
        assert response.status_code == (200 if sees else 404)
        if not sees:
            unknown = await http.get(path.replace("/run", "/none"), headers=headers)
            assert unknown.json() == response.json(), "the response is that for an unknown run"
    listed = (await http.get("/workflow-status", headers=headers)).json()["executions"]
    assert len(listed) == sees


async def test_streams_need_a_token_in_production(
    database_url: str, airflow: FakeAirflow, database: LogWriter, redis_url: str | None
) -> None:
    observe(database, "success")
    async with application(database_url, airflow, redis_url=redis_url, **PRODUCTION) as app, client_of(app) as http:
        path = f"/workflow-status/stream/{DAG}/run"
        assert (await http.get(path)).status_code == 401
        response = await http.post("/auth/token", json={"username": "anna", "password": "correct horse"})
        assert response.status_code == 200
        assert (await http.get(path)).status_code == 200, "the cookie is enough, for EventSource sends no header"


async def test_too_many_streams_are_refused(
    database_url: str, airflow: FakeAirflow, database: LogWriter, redis_url: str | None
) -> None:
    observe(database, "running")
    async with (
        application(database_url, airflow, redis_url=redis_url, streams_per_user=2) as app,
        served(app) as address,
        httpx.AsyncClient(base_url=address) as http,
        aclosing(stream(http)) as first,
        aclosing(stream(http)) as second,
    ):
        await until(first, 1)
        await until(second, 1)
        response = await http.get(f"/workflow-status/stream/{DAG}/run")
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) > 0


async def test_a_stream_ends_when_its_token_expires(
    database_url: str, airflow: FakeAirflow, database: LogWriter, redis_url: str | None
) -> None:
    observe(database, "running")
    async with (
        application(database_url, airflow, redis_url=redis_url, token_lifetime=3, stream_heartbeat=0.1) as app,
        served(app) as address,
        httpx.AsyncClient(base_url=address) as http,
    ):
        headers = await sign_in(http, "anna")
        assert len(await all_of(stream(http, headers=headers))) == 1


def sequence(got: Sequence[Got]) -> list[str | None]:
    return [frame.id for frame in got]


async def test_two_backends_deliver_the_same_events(
    database_url: str, airflow: FakeAirflow, database: LogWriter, redis_url: str | None
) -> None:
    execution_id = observe(database, "running")
    async with (
        application(database_url, airflow, redis_url=redis_url) as one,
        application(database_url, airflow, redis_url=redis_url) as another,
        served(one) as address,
        served(another) as other_address,
        httpx.AsyncClient(base_url=address) as http,
        httpx.AsyncClient(base_url=other_address) as other,
    ):
        reading = [asyncio.create_task(all_of(stream(client, 0))) for client in (http, other)]
        await asyncio.sleep(0.3)
        say(database, execution_id, *"abc")
        observe(database, "success")
        first, second = await asyncio.gather(*reading)
    assert first == second == stored(database, execution_id)
    assert sequence(first) == [str(seq) for seq in range(1, 8)]
