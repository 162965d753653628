"""What thousands of watchers cost: real connections to one backend process, while runs tell of themselves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from sqlalchemy import Engine, create_engine

from backend.core.events import NewEvent
from backend.core.jsonable import dumps
from backend.db import events, executions
from backend.db.address import plain_url
from backend.db.executions import RunState
from backend.db.migrate import migrate
from backend.stack.postgres import Cluster
from tests.benchmarks.report import Goal, Result, percentile
from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.airflow_server import AirflowServer
from tests.kit.backend_process import BackendProcess, environment
from tests.kit.stack import ROOT, free_port

DAG_ID = "some_dag"
RUNS = 100
CLIENTS = (1, 1_000, 5_000)
SECONDS = 10.0
EVENTS_A_SECOND = 100
"""Of all runs together."""

GOAL_P95_MS = 100.0
GOAL_KIB = 30.0


def measure(*, clients: tuple[int, ...] = CLIENTS, seconds: float = SECONDS) -> Result:
    """Milliseconds from just before an event's commit to its arrival at a client, for growing numbers of clients.

    One backend process; the clients are another process, and Airflow answers from memory. Requests to Airflow and
    transactions in Postgres are the backend's own.
    """
    figures: dict[str, float] = {}
    samples: dict[str, list[float]] = {}
    goals: list[Goal] = []
    with _system() as system:
        alone = 0
        for count in clients:
            found = _one(system, count, seconds)
            name = f"{count}_clients"
            for percent in (50, 95, 99):
                figures[f"{name}_p{percent}_ms"] = percentile(found.latencies, percent)
            figures[f"{name}_events_a_second"] = len(found.latencies) / seconds
            figures[f"{name}_connect_s"] = found.connected
            figures[f"{name}_airflow_requests_a_second"] = found.airflow_rate
            figures[f"{name}_postgres_transactions_a_second"] = found.postgres_rate
            figures[f"{name}_backend_cpu_percent"] = found.cpu
            samples[f"{name}_ms"] = found.latencies
            assert not found.lost, f"{found.lost} clients lost an event"
            assert not found.closed, f"{found.closed} clients were dropped"
            if count == 1:
                alone = found.memory
            else:
                figures[f"{name}_kib_a_client"] = (found.memory - alone) / 1024 / (count - 1)
                goals.append(Goal(f"KiB of memory a client, of {count}", figures[f"{name}_kib_a_client"], GOAL_KIB))
            if count == 1_000:
                goals.append(Goal("commit to client at 1,000 clients, p95 ms", figures[f"{name}_p95_ms"], GOAL_P95_MS))
    settings = {"runs": RUNS, "seconds": seconds, "events_a_second": EVENTS_A_SECOND}
    return Result("streams", figures, goals, samples, settings)


@dataclass(frozen=True)
class _System:
    """What runs for the whole benchmark."""

    admin_url: str
    engine: Engine
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
def _system() -> Iterator[_System]:
    directory = Path(tempfile.mkdtemp(prefix="visual-ai-bench-"))
    cluster = Cluster(directory / "data", free_port(), "bench", tell=lambda _: None)
    airflow = FakeAirflow()
    airflow.add_dag(DAG_ID, params={})
    for number in range(RUNS):
        airflow.add_run(DAG_ID, f"run-{number}", "running", {"a": "success", "b": "running", "c": None})
    try:
        cluster.start()
        cluster.ensure_database("airflow", owner="airflow", password="owner")
        urls = migrate(cluster.url("airflow"))
        engine = create_engine(urls.worker_url, json_serializer=dumps)
        with engine.begin() as connection:
            ids = [
                executions.observe(connection, RunState(DAG_ID, f"run-{number}", "running")) for number in range(RUNS)
            ]
        with (
            AirflowServer(airflow) as server,
            BackendProcess(environment(urls.backend_url, server.url)) as backend,
        ):
            given = {"username": "anna", "password": PASSWORD}
            answer = httpx.post(f"{backend.url}/auth/token", json=given, trust_env=False, timeout=30)
            token = str(answer.raise_for_status().json()["access_token"])
            yield _System(cluster.url("airflow"), engine, server, backend, token, ids)
        engine.dispose()
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _one(system: _System, clients: int, seconds: float) -> _Found:
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
        writer = threading.Thread(target=_write, args=(system, ended))
        writer.start()
        time.sleep(2)
        process.stdin.write("go\n")
        process.stdin.flush()
        before = _counts(system)
        time.sleep(seconds)
        process.stdin.write("end\n")
        process.stdin.flush()
        after = _counts(system)
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
        airflow_rate, postgres_rate - EVENTS_A_SECOND, cpu * 100,
    )  # fmt: skip


def _write(system: _System, ended: threading.Event) -> None:
    """Append an event to each run in turn."""
    began, number = time.perf_counter(), 0
    while not ended.is_set():
        execution_id = system.execution_ids[number % RUNS]
        with system.engine.begin() as connection:
            events.append(connection, execution_id, [NewEvent("token", {"text": "word " * 20, "at": time.time()})])
        number += 1
        wait = began + number / EVENTS_A_SECOND - time.perf_counter()
        if wait > 0:
            time.sleep(wait)


def _counts(system: _System) -> tuple[float, float, float]:
    """Requests to Airflow, transactions in Postgres and seconds of the backend's processor so far."""
    import psutil

    with psycopg.connect(plain_url(system.admin_url), autocommit=True) as connection:
        row = connection.execute(
            "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database WHERE datname = 'airflow'"
        ).fetchone()
    assert row is not None
    used = psutil.Process(system.backend.pid).cpu_times()
    return float(system.airflow.requests), float(row[0]), used.user + used.system
