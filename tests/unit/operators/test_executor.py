"""Tasks outlive their scheduler: the next one adopts busy workers and ends idle ones."""

import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from airflow.executors.local_executor import LocalExecutor
from airflow.models.taskinstancekey import TaskInstanceKey

import visual_ai_executor
from backend.deployment.processes import MARKER_VARIABLE
from tests.kit.processes.stack import wait_until
from visual_ai_executor import AdoptingLocalExecutor

Worker = subprocess.Popen[bytes]


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> str:
    """The marker of a stack without other processes."""
    identity = f"test-{uuid.uuid4()}"
    monkeypatch.setenv(MARKER_VARIABLE, identity)
    return identity


@pytest.fixture
def worker(identity: str) -> Iterator[Callable[..., Worker]]:
    """Starts processes with the titles of LocalExecutor's workers."""
    started: list[Worker] = []

    def start(doing: str, marker: str = identity) -> Worker:
        title = f"airflow worker -- LocalExecutor: {doing}"
        # A shell that waits for a script on its standard input.
        process = subprocess.Popen([title], executable="/bin/sh", stdin=subprocess.PIPE, env={MARKER_VARIABLE: marker})
        started.append(process)
        wait_until(lambda: title in " ".join(psutil.Process(process.pid).cmdline()), timeout=10)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def make_executor() -> AdoptingLocalExecutor:
    """An executor that starts no workers without a task."""
    executor = AdoptingLocalExecutor(parallelism=1)
    executor.is_mp_using_fork = False
    return executor


def task(state: str, number: uuid.UUID | None = None) -> Any:
    return SimpleNamespace(id=number or uuid.uuid4(), key=("dag", "task"), state=state, max_tries=2)


def test_running_tasks_are_adopted_and_others_restarted(worker: Callable[..., Worker]) -> None:
    running, queued, lost = task("running"), task("queued"), task("running")
    worker(str(running.id))
    worker(str(queued.id))
    executor = make_executor()
    executor.start()
    assert executor.try_adopt_task_instances([running, queued, lost]) == [queued, lost]
    assert [one.max_tries for one in (running, queued, lost)] == [2, 2, 3], "it isn't to blame for the lost try"


def test_workers_of_another_stack_are_ignored(worker: Callable[..., Worker]) -> None:
    elsewhere = task("running")
    busy, idle = worker(str(elsewhere.id), "another"), worker("<idle>", "another")
    executor = make_executor()
    executor.start()
    assert executor.try_adopt_task_instances([elsewhere]) == [elsewhere]
    assert (busy.poll(), idle.poll()) == (None, None)


def test_idle_orphans_are_ended(worker: Callable[..., Worker]) -> None:
    busy, idle = worker(str(uuid.uuid4())), worker("<idle>")
    make_executor().start()
    assert idle.wait(10) == -signal.SIGKILL
    assert busy.poll() is None


CRASH = """
import multiprocessing, signal
from visual_ai_executor import AdoptingLocalExecutor

executor = AdoptingLocalExecutor(parallelism=1)
executor.is_mp_using_fork = False
executor.start()
busy = multiprocessing.Process(target=signal.pause)
busy.start()
executor.workers[busy.pid] = busy
print(busy.pid, flush=True)
try:
    raise {error}
finally:
    executor.end()
"""


@pytest.mark.parametrize(
    ("error", "status", "marked"),
    [("ConnectionError('the database is away')", 1, False), ("SystemExit('it was stopped')", 0, True)],
)
def test_a_scheduler_that_exits_does_not_wait_for_its_tasks(
    monkeypatch: pytest.MonkeyPatch, error: str, status: int, marked: bool
) -> None:
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    if marked:
        monkeypatch.setenv(MARKER_VARIABLE, f"test-{uuid.uuid4()}")
    scheduler = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CRASH.format(error=error)], stdout=subprocess.PIPE, text=True
    )
    assert scheduler.stdout is not None
    busy = psutil.Process(int(next(line for line in scheduler.stdout if line.strip().isdigit())))
    try:
        assert scheduler.wait(60) == status
        assert busy.is_running()
    finally:
        busy.kill()
        scheduler.communicate()


def test_the_end_of_a_task_that_a_worker_has_again_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task was parked, and woken before its first process had been heard of."""
    monkeypatch.setattr(LocalExecutor, "_process_workloads", lambda *_: None)
    executor = make_executor()
    workload: Any = SimpleNamespace(key=("dag", "task"))
    for _ in range(2):
        executor.running.add(workload.key)
        executor._process_workloads([workload])
    executor.change_state(workload.key, "success")
    assert (executor.event_buffer, executor.running) == ({}, {workload.key})
    executor.change_state(workload.key, "failed")
    assert executor.event_buffer == {workload.key: ("failed", None)}
    assert executor.running == set()
    executor.change_state(("dag", "adopted"), "failed")
    assert len(executor.event_buffer) == 2


class Given:
    """An executor and a task that it has given to a worker, whose state Airflow has recorded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
        self.state = state
        monkeypatch.setattr(LocalExecutor, "_check_workers", lambda _: None)
        monkeypatch.setattr(visual_ai_executor, "CHECK_SECONDS", -1.0)
        monkeypatch.setattr(visual_ai_executor, "_recorded", lambda tasks: dict.fromkeys(tasks, (self.state, None)))
        self.executor = make_executor()
        self.executor.start()
        self.queue: Any = self.executor.activity_queue
        workload: Any = SimpleNamespace(ti=task(state), key=TaskInstanceKey("dag", "task", "run", 1, -1))
        self.workload = workload
        self.executor._tasks[str(workload.ti.id)] = workload.key
        self.executor._workloads[str(workload.ti.id)] = workload
        self.give()

    def give(self) -> None:
        self.executor.running.add(self.workload.key)
        waiting: Any = self.executor.queued_tasks
        waiting[self.workload.key] = self.workload
        self.executor._process_workloads([self.workload])

    def check(self, times: int = 1) -> None:
        for _ in range(times):
            self.executor.sync()


def test_a_task_whose_worker_was_killed_before_it_began_is_given_to_another(
    identity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Given(monkeypatch, "queued")
    given.check(3)
    assert given.queue.get().key == given.workload.key
    assert given.queue.empty(), "it is in the queue once, because nobody had taken it"
    given.check()
    assert given.queue.empty(), "its worker may be about to begin"
    given.check()
    assert given.queue.get().key == given.workload.key
    given.state = "success"
    given.executor.change_state(given.workload.key, "success")
    assert given.executor.event_buffer == {}, "its first worker might still have it"
    given.check(2)
    assert given.executor.event_buffer == {given.workload.key: ("success", None)}
    assert given.executor.running == set()


def test_the_slot_of_a_task_whose_worker_was_killed_after_its_end_is_free_again(
    identity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Given(monkeypatch, "awaiting_input")
    given.queue.get()
    given.check()
    assert given.executor.running == {given.workload.key}, "its worker may be about to report its end"
    given.check()
    assert given.executor.running == set()
    assert given.executor.event_buffer == {given.workload.key: ("success", None)}


def test_a_killed_worker_is_reported_although_an_earlier_one_has_not_been_heard_of(
    identity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Given(monkeypatch, "queued")
    given.queue.get()
    given.give()
    given.queue.get()
    given.state = "running"
    given.check()
    assert given.executor.event_buffer == {given.workload.key: ("failed", "its worker process was killed")}
    assert given.executor.running == set()
