"""What streams cost, how many a user may have, and how they end: with the token, at a limit, with the process."""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from backend.api import event_stream
from backend.core.events import NewEvent
from backend.db.runs import events, executions
from backend.db.runs.announcements import OPTION
from backend.db.runs.executions import RunState
from backend.services.runs import status as status_module
from backend.services.streaming.sse import Frame
from backend.services.streaming.subscriptions import QUEUE_BYTES, QUEUE_LIMIT, Channel, Subscription
from tests.kit.airflow import FakeAirflow
from tests.kit.application import application, served, sign_in
from tests.kit.processes.backend import BackendProcess, environment
from tests.kit.processes.log_writer import LogWriter
from tests.kit.servers.airflow import AirflowServer
from tests.kit.sse_client import Message, StreamProtocol, open_stream, path_of
from tests.kit.streams import DAG, Parser, all_of, stream, until
from tests.kit.waiting import eventually

PATH = path_of(DAG, "run")
RUN = RunState(DAG, "run", "running")
HEAD = executions.Head("id", DAG, "run", None, None, "running", 10, 0)


@pytest.fixture
def airflow() -> FakeAirflow:
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    airflow.fail("/dags/~/")  # the runs here are not Airflow's
    return airflow


@pytest.fixture
def writer(database_url: str) -> Iterator[LogWriter]:
    with LogWriter(database_url) as writer:
        yield writer


@asynccontextmanager
async def backend(
    database_url: str, airflow: FakeAirflow, **changes: Any
) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    limits = httpx.Limits(max_connections=None)
    async with (
        application(database_url, airflow, **changes) as app,
        served(app) as address,
        httpx.AsyncClient(base_url=address, timeout=20, limits=limits) as http,
    ):
        await eventually(app.state.application.health.feed_connected)
        yield app, http


def count(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[str]:
    """A list that grows by one entry for each call of the module's function."""
    real: Callable[..., Any] = getattr(module, name)
    calls: list[str] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return calls


async def test_hundreds_of_simultaneous_clients_cost_a_few_queries(
    database_url: str, airflow: FakeAirflow, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = writer.observe(RUN)
    writer.say(execution_id, *"abc")
    async with backend(database_url, airflow) as (app, http):
        snapshots = count(monkeypatch, status_module, "read_snapshot")
        heads = count(monkeypatch, executions, "heads")
        pages = count(monkeypatch, events, "read_after")
        address, received = str(http.base_url).rstrip("/"), list[Message]()
        opened = await asyncio.gather(
            *(open_stream(address, PATH, received.append, cursor=1 if index % 2 else None) for index in range(200))
        )
        await eventually(lambda: len(received) == 100 + 100 * 4)
        assert len(snapshots) <= 3
        assert len(pages) <= 3
        assert len(heads) < 20, "simultaneous look-ups share a query"
        assert app.state.application.streams.open_streams == 200
        for one in opened:
            close(one)


async def test_a_client_that_reconnects_is_served_from_memory(
    database_url: str, airflow: FakeAirflow, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = writer.observe(RUN)
    async with backend(database_url, airflow) as (_, http), aclosing(stream(http)) as watching:
        await until(watching, 1)
        writer.say(execution_id, *"abcd")
        await until(watching, 4)
        asked = [count(monkeypatch, events, "read_after"), count(monkeypatch, executions, "heads")]
        async with aclosing(stream(http, 4)) as again:
            assert [frame.data["text"] for frame in await until(again, 2)] == ["c", "d"]
        assert asked == [[], []]


async def test_a_cursor_ahead_of_this_replica_loses_nothing(
    database_url: str, airflow: FakeAirflow, writer: LogWriter
) -> None:
    """Another replica has delivered an event that this one has not received yet."""
    execution_id = writer.observe(RUN)
    async with backend(database_url, airflow) as (_, http), aclosing(stream(http)) as watching:
        await until(watching, 1)
        with writer.engine.connect().execution_options(**{OPTION: []}) as connection, connection.begin():
            assert events.append(connection, execution_id, [NewEvent("token", {"text": "unheard of"})]) == 3
        async with aclosing(stream(http, 3)) as ahead:
            reading = asyncio.create_task(until(ahead, 1))
            await asyncio.sleep(0.2)
            writer.say(execution_id, "next")
            assert [(frame.id, frame.data["text"]) for frame in await reading] == [("4", "next")]
        assert [frame.id for frame in await until(watching, 2)] == ["3", "4"]


async def test_a_restarted_run_is_not_mistaken_for_finished(
    database_url: str, airflow: FakeAirflow, writer: LogWriter
) -> None:
    """All clients connect within a moment of each other."""
    async with backend(database_url, airflow) as (_, http):
        for attempt in range(1, 4):
            writer.observe(RUN)
            writer.observe(RunState(DAG, "run", "failed"))
            over = await all_of(stream(http))
            assert [frame.type for frame in over] == ["workflow_update", "end"]
            assert over[0].data["attempt"] == attempt
            assert [frame.type for frame in await all_of(stream(http, over[-1].id))] == ["end"]
            writer.observe(RUN)
            async with aclosing(stream(http)) as anew, aclosing(stream(http, over[-1].id)) as on:
                for [frame] in (await until(anew, 1), await until(on, 1)):
                    assert (frame.data["state"], frame.data["attempt"]) == ("running", attempt + 1)


async def test_the_streams_of_a_user_are_limited(database_url: str, airflow: FakeAirflow, writer: LogWriter) -> None:
    writer.observe(RUN)
    async with backend(database_url, airflow, streams_per_user=5) as (app, http):
        anna, otto = await sign_in(http, "anna"), await sign_in(http, "otto")
        path = f"{http.base_url}".rstrip("/")
        token = anna["Authorization"].removeprefix("Bearer ")
        opened = await asyncio.gather(*(open_stream(path, PATH, lambda _: None, token=token) for _ in range(30)))
        await eventually(lambda: all(one.status for one in opened))
        statuses = sorted(one.status or 0 for one in opened)
        assert statuses == [200] * 5 + [429] * 25, "however many connect at the same moment"
        refused = await http.get(PATH, headers=anna)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
        async with aclosing(stream(http, headers=otto)) as others:
            await until(others, 1)
        for one in opened:
            assert one.transport is not None
            one.transport.abort()
        await eventually(lambda: app.state.application.streams.open_streams == 0)
        async with aclosing(stream(http, headers=anna)) as again:
            await until(again, 1)


async def test_the_streams_of_a_process_are_limited(database_url: str, airflow: FakeAirflow, writer: LogWriter) -> None:
    writer.observe(RUN)
    async with (
        backend(database_url, airflow, streams_per_process=2) as (_, http),
        aclosing(stream(http)) as first,
        aclosing(stream(http)) as second,
    ):
        await until(first, 1)
        await until(second, 1)
        refused = await http.get(PATH, headers=await sign_in(http, "anna"))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        assert refused.headers["content-type"] == "application/problem+json"


async def test_an_expired_token_ends_quiet_and_busy_streams(
    database_url: str, airflow: FakeAirflow, writer: LogWriter
) -> None:
    """Even if events arrive all the time, and long before the next heartbeat is due."""
    execution_id = writer.observe(RUN)
    async with backend(database_url, airflow, token_lifetime=2) as (_, http):
        headers = await sign_in(http, "anna")
        expires = int(time.time()) + 2
        parsers = Parser(), Parser()
        quiet = asyncio.create_task(all_of(stream(http, headers=headers, parser=parsers[0])))
        busy = asyncio.create_task(all_of(stream(http, headers=headers, parser=parsers[1])))
        while not busy.done():
            await asyncio.to_thread(writer.say, execution_id, "and so on")
            assert time.time() < expires + 5
        await quiet
        assert time.time() >= expires - 1
        for parser in parsers:
            assert "expired" in parser.comments[-1]
        again = await http.get(PATH, headers={**headers, "Last-Event-ID": "5"})
        assert again.status_code == 401


async def test_a_client_that_reads_nothing_is_disconnected(
    database_url: str, airflow: FakeAirflow, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "SEND_TIMEOUT", 0.5)
    execution_id = writer.observe(RUN)
    async with backend(database_url, airflow) as (app, http):
        streams = app.state.application.streams
        with socket.create_connection((http.base_url.host, http.base_url.port or 0)) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await eventually(lambda: streams.open_streams == 1)
            for _ in range(60):
                await asyncio.to_thread(writer.say, execution_id, *["x" * 50_000] * 4)
            await eventually(lambda: streams.open_streams == 0)
        assert streams.dropped == 1


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux shows the timers of connections")
async def test_a_host_that_vanishes_is_noticed_within_a_minute(
    database_url: str, airflow: FakeAirflow, writer: LogWriter
) -> None:
    execution_id = writer.observe(RUN)
    async with backend(database_url, airflow) as (app, http):
        streams, port = app.state.application.streams, http.base_url.port or 0
        with socket.create_connection((http.base_url.host, port)) as silent:
            silent.sendall(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await eventually(lambda: streams.open_streams == 1)
            await asyncio.to_thread(writer.say, execution_id, "x")
            mine, peer = f":{port:04X}", f":{silent.getsockname()[1]:04X}"
            table = await asyncio.to_thread(Path("/proc/net/tcp").read_text)
            lines = [line.split() for line in table.splitlines()[1:]]
            (timer,) = [line[5] for line in lines if line[1].endswith(mine) and line[2].endswith(peer)]
        kind, _, left = timer.partition(":")
        assert kind == "02", "the keep-alive timer"
        assert int(left, 16) <= 20 * 100, "hundredths of a second"


def frames(count: int, size: int = 10, start: int = 1) -> list[Frame]:
    return [Frame(seq, "token", b"x" * size) for seq in range(start, start + count)]


@pytest.mark.parametrize(
    ("bursts", "lost"),
    [
        ([frames(QUEUE_LIMIT)], False),
        ([frames(QUEUE_LIMIT), frames(1)], True),
        ([frames(1, QUEUE_BYTES * 2)], False),
        ([frames(1, QUEUE_BYTES - 5), frames(1, 6)], True),
        ([frames(1)] * (QUEUE_LIMIT + 1), True),
    ],
)
async def test_a_queue_is_bounded(bursts: list[list[Frame]], lost: bool) -> None:
    subscription = Subscription(Channel(HEAD))
    for burst in bursts:
        subscription.push(burst)
    assert (subscription.closed, subscription.overflowed) == (lost, lost)
    taken = await subscription.take(0.01)
    assert len(taken) == (0 if lost else sum(map(len, bursts)))
    subscription.push(frames(1))
    assert len(await subscription.take(0.01)) == (0 if lost else 1)


def test_a_channel_keeps_recent_events_within_its_share() -> None:
    channel = Channel(HEAD)
    assert channel.since(10) == []
    assert channel.since(9) is None
    channel.extend(frames(10, size=100, start=11), share=500)
    assert channel.since(15) == frames(5, size=100, start=16)
    assert channel.since(14) is None
    channel.extend(frames(3, size=100, start=18), share=500)
    assert channel.cursor == 20, "what was received is not received again"


async def test_a_process_that_shuts_down_asks_its_clients_to_reconnect(
    pg: Any, database_url: str, writer: LogWriter
) -> None:
    execution_id = writer.observe(RUN)
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    airflow.add_run(DAG, "run", "running")
    received: list[Message] = []
    with AirflowServer(airflow) as server, BackendProcess(environment(pg.backend_url, server.url)) as backend:
        async with httpx.AsyncClient(base_url=backend.url) as http:
            token = (await sign_in(http, "anna"))["Authorization"].removeprefix("Bearer ")
        opened = [await open_stream(backend.url, PATH, received.append, token=token) for _ in range(20)]
        await eventually(lambda: len(received) == 20)
        raw_chunks: list[bytes] = []
        raw = asyncio.create_task(raw_stream(backend.url, token, raw_chunks))
        await eventually(lambda: raw_chunks)
        began = time.monotonic()
        backend.terminate()
        assert await asyncio.to_thread(backend.ended, timeout=10) in (0, -15)
        assert time.monotonic() - began < 3, "shutdown does not wait for streams"
        async with asyncio.timeout(5):
            await asyncio.gather(raw, *(one.closed for one in opened))
        assert not any(one.whole for one in opened), "nobody takes the close for the end of the run"
        assert not re.search("ERROR|Traceback", backend.log.read_text())
        *_, farewell = b"".join(raw_chunks).decode().partition("\n\n")
        [retry] = re.findall(r"^retry: (\d+)$", farewell, re.MULTILINE)
        assert 500 <= int(retry) <= 3000
        assert ": the server is restarting" in farewell
        writer.say(execution_id, "meanwhile")
        backend.start()
        again: list[Message] = []
        stream = await open_stream(backend.url, PATH, again.append, token=token, cursor=received[-1].id)
        await eventually(lambda: again)
        assert [message.id for message in again] == [(received[-1].id or 0) + 1]
        close(stream)


async def raw_stream(url: str, token: str, raw_chunks: list[bytes]) -> None:
    """Read a stream's raw bytes until the server closes it."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    while piece := await reader.read(2**16):
        raw_chunks.append(piece)
    writer.close()


def close(stream: StreamProtocol) -> None:
    with contextlib.suppress(AttributeError):
        stream.transport.abort()  # type: ignore[union-attr]
