"""A large number of agents that wait for their models at the same time, each in a separate run.

500 runs of an agent whose model takes 2 s, all asked for at once through the API: in the triggerer (deferrable), beside
Airflow's own trigger that only waits 2 s, and in 32 worker slots. None of these pushes an XCom; agents that push their
results are measured, too: a triggerer takes each push in a round of its own through Airflow's database. Then 500 agents
whose model takes a minute, for the memory of one that waits.
"""

import shutil
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.benchmarks.report import Goal, Result
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import RunningStack, running_stack, wait_for_dag, wait_until

RUNS, WORKER_RUNS, WARM_UP = 500, 150, 10
LATENCY, LONG_LATENCY = 2.0, 60.0
SLOTS = 32
BARE, DEFERRED = "benchmark_bare_trigger", "benchmark_waiting"
PUSHING, IN_WORKER = "benchmark_waiting_pushing", "benchmark_waiting_in_worker"
GOAL_BARE, GOAL_WORKER = 0.8, 4.0
DAGS = Path(__file__).with_name("dags")


def measure() -> Result:
    """Runs per second, from the request to the end of the last run."""
    figures: dict[str, float] = {}
    with OpenAIServer.subprocess(latency=LATENCY) as server:
        environment = {
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": "sk-benchmark",
            "AIRFLOW__CORE__PARALLELISM": str(SLOTS),
            "VISUAL_AI_FRONTEND": "false",
        }
        with running_stack(environment) as stack:
            shutil.copytree(DAGS, stack.dags, dirs_exist_ok=True)
            with stack.airflow() as airflow, stack.backend() as backend:
                runs = Runs(airflow, backend)
                for dag_id in (BARE, DEFERRED, PUSHING, IN_WORKER):
                    wait_for_dag(airflow, dag_id)
                    runs.rate(dag_id, WARM_UP)
                figures["bare_trigger_runs_per_s"] = runs.rate(BARE, RUNS)
                figures["deferrable_runs_per_s"] = runs.rate(DEFERRED, RUNS)
                figures["pushing_runs_per_s"] = runs.rate(PUSHING, RUNS)
                figures["worker_slots_runs_per_s"] = runs.rate(IN_WORKER, WORKER_RUNS)
                figures["refused_at_first"] = runs.refused
                figures |= _memory(stack, server, runs)
    figures["against_bare"] = figures["deferrable_runs_per_s"] / figures["bare_trigger_runs_per_s"]
    figures["pushing_against_bare"] = figures["pushing_runs_per_s"] / figures["bare_trigger_runs_per_s"]
    figures["against_workers"] = figures["deferrable_runs_per_s"] / figures["worker_slots_runs_per_s"]
    goals = [
        Goal("rate of deferrable agents to a bare trigger", figures["against_bare"], GOAL_BARE, at_least=True),
        Goal("rate of deferrable agents to worker slots", figures["against_workers"], GOAL_WORKER, at_least=True),
    ]
    settings = {"runs": RUNS, "worker_runs": WORKER_RUNS, "worker_slots": SLOTS, "model_s": LATENCY}
    return Result("waiting", figures, goals, settings=settings)


class Runs:
    """Starts runs through the API and waits until they finish."""

    def __init__(self, airflow: httpx.Client, backend: httpx.Client) -> None:
        self._airflow = airflow
        self._backend = backend
        self._started: Counter[str] = Counter()
        self.refused = 0
        """Inputs that Airflow was too busy to accept at first."""

    def rate(self, dag_id: str, runs: int) -> float:
        """Runs per second."""
        began = time.monotonic()
        self.start(dag_id, runs)
        self.wait(dag_id)
        return runs / (time.monotonic() - began)

    def start(self, dag_id: str, runs: int) -> None:
        """Request all runs at once; retry for the runs that Airflow was too busy to accept."""
        self._started[dag_id] += runs
        inputs: list[dict[str, Any]] = [{"text": "The harbour was quiet."} for _ in range(runs)]
        headers = {"Idempotency-Key": uuid.uuid4().hex}

        def all_taken() -> bool:
            answer = self._backend.post(
                "/workflows/trigger/batch", json={"dag_id": dag_id, "inputs": inputs}, headers=headers, timeout=300
            )
            assert answer.is_success, answer.text
            problems = [entry["problem"] for entry in answer.json()["entries"] if "problem" in entry]
            assert all(problem["status"] == httpx.codes.SERVICE_UNAVAILABLE for problem in problems), problems
            self.refused += len(problems)
            return not problems

        wait_until(all_taken, timeout=600, poll=1, what=f"the start of all runs of {dag_id}")

    def wait(self, dag_id: str) -> None:
        """Wait until all started runs have succeeded. Raises `AssertionError` as soon as one has failed."""

        def count(state: str) -> int:
            answer = self._airflow.get(f"/api/v2/dags/{dag_id}/dagRuns", params={"state": state, "limit": 1})
            return int(answer.raise_for_status().json()["total_entries"])

        def over() -> bool:
            assert not count("failed"), f"runs of {dag_id} have failed"
            return count("success") >= self._started[dag_id]

        wait_until(over, timeout=900, poll=0.25, what=f"the end of all runs of {dag_id}")


def _memory(stack: RunningStack, server: OpenAIServer, runs: Runs) -> dict[str, float]:
    """The growth of the triggerer's memory per agent that waits for its model."""
    processes = [
        process
        for process in psutil.process_iter(["cmdline", "environ"])
        if "triggerer" in (process.info["cmdline"] or ())
        and (process.info["environ"] or {}).get("AIRFLOW_HOME", "").startswith(str(stack.state))
    ]
    processes += [child for process in processes for child in process.children(recursive=True)]

    def used() -> int:
        return sum(process.memory_info().rss for process in set(processes))

    before = used()
    server.configure(latency=LONG_LATENCY)
    runs.start(DEFERRED, RUNS)
    most = waiting = 0
    deadline = time.monotonic() + LONG_LATENCY
    while time.monotonic() < deadline and (now := server.in_flight) >= waiting:
        waiting, most = now, used()
        time.sleep(0.5)
    server.configure(latency=LATENCY)
    runs.wait(DEFERRED)
    return {"waiting_at_once": waiting, "kib_per_waiting_agent": (most - before) / waiting / 1024}
