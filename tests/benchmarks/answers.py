"""Answers that people give while something is killed: what is lost, applied twice, or paid for again.

For each fault, runs that wait for a first answer get it, all at once, and the fault happens meanwhile; then the same
with the second one. Each client repeats its request until it is accepted, with one `Idempotency-Key`.
"""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import typer

from tests.benchmarks.faults import DAGS, FAULTS, Scene
from tests.benchmarks.report import Goal, Result
from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.stack import running_stack, wait_for_dag, wait_until

RUNS = {"answers_in_worker": 10, "answers_in_triggerer": 10}
DURING = ("none", "killed_workers", "killed_triggerer", "killed_scheduler", "killed_backend", "restarted_postgres")


def measure() -> Result:
    """Counts over all faults."""
    counts: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    with OpenAIServer.subprocess() as server:
        environment = {
            "OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-benchmark", "VISUAL_AI_FRONTEND": "false",
        }  # fmt: skip
        with running_stack(environment) as stack:
            shutil.copytree(DAGS, stack.dags, dirs_exist_ok=True)
            with stack.airflow() as airflow:
                for dag_id in RUNS:
                    wait_for_dag(airflow, dag_id)
            scene = Scene(stack, server)
            for name in DURING:
                began = time.monotonic()
                found = _under(scene, name, FAULTS[name])
                seconds[name] = round(time.monotonic() - began, 1)
                typer.echo(f"  {name}: {dict(found)} in {seconds[name]} s", err=True)
                counts += found
    figures = {name: float(counts[name]) for name in ("answers", "lost", "applied_twice", "repeated_calls")}
    goals = [Goal(name.replace("_", " "), figures[name], 0) for name in ("lost", "applied_twice")]
    return Result("answers", figures | {f"seconds_{name}": one for name, one in seconds.items()}, goals)


def _under(scene: Scene, name: str, fault: Callable[[Scene], None]) -> Counter[str]:
    scene.server.reset()
    with scene.stack.backend() as backend, ThreadPoolExecutor(8) as people:
        runs = {}
        for dag_id, count in RUNS.items():
            for number in range(count):
                key = f"{name}-{dag_id}-{number}"
                body = {"dag_id": dag_id, "input_data": {"key": key}}
                started = backend.post("/workflows/trigger", json=body).raise_for_status().json()
                runs[started["dag_run_id"]] = (key, started["status_url"])
        for turn in ("First", "Second"):
            asked = wait_until(lambda: _asked(backend, set(runs), turn), timeout=300, poll=1, what=turn)  # noqa: B023
            fails = threading.Thread(target=fault, args=(scene,))
            fails.start()
            list(people.map(lambda one: _give(backend, *one), asked.items()))
            fails.join()
        found: Counter[str] = Counter(answers=2 * len(runs))
        for dag_run_id, (key, url) in runs.items():
            said = _said(backend, url)
            wanted = [f"{turn} {dag_run_id}" for turn in ("First", "Second")]
            found["lost"] += sum(answer not in said for answer in wanted)
            found["applied_twice"] += len(said) - len(set(said))
            calls = sum(f"Write to {key}." in request.prompt for request in scene.server.requests)
            found["repeated_calls"] += max(0, calls - 1)
        return found


def _asked(backend: httpx.Client, runs: set[str], turn: str) -> dict[str, str] | None:
    """The runs' open questions of a turn, as question and run, once all of them wait."""
    found: dict[str, str] = {}
    query: dict[str, Any] = {"limit": 200}
    while True:
        try:
            page = backend.get("/questions", params=query).raise_for_status().json()
        except httpx.HTTPError:
            return None  # the backend is being killed, or has no database
        found |= {
            one["question_id"]: f"{turn} {one['dag_run_id']}"
            for one in page["questions"]
            if one["dag_run_id"] in runs and one["subject"].startswith(turn)
        }
        if page["next_cursor"] is None:
            return found if len(found) == len(runs) else None
        query["cursor"] = page["next_cursor"]


def _give(backend: httpx.Client, question_id: str, answer: str) -> None:
    def accepted() -> bool:
        try:
            done = backend.post(
                f"/questions/{question_id}/answer", json={"answer": answer}, headers={"Idempotency-Key": question_id}
            )
        except httpx.TransportError:
            return False
        assert done.status_code in (200, 429) or done.status_code >= 500, done.text
        return done.is_success

    wait_until(accepted, timeout=120, poll=0.5, what="an answer")


def _said(backend: httpx.Client, url: str) -> list[str]:
    def ended() -> dict[str, Any] | None:
        try:
            snapshot = backend.get(url)
        except httpx.TransportError:
            return None
        shown: dict[str, Any] = snapshot.json() if snapshot.is_success else {}
        return shown if shown.get("state") in ("success", "failed", "cancelled") else None

    result = wait_until(ended, timeout=300, poll=0.5, what="the end of a run")["result"]
    said: list[str] = (result or {"output": {}})["output"].get("said", [])
    return said
