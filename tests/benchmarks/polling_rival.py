"""Comparison with the simplest alternative: the same runs and clients, through the backend and a polling server."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import psutil

from tests.benchmarks.report import Goal, Result, percentile
from tests.benchmarks.watching import lateness, watch_all
from tests.kit.processes.stack import ROOT, RunningStack, finished_run, free_port, start_run, wait_for_dag, wait_until
from tests.kit.sse_client import path_of

CLIENTS = 50
RUNS = 5
TASKS = 3
SECONDS = 60.0
"""An event that has not arrived by then counts as arriving then."""
DAG_ID = "benchmark_steps"


def measure(stack: RunningStack, *, clients: int = CLIENTS) -> Result:
    """Milliseconds from a task's start or end in Airflow to the client, for both in turn.

    Beside that the requests to Airflow and the share of a processor that its API server took.
    """
    figures: dict[str, float] = {}
    samples: dict[str, list[float]] = {}
    with stack.airflow() as airflow, stack.backend() as backend, _rival(stack, airflow) as rival:
        airflow.timeout = 60.0  # it is busy once the clients of the polling server connect
        wait_for_dag(airflow, DAG_ID)
        finished_run(airflow, DAG_ID, start_run(airflow, DAG_ID), timeout=120)
        ours = str(backend.base_url).rstrip("/")
        token = backend.headers["Authorization"].removeprefix("Bearer ")

        def polled() -> float:
            return float(httpx.get(f"{rival}/requests", trust_env=False, timeout=60).json())

        def asked() -> float:
            found = re.search(r"^visual_ai_airflow_requests_total (\S+)", backend.get("/metrics").text, re.MULTILINE)
            assert found is not None
            return float(found[1])

        watched: list[tuple[str, str, Callable[[str], str], str | None, Callable[[], float]]] = [
            ("ours", ours, lambda run: path_of(DAG_ID, run), token, asked),
            ("polling", rival, lambda run: f"/stream/{DAG_ID}/{run}", None, polled),
        ]
        for name, url, path, given, count in watched:
            runs = [start_run(airflow, DAG_ID) for _ in range(RUNS)]
            before, used, began = count(), _processor(stack), time.monotonic()
            paths = [path(runs[n % RUNS]) for n in range(clients)]
            found = asyncio.run(watch_all(url, paths, token=given, seconds=SECONDS))
            seconds = time.monotonic() - began
            told = [one.data["state"] for arrivals in found for one in arrivals if one.type == "task_update"]
            ends = told.count("success")
            late = samples[f"{name}_ms"] = [one for arrivals in found for one in lateness(arrivals)]
            late += [SECONDS * 1000] * (clients * TASKS - ends)
            for percent in (50, 95):
                figures[f"{name}_ms_p{percent}"] = percentile(late, percent)
            figures[f"{name}_ends_of_tasks_percent"] = 100 * ends / (clients * TASKS)
            figures[f"{name}_airflow_requests_a_second"] = (count() - before) / seconds
            figures[f"{name}_api_server_cpu_percent"] = (_processor(stack) - used) / seconds * 100
            for run in runs:
                finished_run(airflow, DAG_ID, run, timeout=120)
    goals = [Goal("p95 latency to that of a polling stream", figures["ours_ms_p95"] / figures["polling_ms_p95"], 1.0)]
    return Result("polling_rival", figures, goals, samples, {"clients": clients, "runs": RUNS})


@contextmanager
def _rival(stack: RunningStack, airflow: httpx.Client) -> Iterator[str]:
    port = free_port()
    token = airflow.headers["Authorization"].removeprefix("Bearer ")
    process = subprocess.Popen(
        [
            sys.executable, "-m", "tests.benchmarks.polling_server",
            f"--airflow-url={stack.airflow_url}", f"--port={port}",
        ],
        cwd=ROOT, env={**os.environ, "POLLING_TOKEN": token},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/requests", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    try:
        wait_until(answers, timeout=60, what="the rival")
        yield url
    finally:
        process.kill()
        process.wait()


def _processor(stack: RunningStack) -> float:
    """CPU seconds that Airflow's API server has used."""
    root = psutil.Process(stack.pid("api-server"))
    times = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(used.user + used.system for used in times)
