"""Redis carries wake-ups and is never the source of truth: lost, late and repeated ones are harmless."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest
import redis
from fastapi import FastAPI

from backend.core.events import CHANNEL, NewEvent
from backend.db.address import plain_url
from backend.db.engine import Database, ThreadedDatabase, make_async_engine, make_engine
from backend.db.runs import announcements, events, observations
from backend.db.runs.announcements import STREAM, Announcement
from backend.db.runs.executions import RunState
from backend.services.recording.listener import Notice, Notices
from backend.services.streaming import feed, listen
from tests.kit.airflow import FakeAirflow
from tests.kit.application import application, served
from tests.kit.processes.log_writer import LogWriter
from tests.kit.servers.redis import RedisServer
from tests.kit.streams import DAG, all_of, stream, until
from tests.kit.waiting import eventually

RUN = RunState(DAG, "run", "running")


@pytest.fixture
def writer(database_url: str, redis_server: RedisServer) -> Iterator[LogWriter]:
    with LogWriter(database_url, redis_server.url) as writer:
        yield writer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "RECONNECT_DELAY", 0.1)


@asynccontextmanager
async def backend(database_url: str, server: RedisServer) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    airflow.fail("/dags/~/")  # the runs here are not Airflow's
    async with (
        application(database_url, airflow, redis_url=server.url) as app,
        served(app) as address,
        httpx.AsyncClient(base_url=address, timeout=20) as http,
    ):
        await eventually(app.state.application.health.feed_connected)
        yield app, http


@pytest.fixture
async def http(database_url: str, redis_server: RedisServer) -> AsyncIterator[httpx.AsyncClient]:
    async with backend(database_url, redis_server) as (_, http):
        yield http


async def test_wakeups_carry_the_events(
    database_url: str, redis_server: RedisServer, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SWEEP_INTERVAL", 3600)
    execution_id = writer.observe(RUN)
    read = events.read_many_after
    calls: list[dict[str, int]] = []

    def counted(connection: Any, cursors: dict[str, int], *, per_execution: int) -> Any:
        calls.append(cursors)
        return read(connection, cursors, per_execution=per_execution)

    monkeypatch.setattr(events, "read_many_after", counted)
    async with backend(database_url, redis_server) as (_, http), aclosing(stream(http)) as frames:
        await until(frames, 1)
        await eventually(lambda: calls)  # a new channel reads the log once
        with psycopg.connect(plain_url(database_url), autocommit=True) as listener:
            listener.execute(f"LISTEN {CHANNEL}")
            last = [writer.say(execution_id, f"{number}", "and again") for number in range(20)][-1]
            writer.observe(RunState(DAG, "run", "success"))
            got = await all_of(frames)
            assert not list(listener.notifies(timeout=0.1)), "Postgres does not notify"
    assert [frame.id for frame in got] == [str(seq) for seq in range(3, last + 3)]
    assert [frame.type for frame in got[-2:]] == ["workflow_update", "end"]
    assert len(calls) == 1, "the feed does not read the log again"


async def test_large_events_are_read_from_the_log(http: httpx.AsyncClient, writer: LogWriter) -> None:
    execution_id = writer.observe(RUN)
    large = [letter * (announcements.CONTENT_LIMIT // 2 + 1) for letter in "xy"]
    async with aclosing(stream(http)) as frames:
        await until(frames, 1)
        writer.run(events.append, execution_id, [NewEvent("token", {"text": text}) for text in large])
        assert [frame.data["text"] for frame in await until(frames, 2)] == large


async def test_late_repeated_and_reordered_announcements_are_harmless(
    http: httpx.AsyncClient, redis_server: RedisServer, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = writer.observe(RUN)
    assert writer.announcer is not None
    publish = writer.announcer.publish
    held: list[Announcement] = []

    def hold(announcements: Sequence[Announcement]) -> bool:
        held.extend(announcements)
        return True

    monkeypatch.setattr(writer.announcer, "publish", hold)
    async with aclosing(stream(http)) as frames:
        await until(frames, 1)
        for number in range(6):
            writer.say(execution_id, f"{number}")
        for index in (3, 0, 0, 5, 1, 4, 2, 3):
            publish([held[index]])
        assert [frame.data["text"] for frame in await until(frames, 6)] == list("012345")
        with redis.Redis.from_url(redis_server.url) as client:
            client.xadd(STREAM, {"something": "else"})
            client.xadd(STREAM, {"id": execution_id, "first": "9", "last": "9", "events": "no JSON"})
        monkeypatch.undo()
        writer.say(execution_id, "the last")
        assert [(frame.id, frame.data["text"]) for frame in await until(frames, 1)] == [("9", "the last")]


async def test_a_writer_that_dies_before_its_announcement_only_delays_events(
    database_url: str, redis_server: RedisServer, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SWEEP_INTERVAL", 0.2)
    assert writer.announcer is not None
    async with backend(database_url, redis_server) as (_, http):
        execution_id = writer.observe(RUN)
        async with aclosing(stream(http)) as frames:
            await until(frames, 1)
            monkeypatch.setattr(writer.announcer, "publish", lambda _: True)
            writer.say(execution_id, "unheard of")
            assert [frame.data["text"] for frame in await until(frames, 1)] == ["unheard of"]


async def test_postgres_takes_over_while_redis_is_down(
    database_url: str, redis_server: RedisServer, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "SWEEP_INTERVAL", 3600)
    monkeypatch.setattr(announcements, "_PAUSE", 0.5)
    execution_id = writer.observe(RUN)
    async with backend(database_url, redis_server) as (app, http), aclosing(stream(http)) as frames:
        await until(frames, 1)
        for turn in range(2):
            redis_server.kill()
            await eventually(lambda: not app.state.application.health.feed_connected())
            health = await app.state.application.health.system()
            assert health.components["event_feed"].status == "degraded"
            assert "Redis" in health.components["event_feed"].reason
            for text in ("one", "two", "three"):  # the first finds out, the others go by Postgres at once
                await asyncio.to_thread(writer.say, execution_id, f"{text} {turn}")
                assert [frame.data["text"] for frame in await until(frames, 1)] == [f"{text} {turn}"]
            redis_server.start()
            await eventually(app.state.application.health.feed_connected)
            await asyncio.to_thread(writer.say, execution_id, "at once")
            assert [frame.data["text"] for frame in await until(frames, 1)] == ["at once"]
            await asyncio.sleep(0.6)  # the writer tries Redis again
        writer.observe(RunState(DAG, "run", "success"))
        assert [frame.type for frame in await all_of(frames)] == ["workflow_update", "end"]


async def test_a_backend_starts_without_redis(database_url: str, redis_server: RedisServer, writer: LogWriter) -> None:
    execution_id = writer.observe(RUN)
    redis_server.kill()
    airflow = FakeAirflow()
    airflow.fail("/dags/~/")
    async with (
        application(database_url, airflow, redis_url=redis_server.url) as app,
        served(app) as address,
        httpx.AsyncClient(base_url=address) as http,
        aclosing(stream(http)) as frames,
    ):
        await until(frames, 1)
        await asyncio.to_thread(writer.say, execution_id, "hello")
        assert [frame.data["text"] for frame in await until(frames, 1)] == ["hello"]
        redis_server.start()
        await eventually(app.state.application.health.feed_connected)


@pytest.mark.parametrize("kind", ["tasks", "triggerer", "listener"])
async def test_every_writer_announces(database_url: str, redis_server: RedisServer, kind: str) -> None:
    """Airflow's processes write in three ways."""
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client, ExitStack() as stack:
        if kind == "listener":
            notices = Notices(database_url, redis_server.url)
            notices.put(Notice(RUN))
            assert await asyncio.to_thread(notices.flush, 10)
        else:
            database: Database
            if kind == "tasks":
                database = Database(make_async_engine(database_url, application="test", pool_size=1), redis_server.url)
            else:
                engine = make_engine(database_url, application="test", pool_size=1)
                stack.callback(engine.dispose)
                database = ThreadedDatabase(engine, threads=1, redis_url=redis_server.url)
            await database.run(observations.observe, RUN)
            await database.close()
        told = [(fields["first"], fields["last"]) for _, fields in client.xrange(STREAM)]
    assert told == [("1", "1"), ("2", "2")], "queued, and then running"
