"""Latency from a change of state in Airflow to its event at a client, with and without the listener."""

from __future__ import annotations

import asyncio

import httpx

from tests.benchmarks.report import Result, percentile
from tests.benchmarks.watching import lateness, watch
from tests.kit.processes.stack import RunningStack, finished_run, start_run, wait_for_dag
from tests.kit.runs import trigger

RUNS = 20
WARM_UP = 2
DAGS = {"worker": "benchmark_task", "triggerer": "benchmark_deferrable"}
AIRFLOWS = ("scheduler", "triggerer")
"""The processes that run listeners, themselves or in their children."""


def measure(stack: RunningStack, *, runs: int = RUNS) -> Result:
    """Milliseconds from the time that Airflow records for a start or an end to the arrival of its event.

    Runs are triggered one after the other and watched from their beginning. Agents in the triggerer tell of their tasks
    themselves, with the listener or without it; of their runs the listener tells, or the reconciler.
    """
    samples: dict[str, list[float]] = {}
    with stack.airflow() as airflow, stack.backend() as backend:
        for dag_id in DAGS.values():
            wait_for_dag(airflow, dag_id)
        _measure(backend, "listener", runs, samples)
        for program in AIRFLOWS:
            stack.restart(program, {"VISUAL_AI_LISTENER": "false"})
        _warm_up(airflow)
        _measure(backend, "reconciler", runs, samples)
        for program in AIRFLOWS:
            stack.restart(program, {"VISUAL_AI_LISTENER": "true"})
        _warm_up(airflow)
    figures = {
        f"{name}_p{percent}": percentile(values, percent) for name, values in samples.items() for percent in (50, 95)
    }
    return Result("state_latency", figures, (), samples, {"runs": runs, "warm_up": WARM_UP})


def _measure(backend: httpx.Client, told_by: str, runs: int, samples: dict[str, list[float]]) -> None:
    token = backend.headers["Authorization"].removeprefix("Bearer ")
    for place, dag_id in DAGS.items():
        tasks = samples[f"{place}_task_{told_by}_ms"] = []
        ends = samples[f"{place}_run_{told_by}_ms"] = []
        for turn in range(WARM_UP + runs):
            started = trigger(backend, dag_id, {})
            arrivals = asyncio.run(watch(str(backend.base_url).rstrip("/"), started["stream_url"], token=token))
            if turn >= WARM_UP:
                tasks += lateness(arrivals)
                ends += lateness(arrivals, "workflow_update")[-1:]


def _warm_up(airflow: httpx.Client) -> None:
    """Warm up the new processes, whose first run takes seconds longer."""
    for dag_id in DAGS.values():
        finished_run(airflow, dag_id, start_run(airflow, dag_id), timeout=120)
