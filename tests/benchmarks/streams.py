"""The cost of thousands of stream clients: real connections to one backend process, while events are appended."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

from backend.core.events import NewEvent
from backend.db.address import plain_url
from backend.db.migrate import migrate
from backend.db.runs import events
from backend.db.runs.executions import RunState
from backend.stack.postgres import Cluster
from tests.benchmarks.report import Goal, Result, percentile
from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.processes.backend import BackendProcess, environment
from tests.kit.processes.log_writer import LogWriter
from tests.kit.processes.stack import ROOT, free_port
from tests.kit.servers.airflow import AirflowServer
from tests.kit.servers.redis import RedisServer

DAG_ID = "some_dag"
RUNS = 100
CLIENTS = (1, 100, 1_000, 5_000)
"""From 100 clients on every run is watched."""
SECONDS = 10.0
EVENTS_A_SECOND = 100
"""Appended events per second, of all runs together."""

GOAL_P95_MS = 100.0
GOAL_KIB = 30.0


def measure(*, clients: tuple[int, ...] = CLIENTS, seconds: float = SECONDS) -> Result:
    """Milliseconds from just before an event's commit to its arrival at a client, for growing numbers of clients.

    One backend process; the clients are another process, and Airflow answers from memory. Requests to Airflow and
    transactions in Postgres are the backend's own. At 1,000 clients also with Redis carrying the events.
    """
    figures: dict[str, float] = {}
    samples: dict[str, list[float]] = {}
    with started_system() as system:
        found = {f"{count}_clients": _one(system, count, seconds) for count in clients}
    with started_system(redis=True) as system:
        found["redis_1000_clients"] = _one(system, 1_000, seconds)
    alone = found[f"{clients[0]}_clients"].memory
    for (name, one), count in zip(found.items(), (*clients, 1_000), strict=True):
        for percent in (50, 95, 99):
            figures[f"{name}_p{percent}_ms"] = percentile(one.latencies, percent)
        figures[f"{name}_events_a_second"] = len(one.latencies) / seconds
        figures[f"{name}_connect_s"] = one.connected
        figures[f"{name}_airflow_requests_a_second"] = one.airflow_rate
        figures[f"{name}_postgres_transactions_a_second"] = one.postgres_rate
        figures[f"{name}_backend_cpu_percent"] = one.cpu
        if count >= 1_000 and not name.startswith("redis"):
            figures[f"{name}_kib_a_client"] = (one.memory - alone) / 1024 / (count - 1)
        samples[f"{name}_ms"] = one.latencies
        assert not one.lost, f"{one.lost} clients lost an event"
        assert not one.closed, f"{one.closed} clients were dropped"
    goals = [
        Goal(f"KiB of memory a client, {name}", figures[f"{name}_kib_a_client"], GOAL_KIB)
        for name, count in zip(found, clients, strict=False)
        if count >= 1_000
    ]
    if "1000_clients" in found:
        goals.append(Goal("commit to client at 1,000 clients, p95 ms", figures["1000_clients_p95_ms"], GOAL_P95_MS))
    settings = {"runs": RUNS, "seconds": seconds, "events_a_second": EVENTS_A_SECOND}
    return Result("streams", figures, goals, samples, settings)


@dataclass(frozen=True)
class System:
    """The processes of the benchmark."""

    admin_url: str
    writer: LogWriter
    airflow: AirflowServer
    backend: BackendProcess
    token: str
    execution_ids: list[str]


@dataclass(frozen=True)
class _Found:
    latencies: list[float]
    lost: int
    closed: int
    connected: float
    memory: int
    airflow_rate: float
    postgres_rate: float
    cpu: float


@contextmanager
def started_system(*, runs: int = RUNS, redis: bool = False) -> Iterator[System]:
    """A backend with this many active runs, each with a finished task, a running one and one that has not started."""
    directory = Path(tempfile.mkdtemp(prefix="visual-ai-bench-"))
    cluster = Cluster(directory / "data", free_port(), "bench", report=lambda _: None)
    airflow = FakeAirflow()
    airflow.add_dag(DAG_ID, params={})
    for number in range(runs):
        airflow.add_run(DAG_ID, f"run-{number}", "running", {"a": "success", "b": "running", "c": None})
    try:
        cluster.start()
        cluster.ensure_database("airflow", owner="airflow", password="owner")
        urls = migrate(cluster.url("airflow"))
        with (
            RedisServer() if redis else nullcontext() as carrier,
            LogWriter(urls.worker_url, carrier.url if carrier else None, check=False) as writer,
            AirflowServer(airflow) as server,
            BackendProcess(
                environment(urls.backend_url, server.url, redis_url=carrier.url if carrier else None)
            ) as backend,
        ):
            ids = [writer.observe(RunState(DAG_ID, f"run-{number}", "running")) for number in range(runs)]
            given = {"username": "anna", "password": PASSWORD}
            answer = httpx.post(f"{backend.url}/auth/token", json=given, trust_env=False, timeout=30)
            token = str(answer.raise_for_status().json()["access_token"])
            yield System(cluster.url("airflow"), writer, server, backend, token, ids)
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _one(system: System, clients: int, seconds: float) -> _Found:
    arguments = {
        "url": system.backend.url, "token": system.token, "dag-id": DAG_ID, "runs": RUNS, "clients": clients,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.stream_clients", *(f"--{k}={v}" for k, v in arguments.items())],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        connected = json.loads(process.stdout.readline())["connected_s"]
        memory = system.backend.memory
        ended = threading.Event()
        written: list[float] = []
        writer = threading.Thread(target=_write, args=(system, ended, written))
        writer.start()
        time.sleep(2)
        process.stdin.write("go\n")
        process.stdin.flush()
        before = _counts(system, written)
        time.sleep(seconds)
        process.stdin.write("end\n")
        process.stdin.flush()
        after = _counts(system, written)
        ended.set()
        writer.join()
        found: dict[str, Any] = json.loads(process.stdout.readline())
        memory = max(memory, system.backend.memory)
    finally:
        process.kill()
        process.wait()
    airflow_rate, postgres_rate, cpu = ((late - early) / seconds for early, late in zip(before, after, strict=True))
    return _Found(
        found["latencies"], found["lost"], found["closed"], connected, memory,
        airflow_rate, postgres_rate, cpu * 100,
    )  # fmt: skip


def _write(system: System, ended: threading.Event, written: list[float]) -> None:
    """Append an event to each run in turn, and the time of each to `written`."""
    began, number = time.perf_counter(), 0
    while not ended.is_set():
        execution_id = system.execution_ids[number % RUNS]
        told = NewEvent("token", {"text": "word " * 20, "at": time.time()})
        system.writer.run(events.append, execution_id, [told])
        written.append(time.time())
        number += 1
        wait = began + number / EVENTS_A_SECOND - time.perf_counter()
        if wait > 0:
            time.sleep(wait)


def _counts(system: System, written: list[float]) -> tuple[float, float, float]:
    """Requests to Airflow, transactions in Postgres and seconds of the backend's processor so far.

    The writer's transactions are left out. Postgres counts a second late, which is the same before and after.
    """
    import psutil

    with psycopg.connect(plain_url(system.admin_url), autocommit=True) as connection:
        row = connection.execute(
            "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = 'airflow'"
        ).fetchone()
    assert row is not None
    used = psutil.Process(system.backend.pid).cpu_times()
    return float(system.airflow.requests), float(row[0]) - len(written), used.user + used.system
