"""A whole stack for tests and benchmarks, on free ports and with a state directory that is deleted afterwards."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.kit.processes.reaper import disposable_folder

ROOT = Path(__file__).resolve().parents[3]

T = TypeVar("T")

FINISHED = frozenset({"success", "failed"})
_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"


@dataclass(frozen=True)
class RunningStack:
    """A running stack. With `environment`, `python -m backend <command>` addresses it."""

    airflow_url: str
    backend_url: str
    frontend_url: str
    username: str
    password: str
    state: Path
    environment: Mapping[str, str]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m backend` with `arguments` for this stack."""
        return subprocess.run(
            [sys.executable, "-m", "backend", *arguments],
            env=dict(self.environment), cwd=ROOT, capture_output=True, text=True,
            timeout=600,  # the first `up` of a checkout installs and builds the frontend
        )  # fmt: skip

    @property
    def dags(self) -> Path:
        """A folder for further DAG files beside those of the checkout."""
        return self.state / "own-dags"

    def airflow(self, username: str | None = None, password: str | None = None) -> httpx.Client:
        """A client of Airflow's REST API, by default as the administrator."""
        return _signed_in(self.airflow_url, username or self.username, password or self.password)

    def backend(self, username: str | None = None, password: str | None = None) -> httpx.Client:
        """A client of the backend, by default as the administrator."""
        return _signed_in(self.backend_url, username or self.username, password or self.password)

    def restart(self, program: str, environment: Mapping[str, str]) -> None:
        """Terminate a process of the stack; the supervisor starts it again with further variables."""
        path = self.state / "run" / f"{program}.json"
        specification = json.loads(path.read_text())
        specification["env"] |= environment
        path.write_text(json.dumps(specification))
        before = self.pid(program)
        os.kill(before, signal.SIGTERM)
        wait_until(lambda: self.pid(program) not in (0, before), timeout=60, what=f"a new {program}")

    def pid(self, program: str) -> int:
        """The id of a process of the stack, or 0 while it is not running."""
        found = re.search(rf"^\s*{program}\s.*\bpid (\d+)", self.command("status").stdout, re.MULTILINE)
        return int(found[1]) if found else 0

    def specification(self, program: str) -> dict[str, str]:
        """The environment with which a process of the stack was started."""
        given: dict[str, str] = json.loads((self.state / "run" / f"{program}.json").read_text())["env"]
        return given


@contextmanager
def running_stack(environment: Mapping[str, str] | None = None) -> Iterator[RunningStack]:
    """Start a stack with further variables, then stop and delete it. Raises `AssertionError` with its output."""
    state = disposable_folder("stack")
    airflow_port, backend_port, frontend_port = free_port(), free_port(), free_port()
    while airflow_port > 64000:
        airflow_port = free_port()
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("POSTGRES_", "AIRFLOW", "OPENAI_", "LANGFUSE_", "VISUAL_AI_"))
    }
    stack = RunningStack(
        airflow_url=f"http://127.0.0.1:{airflow_port}",
        backend_url=f"http://127.0.0.1:{backend_port}",
        frontend_url=f"http://127.0.0.1:{frontend_port}",
        username="airflow",
        password="airflow",
        state=state,
        environment=inherited
        | {
            "VISUAL_AI_STACK_DIR": str(state),
            "VISUAL_AI_AIRFLOW_PORT": str(airflow_port),
            "VISUAL_AI_BACKEND_PORT": str(backend_port),
            "VISUAL_AI_FRONTEND_PORT": str(frontend_port),
            "POSTGRES_PORT": str(free_port()),
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
                [
                    {"name": "dags-folder", "classpath": _BUNDLE, "kwargs": {}},
                    {"name": "own", "classpath": _BUNDLE, "kwargs": {"path": str(state / "own-dags")}},
                ]
            ),
        }
        | dict(environment or {}),
    )
    stack.dags.mkdir()
    try:
        started = stack.command("up")
        assert started.returncode == 0, f"{started.stdout}\n{started.stderr}"
        yield stack
    finally:
        stopped = stack.command("down")
        shutil.rmtree(state, ignore_errors=True)
    assert stopped.returncode == 0, stopped.stderr


def free_port() -> int:
    """A TCP port of the loopback on which nothing listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(ask: Callable[[], T | None], *, timeout: float, poll: float = 0.1, what: str = "it") -> T:
    """Poll `ask` until it returns neither None nor False. Raises `TimeoutError` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = ask()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {timeout:g} s in vain for {what}")
        time.sleep(poll)


def wait_for_dag(airflow: httpx.Client, dag_id: str, *, timeout: float = 60) -> None:
    """Wait until the DAG was parsed."""
    wait_until(
        lambda: airflow.get(f"/api/v2/dags/{dag_id}").status_code == httpx.codes.OK,
        timeout=timeout, poll=0.5, what=f"DAG {dag_id}",
    )  # fmt: skip


def start_run(airflow: httpx.Client, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
    """Start a run through Airflow's own API, as another client would. Returns its id."""
    answer = airflow.post(f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": dict(conf or {})})
    assert answer.is_success, answer.text
    return str(answer.json()["dag_run_id"])


def finished_run(airflow: httpx.Client, dag_id: str, run_id: str, *, timeout: float = 60) -> dict[str, Any]:
    """The run in Airflow once it has finished."""

    def ask() -> dict[str, Any] | None:
        run: dict[str, Any] = airflow.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}").raise_for_status().json()
        return run if run["state"] in FINISHED else None

    return wait_until(ask, timeout=timeout, what=f"the end of {dag_id} {run_id}")


def _signed_in(url: str, username: str, password: str) -> httpx.Client:
    given = {"username": username, "password": password}
    answer = httpx.post(f"{url}/auth/token", json=given, timeout=30, trust_env=False).raise_for_status()
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    return httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False)
