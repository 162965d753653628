"""Processes are killed, PostgreSQL is restarted and runs are cancelled in the middle of a user's graph.

Its five steps are one call of a hosted model each; the model server's log tells how often each was asked.
"""

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psutil
import pytest

from backend.deployment.processes import MARKER_VARIABLE, marked
from tests.kit.openai.log import RequestRecord
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import RunningStack, wait_for_dag, wait_until
from tests.kit.processes.stack_processes import kill_program, kill_task, pid_of, program_stopped, restart_postgres
from tests.kit.runs import Event, check_order, follow, of_type, snapshot, trigger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

STEPS = range(1, 6)
OVER = ("success", "failed", "cancelled")


@pytest.fixture(scope="module", autouse=True)
def dags(airflow: httpx.Client, backend: httpx.Client) -> None:
    """Wait until Airflow and the backend know the DAGs of these tests."""
    last = "steps_in_worker"  # they are stored in alphabetical order
    wait_for_dag(airflow, last)
    wait_until(lambda: backend.get(f"/workflows/{last}").is_success, timeout=30, what=f"{last} in the backend")


@dataclass
class StepsRun:
    """A run of the graph, whose third step waits for the model's response."""

    backend: httpx.Client
    server: OpenAIServer
    topic: str
    accepted: dict[str, Any]

    def asked(self, step: int) -> list[RequestRecord]:
        """The model calls of a step."""
        return [one for one in self.server.requests if one.prompt.startswith(f"Step {step} of {self.topic}.")]

    def calls(self) -> Counter[int]:
        """The number of model calls of each step."""
        return Counter({step: len(self.asked(step)) for step in STEPS})

    def repeated(self) -> int:
        """The number of repeated model calls."""
        return sum(count - 1 for count in self.calls().values())

    def now(self) -> dict[str, Any]:
        """The run's snapshot."""
        return snapshot(self.backend, self.accepted)

    def tries(self) -> int:
        """The number of tries of the task."""
        (task,) = self.now()["tasks"]
        return int(task["try_number"])

    def errors(self) -> list[str] | None:
        """The categories of the errors, if there are any."""
        return [error["category"] for error in self.now()["errors"]] or None

    def nodes(self) -> list[tuple[str, int, str]]:
        """Node, try and state of each execution of a node, in order."""
        return [(row["node"], row["try_number"], row["state"]) for row in self.now()["agents"] if row["node"]]

    def wait_for(self, *states: str) -> None:
        """Wait until the run is in one of the states."""
        wait_until(lambda: self.now()["state"] in states, timeout=150, what=f"{self.topic}: {' or '.join(states)}")

    def ends_well(self) -> list[Event]:
        """Wait until the run succeeds with the right output. Returns its timeline, which must be in order."""
        self.wait_for(*OVER)
        now = self.now()
        assert now["state"] == "success", now["errors"]
        answers = now["result"]["output"]["answers"]
        assert [answer[: len(f"You said: Step 1 of {self.topic}.")] for answer in answers] == [
            f"You said: Step {step} of {self.topic}." for step in STEPS
        ]
        found = follow(self.backend, self.accepted)
        check_order(found)
        return found

    def ask_for(self, action: str) -> bool:
        """Cancel or retry the run. Returns whether the request was accepted."""
        url = f"/workflows/{self.accepted['dag_id']}/runs/{self.accepted['dag_run_id']}/{action}"
        return self.backend.post(url).status_code == httpx.codes.ACCEPTED

    def wait_until_dropped(self) -> None:
        """Wait until the client has closed the connection of the third step's call."""
        wait_until(
            lambda: any(call.client_disconnected for call in self.asked(3)),
            timeout=30, what=f"the end of the call of {self.topic}",
        )  # fmt: skip


def in_step_3(backend: httpx.Client, server: OpenAIServer, dag_id: str, topic: str, **behaviour: Any) -> StepsRun:
    """Start a run and wait until it is in the middle of its third step."""
    server.script(contains=f"Step 3 of {topic}.", **(behaviour or {"hold": True}))
    run = StepsRun(backend, server, topic, trigger(backend, dag_id, {"topic": topic}))
    wait_until(lambda: run.asked(3) or None, timeout=60, what=f"step 3 of {topic}")
    return run


def test_a_killed_task_and_a_killed_triggerer_repeat_one_call(
    stack: RunningStack, airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    in_worker = in_step_3(backend, openai_server, "steps_in_worker", "a killed task")
    in_triggerer = in_step_3(backend, openai_server, "steps_deferrable", "a killed triggerer")
    victim = kill_program(stack, "triggerer")
    kill_task(airflow, "steps_in_worker", in_worker.accepted["dag_run_id"], "steps")

    found = in_worker.ends_well()
    assert in_worker.calls() == {1: 1, 2: 1, 3: 2, 4: 1, 5: 1}
    assert in_worker.tries() == 2
    assert in_worker.nodes() == [
        ("step_1", 1, "success"), ("step_2", 1, "success"), ("step_3", 1, "cancelled"),
        ("step_3", 2, "success"), ("step_4", 2, "success"), ("step_5", 2, "success"),
    ]  # fmt: skip
    (error,) = of_type(found, "error")
    assert (error["try_number"], error["node"], error["action"]) == (1, "step_3", "task_retry")
    assert "killed" in error["message"]

    in_triggerer.ends_well()
    assert in_triggerer.calls() == {1: 1, 2: 1, 3: 2, 4: 1, 5: 1}
    assert in_triggerer.tries() == 1, "a triggerer that dies costs no try"
    assert [node for node in in_triggerer.nodes() if node[0] == "step_3"] == [
        ("step_3", 1, "cancelled"), ("step_3", 1, "success"),
    ]  # fmt: skip
    assert pid_of(stack, "triggerer") != victim


def test_a_killed_scheduler_repeats_nothing(
    stack: RunningStack, airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    in_worker = in_step_3(backend, openai_server, "steps_in_worker", "a killed scheduler")
    in_triggerer = in_step_3(backend, openai_server, "steps_deferrable", "a scheduler elsewhere")
    left = workers(stack)
    before = scheduler_jobs(airflow, "failed")
    victim = kill_program(stack, "scheduler")
    # The next scheduler has found its predecessor dead, and so knows whose tasks were running.
    wait_until(lambda: scheduler_jobs(airflow, "failed") > before, timeout=90, poll=0.5, what="the end of its job")
    openai_server.release()
    for run in (in_worker, in_triggerer):
        assert of_type(run.ends_well(), "error") == []
        assert run.repeated() == 0
        assert run.tries() == 1
    assert pid_of(stack, "scheduler") != victim
    wait_until(lambda: not left & workers(stack), timeout=30, what="the end of the workers that were left")


def test_a_killed_worker_is_noticed(
    stack: RunningStack, airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    """Not only after the minutes that a task may go without a heartbeat."""
    run = in_step_3(backend, openai_server, "steps_in_worker", "a killed worker")
    url = f"/api/v2/dags/steps_in_worker/dagRuns/{run.accepted['dag_run_id']}/taskInstances/steps"
    task = airflow.get(url).raise_for_status().json()
    (worker,) = [pid for pid in workers(stack) if task["id"] in _title(psutil.Process(pid))]
    for pid in (worker, int(task["pid"])):
        psutil.Process(pid).kill()
    run.ends_well()
    assert (run.repeated(), run.tries()) == (1, 2)


def test_killed_idle_workers_take_no_lock_with_them(
    stack: RunningStack, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    """One of them holds the lock of the queue that the workers take their tasks from."""
    idle = {pid for pid in workers(stack) if "<idle>" in _title(psutil.Process(pid))}
    assert idle
    for pid in idle:
        psutil.Process(pid).kill()
    run = in_step_3(backend, openai_server, "steps_in_worker", "idle workers that were killed")
    openai_server.release()
    run.ends_well()
    assert (run.repeated(), run.tries()) == (0, 1)


def test_a_stop_hands_running_tasks_back(
    stack: RunningStack, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    dags = ("steps_in_worker", "steps_deferrable", "blocking_steps_in_worker")
    runs = [in_step_3(backend, openai_server, dag_id, f"a stop of {dag_id}") for dag_id in dags]
    assert stack.command("down").returncode == 0
    assert workers(stack) == set()
    assert stack.command("up").returncode == 0
    openai_server.release()
    for run in runs:
        run.ends_well()
        assert run.calls() == {1: 1, 2: 1, 3: 2, 4: 1, 5: 1}


def test_without_the_api_server_tasks_wait_for_it(
    stack: RunningStack, airflow: httpx.Client, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    running = in_step_3(backend, openai_server, "steps_in_worker", "a server that is away")
    soon = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    body = {"conf": {"topic": "a server that is late"}, "logical_date": None, "run_after": soon}
    begun = airflow.post("/api/v2/dags/steps_in_worker/dagRuns", json=body).raise_for_status().json()["dag_run_id"]
    with program_stopped(stack, "api-server"):
        openai_server.release()
        time.sleep(25)

    def task(run_id: str) -> dict[str, Any] | None:
        with suppress(httpx.TransportError):
            answer = airflow.get(f"/api/v2/dags/steps_in_worker/dagRuns/{run_id}/taskInstances/steps")
            found: dict[str, Any] = answer.json() if answer.is_success else {}
            return found if found.get("state") in ("success", "failed", "up_for_retry") else None
        return None

    for run_id in (begun, running.accepted["dag_run_id"]):
        ended = wait_until(lambda: task(run_id), timeout=120, poll=0.5, what="the end of its task")  # noqa: B023
        assert (ended["state"], ended["try_number"]) == ("success", 1)
    wait_until(lambda: backend.get("/readyz").is_success, timeout=60, what="the backend")
    running.ends_well()
    assert running.repeated() == 0


def test_a_restart_of_postgresql_repeats_nothing_in_a_worker(
    stack: RunningStack, backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    in_worker = in_step_3(backend, openai_server, "steps_in_worker", "a database that restarts")
    in_triggerer = in_step_3(backend, openai_server, "steps_deferrable", "a database that is away")
    restart_postgres(stack)
    openai_server.release()
    assert of_type(in_worker.ends_well(), "error") == []
    assert (in_worker.repeated(), in_worker.tries()) == (0, 1)
    in_triggerer.ends_well()
    assert in_triggerer.repeated() <= 1, "the triggerer itself may have ended"


def test_cancelling_closes_a_hanging_call_and_a_retry_resumes(
    backend: httpx.Client, openai_server: OpenAIServer
) -> None:
    # A plain function in the triggerer is not among them, because it can't be stopped.
    dags = ("steps_in_worker", "steps_deferrable", "blocking_steps_in_worker")
    runs = [in_step_3(backend, openai_server, dag_id, f"a call in {dag_id}", hang=True) for dag_id in dags]
    for run in runs:
        assert run.ask_for("cancel")
        run.wait_until_dropped()
    for run in runs:
        run.wait_for("cancelled")
        check_order(follow(backend, run.accepted))
        # The agent reports its error after the run's end was published: it is recorded, but not in the stream.
        wait_until(run.errors, timeout=30, what=f"the error of {run.topic}")
        assert run.errors() == ["cancelled"]
        assert run.calls() == {1: 1, 2: 1, 3: 1, 4: 0, 5: 0}
    for run in runs:
        wait_until(lambda: run.ask_for("retry"), timeout=30, what="the retry")  # noqa: B023  # it is called here
    for run in runs:
        run.wait_for("success", "failed")
        assert run.now()["state"] == "success"
        assert run.calls() == {1: 1, 2: 1, 3: 2, 4: 1, 5: 1}
        assert run.tries() == 2


def workers(stack: RunningStack) -> set[int]:
    """The processes that run tasks or wait for them."""
    identity = stack.specification("scheduler")[MARKER_VARIABLE]
    return {process.pid for process in marked(identity) if "LocalExecutor" in _title(process)}


def scheduler_jobs(airflow: httpx.Client, state: str) -> int:
    """The number of scheduler jobs with this state."""
    given = {"job_type": "SchedulerJob", "job_state": state}
    return int(airflow.get("/api/v2/jobs", params=given).raise_for_status().json()["total_entries"])


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
