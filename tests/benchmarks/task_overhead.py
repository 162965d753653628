"""The overhead of an agent task: a DAG with one agent task and a DAG with one plain task, in turn."""

from datetime import datetime

import httpx

from tests.benchmarks.report import Goal, Result, median
from tests.kit.processes.stack import RunningStack, finished_run, start_run, wait_for_dag

WARM_UP = 3
PAIRS = 20
GOAL = 1.15

PLAIN, AGENT = "benchmark_task", "benchmark_agent"


def measure(stack: RunningStack, *, pairs: int = PAIRS) -> Result:
    """Times are Airflow's: `run` from being queued to the run's end, `task` from the task's start to its end.

    What the agent itself computes is in its nodes; the goal is held against the whole.
    """
    samples: dict[str, list[float]] = {
        name: []
        for name in ("plain_run_s", "agent_run_s", "plain_task_s", "agent_task_s", "agent_latency_ms", "agent_nodes_ms")
    }
    with stack.airflow() as airflow, stack.backend() as backend:
        for dag_id in (PLAIN, AGENT):
            wait_for_dag(airflow, dag_id)
        for turn in range(WARM_UP + pairs):
            plain_run, plain_task, _ = _one(airflow, PLAIN)
            agent_run, agent_task, run_id = _one(airflow, AGENT)
            if turn < WARM_UP:
                continue
            snapshot = backend.get(f"/workflow-status/{AGENT}/{run_id}").raise_for_status().json()
            latency = next(agent["latency_ms"] for agent in snapshot["agents"] if agent["node"] is None)
            nodes = sum(agent["latency_ms"] for agent in snapshot["agents"] if agent["node"] is not None)
            taken = (plain_run, agent_run, plain_task, agent_task, latency, nodes)
            for name, value in zip(samples, taken, strict=True):
                samples[name].append(value)
    figures = {name: median(values) for name, values in samples.items()}
    figures["run_ratio"] = figures["agent_run_s"] / figures["plain_run_s"]
    net = figures["agent_run_s"] - figures["agent_nodes_ms"] / 1000
    figures["run_ratio_without_nodes"] = net / figures["plain_run_s"]
    figures["run_overhead_s"] = figures["agent_run_s"] - figures["plain_run_s"]
    figures["task_overhead_s"] = figures["agent_task_s"] - figures["plain_task_s"]
    goals = [Goal("duration of an agent run to a plain run", figures["run_ratio"], GOAL)]
    return Result("task_overhead", figures, goals, samples, {"pairs": pairs, "warm_up": WARM_UP})


def _one(airflow: httpx.Client, dag_id: str) -> tuple[float, float, str]:
    run_id = start_run(airflow, dag_id)
    run = finished_run(airflow, dag_id, run_id)
    assert run["state"] == "success", run
    tasks = airflow.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances").raise_for_status().json()
    duration = tasks["task_instances"][0]["duration"]
    return _seconds(run["queued_at"], run["end_date"]), float(duration), run_id


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
