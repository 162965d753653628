"""The overhead of the trigger endpoint over Airflow's own, with alternating requests."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.benchmarks.report import Goal, Result, percentile
from tests.kit.processes.stack import RunningStack, wait_for_dag, wait_until

WARM_UP = 5
REQUESTS = 300
GOAL = 1.5
DAG_ID = "benchmark_empty"


def measure(stack: RunningStack, *, requests: int = REQUESTS) -> Result:
    """Milliseconds from sending a request to receiving the complete response, over a persistent connection."""
    with stack.airflow() as airflow, stack.backend() as backend:
        wait_for_dag(airflow, DAG_ID)
        ours = {"dag_id": DAG_ID, "input_data": {}}
        direct: dict[str, Any] = {"logical_date": None, "conf": {}}
        samples: dict[str, list[float]] = {"airflow_ms": [], "trigger_ms": []}
        for turn in range(WARM_UP + requests):
            airflow_ms = _timed(lambda: airflow.post(f"/api/v2/dags/{DAG_ID}/dagRuns", json=direct))
            trigger_ms = _timed(lambda: backend.post("/workflows/trigger", json=ours))
            if turn >= WARM_UP:
                samples["airflow_ms"].append(airflow_ms)
                samples["trigger_ms"].append(trigger_ms)
        _let_end(airflow)
    figures = {
        f"{name}_p{percent}": percentile(values, percent) for name, values in samples.items() for percent in (50, 99)
    }
    figures["ratio_p50"] = figures["trigger_ms_p50"] / figures["airflow_ms_p50"]
    figures["ratio_p99"] = figures["trigger_ms_p99"] / figures["airflow_ms_p99"]
    goals = [
        Goal(f"trigger against Airflow's own, p{percent}", figures[f"ratio_p{percent}"], GOAL) for percent in (50, 99)
    ]
    return Result("trigger", figures, goals, samples, {"requests": requests, "warm_up": WARM_UP})


def _timed(send: Callable[[], httpx.Response]) -> float:
    started = time.perf_counter()
    answer = send()
    taken = time.perf_counter() - started
    assert answer.is_success, answer.text
    return taken * 1000


def _let_end(airflow: httpx.Client) -> None:
    """Wait until all runs have finished, so that they don't affect the next benchmark."""

    def over() -> bool:
        answer = airflow.get(f"/api/v2/dags/{DAG_ID}/dagRuns?state=queued&state=running&limit=1").raise_for_status()
        return bool(answer.json()["total_entries"] == 0)

    wait_until(over, timeout=180, poll=1, what="the end of all runs")
