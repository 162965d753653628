"""Every component fails, one after the other, and clients still receive each event of the log once and in order.

Backends, PostgreSQL and Redis are separate processes, reached over real connections; Airflow is in memory
behind a real port.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from backend.core.events import NewEvent
from backend.db.address import plain_url
from backend.db.runs import events
from backend.db.runs.executions import RunState, ensure
from backend.stack.postgres import Cluster
from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.processes.backend import BackendProcess, environment
from tests.kit.processes.log_writer import LogWriter
from tests.kit.servers.airflow import AirflowServer
from tests.kit.servers.postgres import migrated_database, running_cluster
from tests.kit.servers.redis import RedisServer
from tests.kit.sse_client import Message, StreamProtocol, open_stream, path_of
from tests.kit.waiting import eventually

DAG = "some_dag"
RUNS = 60
AIRFLOW_DOWN = float(os.environ.get("CHAOS_AIRFLOW_DOWN", "3"))
"""Seconds."""
CLIENTS_A_RUN = 2


@dataclass
class System:
    """The processes that are broken on purpose."""

    cluster: Cluster
    airflow: AirflowServer
    backends: list[BackendProcess]
    writer: LogWriter
    redis: RedisServer | None
    admin_url: str


@pytest.fixture(params=["postgres", "redis"])
def with_redis(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "redis")


@pytest.fixture
def system(with_redis: bool) -> Iterator[System]:
    airflow = FakeAirflow()
    airflow.add_dag(DAG, params={})
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster("chaos"))
        urls = migrated_database(cluster)
        redis = stack.enter_context(RedisServer()) if with_redis else None
        redis_url = redis.url if redis is not None else None
        server = stack.enter_context(AirflowServer(airflow))
        more = {"VISUAL_AI_RECONCILE_INTERVAL": "0.5", "VISUAL_AI_STREAM_HEARTBEAT": "2"}
        backends = [
            BackendProcess(environment(urls.backend_url, server.url, redis_url=redis_url, **more)) for _ in range(3)
        ]
        for backend in backends:
            stack.callback(backend.__exit__, None, None, None)
            backend.launch()
        for backend in backends:
            backend.wait()
        writer = stack.enter_context(LogWriter(urls.worker_url, redis_url))
        yield System(cluster, server, backends, writer, redis, urls.admin_url)


@dataclass
class Client:
    """Follows a run from its first event, on any backend, and reconnects after every loss."""

    run_id: str
    backends: list[BackendProcess]
    token: str
    random: random.Random
    got: list[Message] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stream: StreamProtocol | None = None
    connections: int = 0
    over: bool = False

    def on_message(self, message: Message) -> None:
        last = self.got[-1].id if self.got else 0
        if message.id != (last or 0) + 1:
            self.wrong.append(f"{message.type} {message.id} after {last}")
        self.got.append(message)
        self.over = message.type == "end"

    def break_off(self) -> None:
        if self.stream is not None and self.stream.transport is not None:
            self.stream.transport.abort()

    async def follow(self) -> None:
        while not self.over:
            cursor = self.got[-1].id if self.got else 0
            url = self.random.choice(self.backends).url
            try:
                self.stream = await open_stream(
                    url, path_of(DAG, self.run_id), self.on_message, token=self.token, cursor=cursor
                )
            except OSError:
                await asyncio.sleep(self.random.uniform(0.1, 0.5))
                continue
            self.connections += 1
            await self.stream.closed
            if self.stream.status not in (200, 503, None):
                self.wrong.append(f"was answered {self.stream.status}")
                return
            await asyncio.sleep(self.random.uniform(0.0, 0.3))


class Agents:
    """Append tokens to all runs until stopped, through every failure, as recorders do."""

    def __init__(self, writer: LogWriter, execution_ids: list[str]) -> None:
        self._writer = writer
        self._ids = execution_ids
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.told = 0

    def __enter__(self) -> Agents:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        for number, execution_id in enumerate(itertools.cycle(self._ids)):
            size = 1 + number % 3
            while not self._ended.wait(0.003):
                try:
                    with_text = [NewEvent("token", {"text": f"{number}.{index}"}) for index in range(size)]
                    self._writer.run(events.append, execution_id, with_text)
                except SQLAlchemyError:
                    continue
                self.told += size
                break
            else:
                return


def sign_in(system: System) -> str:
    given = {"username": "anna", "password": PASSWORD}
    answer = httpx.post(f"{system.backends[0].url}/auth/token", json=given, timeout=30, trust_env=False)
    return str(answer.raise_for_status().json()["access_token"])


def log_of(system: System, execution_id: str) -> list[tuple[int, str, Any]]:
    with system.writer.engine.connect() as connection:
        return [(e.seq, e.type, e.payload) for e in events.read_after(connection, execution_id, 0, limit=100_000)]


def leader(system: System) -> BackendProcess | None:
    for backend in system.backends:
        try:
            health = httpx.get(f"{backend.url}/monitoring/system-health", timeout=10, trust_env=False).json()
        except httpx.HTTPError:
            continue
        part = health["components"]["reconciler"]
        if part["status"] == "healthy" and not part["reason"]:
            return backend
    return None


def cut_feeds(system: System) -> int:
    with psycopg.connect(plain_url(system.admin_url), autocommit=True) as connection:
        return connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'visual_ai_feed'"
        ).rowcount


def set_states(system: System, state: str) -> None:
    def change(airflow: FakeAirflow) -> None:
        for number in range(RUNS):
            airflow.set_task(DAG, f"run-{number}", "work", state)
            airflow.set_run(DAG, f"run-{number}", state)

    system.airflow.call(change)


async def restart(backend: BackendProcess) -> None:
    backend.launch()
    await asyncio.to_thread(backend.wait)


async def break_everything(system: System) -> list[str]:
    """Cause one failure after the other; returns what was done."""
    done = []
    first, second, third = system.backends
    first.kill()
    await restart(first)
    done.append("a backend was killed")
    assert await asyncio.to_thread(cut_feeds, system) >= 2
    done.append("feeds lost their connections")
    await asyncio.to_thread(system.airflow.down)
    await asyncio.sleep(AIRFLOW_DOWN)
    await asyncio.to_thread(system.airflow.up)
    done.append("Airflow was down")
    if system.redis is not None:
        system.redis.kill()
        await asyncio.sleep(1)
        await asyncio.to_thread(system.redis.start)
        done.append("Redis lost everything")
    await asyncio.to_thread(system.cluster.stop)
    await asyncio.to_thread(system.cluster.start)
    done.append("Postgres was restarted")
    led: BackendProcess | None = None
    while led is None:
        led = await asyncio.to_thread(leader, system)
    led.kill()
    took_over = None
    while took_over is None or took_over is led:
        took_over = await asyncio.to_thread(leader, system)
    done.append("another leads")
    await restart(led)
    for backend in (second, third):
        backend.terminate()
        await asyncio.to_thread(backend.ended, timeout=20)
        await restart(backend)
    done.append("backends were restarted")
    return done


@asynccontextmanager
async def restless(clients: list[Client]) -> AsyncIterator[None]:
    """Cut the connections of a tenth of the clients twice a second."""

    async def disturb() -> None:
        dice = random.Random(7)
        while True:
            await asyncio.sleep(0.5)
            for client in dice.sample(clients, len(clients) // 10):
                client.break_off()

    task = asyncio.create_task(disturb())
    try:
        yield
    finally:
        task.cancel()


@pytest.mark.timeout(600)
async def test_every_client_receives_the_whole_log(system: System) -> None:
    def start(airflow: FakeAirflow) -> None:
        for number in range(RUNS):
            airflow.add_run(DAG, f"run-{number}", "running", {"work": "running"})

    system.airflow.call(start)
    ids = {
        f"run-{number}": str(system.writer.run(ensure, RunState(DAG, f"run-{number}", "queued")))
        for number in range(RUNS)
    }
    token = sign_in(system)
    clients = [
        Client(run_id, system.backends, token, random.Random(f"{run_id} {copy}"))
        for run_id in ids
        for copy in range(CLIENTS_A_RUN)
    ]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.follow())
        with Agents(system.writer, list(ids.values())) as agents:
            async with restless(clients):
                await eventually(lambda: agents.told >= RUNS, seconds=60)
                done = await break_everything(system)
                told = agents.told
                await eventually(lambda: agents.told >= told + RUNS, seconds=60)
        # Of what follows the listener tells nothing: the reconciler finds it.
        await asyncio.to_thread(set_states, system, "success")
        await eventually(lambda: all(client.over or client.wrong for client in clients), seconds=120)
    assert len(done) == (7 if system.redis is not None else 6)
    assert [client.wrong for client in clients if client.wrong] == []
    assert sum(client.connections for client in clients) > 3 * len(clients), "clients did lose their connections"
    for run_id, execution_id in ids.items():
        log = log_of(system, execution_id)
        assert [seq for seq, _, _ in log] == list(range(1, len(log) + 1))
        assert log[-1][1:] == ("end", {"state": "success"})
        for client in clients:
            if client.run_id == run_id:
                assert [(m.id, m.type, json.loads(m.data)) for m in client.got] == log


KEYS = 100
REQUESTS = 1_000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("with_redis", [False])
async def test_a_thousand_triggers_with_a_hundred_keys_start_a_hundred_runs(system: System) -> None:
    """The responses to a fifth of the triggers are lost between Airflow and a backend, and a backend dies midway."""
    token = sign_in(system)
    system.airflow.drop_answers = 0.2
    answers: dict[str, Counter[str]] = {f"key {number}": Counter() for number in range(KEYS)}
    gate = asyncio.Semaphore(30)
    left = [key for key in answers for _ in range(REQUESTS // KEYS)]
    random.Random(3).shuffle(left)
    dice = random.Random(4)
    answered = 0

    async with httpx.AsyncClient(timeout=30, trust_env=False, headers={"Authorization": f"Bearer {token}"}) as http:

        async def trigger(key: str) -> None:
            nonlocal answered
            body = {"dag_id": DAG, "input_data": {"key": key}}
            async with gate:
                while True:
                    url = f"{dice.choice(system.backends).url}/workflows/trigger"
                    try:
                        response = await http.post(url, json=body, headers={"Idempotency-Key": key})
                    except httpx.TransportError:  # the backend is dead, or died with the request in hand
                        await asyncio.sleep(0.1)
                        continue
                    if response.status_code == 202:
                        break
                    assert response.status_code == 503, response.text
                    assert int(response.headers["retry-after"]) > 0
                    await asyncio.sleep(0.1)
            answers[key][response.json()["dag_run_id"]] += 1
            answered += 1

        async def kill_midway() -> None:
            await eventually(lambda: answered >= REQUESTS // 3, seconds=120)
            system.backends[0].kill()
            await restart(system.backends[0])

        async with asyncio.TaskGroup() as group:
            group.create_task(kill_midway())
            for key in left:
                group.create_task(trigger(key))

    runs = system.airflow.call(lambda airflow: list(airflow.runs))
    assert len(runs) == KEYS, "each key started exactly one run"
    assert all(len(found) == 1 for found in answers.values()), "the same key, the same run"
    assert {(DAG, run_id) for found in answers.values() for run_id in found} == set(runs)
    assert sum(sum(found.values()) for found in answers.values()) == REQUESTS
    deadline = time.monotonic() + 30
    while True:
        with system.writer.engine.connect() as connection:
            counted = connection.execute(text("SELECT count(*) FROM visual_ai.workflow_executions")).scalar_one()
        if counted == KEYS or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    assert counted == KEYS
