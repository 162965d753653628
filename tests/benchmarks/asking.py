"""A thousand runs that wait for people: what they hold, and how soon an answer reaches its graph.

The scheduler's CPU time and the triggerer's memory are measured over a minute before the runs are started, and over
another one while all of them wait. In between, the same with a few of Airflow's own requests for input: the scheduler
looks at up to 20 active runs in each of its loops, whatever they wait for. Then some are answered one after the other;
an answer takes until the node after the one that asked has run, and of Airflow's own until the end of its task.
"""

import shutil
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import typer

from tests.benchmarks.report import Goal, Result, median, percentile
from tests.benchmarks.waiting import DAGS, Runs
from tests.kit.processes.stack import RunningStack, running_stack, start_run, wait_for_dag, wait_until

RUNS, ANSWERED, WARM_UP = 1_000, 40, 5
OWN_WAITING = 30
OBSERVED = 60.0
"""Seconds over which processes are watched."""
SLOTS = 32
ASKING = ("asks_in_worker", "asks_in_triggerer")
OWN = "asks_airflow"


def measure() -> Result:
    """Slots, ratios of CPU time and memory, and seconds from an answer to its node."""
    environment = {"AIRFLOW__CORE__PARALLELISM": str(SLOTS), "VISUAL_AI_FRONTEND": "false"}
    with running_stack(environment) as stack:
        shutil.copytree(DAGS, stack.dags, dirs_exist_ok=True)
        with stack.airflow() as airflow, stack.backend() as backend:
            for dag_id in (*ASKING, OWN):
                wait_for_dag(airflow, dag_id)
            _airflows_own(airflow, 2)
            own = _airflows_own(airflow, 10)
            runs = Runs(airflow, backend)
            for dag_id in ASKING:
                runs.start(dag_id, WARM_UP)
            list(_answered(backend, WARM_UP * len(ASKING)))
            for dag_id in ASKING:
                runs.wait(dag_id)
            before = _watched(stack)
            airflows = _watched_with_airflows_own(stack, airflow)
            for dag_id in ASKING:
                runs.start(dag_id, RUNS // len(ASKING))
            began = time.monotonic()
            wait_until(lambda: _parked(airflow) >= RUNS, timeout=1_800, poll=5, what="all runs waiting for people")
            parked_after = time.monotonic() - began
            pool = airflow.get("/api/v2/pools/default_pool").raise_for_status().json()
            during = _watched(stack)
            ours = list(_answered(backend, ANSWERED))
    figures = {
        "waiting_runs": float(RUNS),
        "seconds_until_all_wait": parked_after,
        "slots_held": float(pool["occupied_slots"]),
        "scheduler_cpu_percent_before": before["scheduler_cpu"],
        "scheduler_cpu_percent_with_airflows_own": airflows["scheduler_cpu"],
        "scheduler_cpu_percent_during": during["scheduler_cpu"],
        "triggerer_mib_before": before["triggerer_mib"],
        "triggerer_mib_during": during["triggerer_mib"],
        "answer_to_node_s_p50": median(ours),
        "answer_to_node_s_p95": percentile(ours, 95),
        "airflows_own_s_p50": median(own),
    }
    cpu = during["scheduler_cpu"] / before["scheduler_cpu"]
    memory = during["triggerer_mib"] / before["triggerer_mib"]
    figures |= {"scheduler_cpu_ratio": cpu, "triggerer_memory_ratio": memory}
    goals = [
        Goal("slots held by waiting runs", figures["slots_held"], 0),
        Goal("scheduler's CPU time with waiting runs to that without", cpu, 1.1),
        Goal("the same to that with 30 of Airflow's own", during["scheduler_cpu"] / airflows["scheduler_cpu"], 1.1),
        Goal("triggerer's memory with waiting runs to that without", memory, 1.1),
        Goal("answer to node above Airflow's own, p95, s", figures["answer_to_node_s_p95"] - median(own), 2),
    ]
    return Result("asking", figures, goals, samples={"answer_to_node_s": ours, "airflows_own_s": own})


def _parked(airflow: httpx.Client) -> int:
    found = 0
    for dag_id in ASKING:
        listed = airflow.get(
            f"/api/v2/dags/{dag_id}/dagRuns/~/taskInstances", params={"state": "awaiting_input", "limit": 1}
        )
        found += listed.raise_for_status().json()["total_entries"]
    typer.echo(f"  {found} runs wait", err=True)
    return found


def _watched(stack: RunningStack) -> dict[str, float]:
    """The scheduler's CPU use in percent of a core and the triggerer's memory, over a quiet minute."""
    time.sleep(15)  # what has been started settles
    scheduler = list(_family(stack.pid("scheduler")))
    cpu, began = _cpu(scheduler), time.monotonic()
    time.sleep(OBSERVED)
    used = (_cpu(scheduler) - cpu) / (time.monotonic() - began) * 100
    memory = sum(process.memory_info().rss for process in _family(stack.pid("triggerer"))) / 1024**2
    return {"scheduler_cpu": used, "triggerer_mib": memory}


def _family(pid: int) -> Iterator[psutil.Process]:
    process = psutil.Process(pid)
    yield process
    yield from process.children(recursive=True)


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in processes if one.is_running())


def _answered(backend: httpx.Client, count: int) -> Iterator[float]:
    """Answer questions one after the other: seconds from each answer to the moment at which its graph has gone on."""

    def asked() -> list[dict[str, Any]] | None:
        page = backend.get("/questions", params={"limit": count}).raise_for_status().json()
        found: list[dict[str, Any]] = page["questions"]
        return found if len(found) == count else None

    for question in wait_until(asked, timeout=120, poll=1, what=f"{count} questions"):
        answered = time.monotonic()
        backend.post(f"/questions/{question['question_id']}/answer", json={"answer": "Go on."}).raise_for_status()
        place = f"/workflow-status/{question['dag_id']}/{question['dag_run_id']}"
        wait_until(lambda: _has_gone_on(backend, place), timeout=120, what="the node after an answer")  # noqa: B023
        yield time.monotonic() - answered


def _has_gone_on(backend: httpx.Client, place: str) -> bool:
    """Whether the node that follows the one that asked has run."""
    agents = backend.get(place).raise_for_status().json()["agents"]
    return any(one["node"] == "proceed" for one in agents)


def _airflows_own(airflow: httpx.Client, count: int) -> list[float]:
    return [_own_answer(airflow, start_run(airflow, OWN)) for _ in range(count)]


def _own_answer(airflow: httpx.Client, run_id: str) -> float:
    _own_is(airflow, run_id, "awaiting_input")
    time.sleep(6)  # as long as ours wait at least
    began = time.monotonic()
    _answer_own(airflow, run_id)
    _own_is(airflow, run_id, "success")
    return time.monotonic() - began


def _watched_with_airflows_own(stack: RunningStack, airflow: httpx.Client) -> dict[str, float]:
    waiting = [start_run(airflow, OWN) for _ in range(OWN_WAITING)]
    for run_id in waiting:
        _own_is(airflow, run_id, "awaiting_input")
    found = _watched(stack)
    for run_id in waiting:
        _answer_own(airflow, run_id)
    for run_id in waiting:
        _own_is(airflow, run_id, "success")
    return found


def _own_is(airflow: httpx.Client, run_id: str, state: str) -> None:
    place = f"/api/v2/dags/{OWN}/dagRuns/{run_id}/taskInstances/ask"
    wait_until(
        lambda: airflow.get(place).raise_for_status().json()["state"] == state,
        timeout=120, poll=0.05, what=f"{state} of Airflow's own task",
    )  # fmt: skip


def _answer_own(airflow: httpx.Client, run_id: str) -> None:
    place = f"/api/v2/dags/{OWN}/dagRuns/{run_id}/taskInstances/ask/-1/hitlDetails"
    airflow.patch(place, json={"chosen_options": ["Go on"], "params_input": {}}).raise_for_status()
