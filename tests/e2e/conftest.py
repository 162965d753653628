"""The whole stack, started once for all end-to-end tests, on free ports and with a state directory of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class RunningStack:
    """Where the stack of the tests is; `environment` runs `python -m backend <command>` against it."""

    airflow_url: str
    backend_url: str
    username: str
    password: str
    state: Path
    environment: Mapping[str, str]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m backend` with `arguments` for this stack."""
        return subprocess.run(
            [sys.executable, "-m", "backend", *arguments],
            env=dict(self.environment), cwd=ROOT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip


@pytest.fixture(scope="session")
def stack_environment() -> dict[str, str]:
    """Further variables for the stack, such as OPENAI_BASE_URL; a conftest or a module overrides it."""
    return {}


@pytest.fixture(scope="session")
def stack(stack_environment: dict[str, str]) -> Iterator[RunningStack]:
    """The running stack. Fails with its output when it doesn't come up; stopped and removed after the tests."""
    state = Path(tempfile.mkdtemp(prefix="visual-ai-stack-"))
    airflow_port, backend_port = free_port(), free_port()
    while airflow_port > 64000:
        airflow_port = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "AIRFLOW"))}
    handle = RunningStack(
        airflow_url=f"http://127.0.0.1:{airflow_port}",
        backend_url=f"http://127.0.0.1:{backend_port}",
        username="airflow",
        password="airflow",
        state=state,
        environment=inherited
        | {
            "VISUAL_AI_STACK_DIR": str(state),
            "VISUAL_AI_AIRFLOW_PORT": str(airflow_port),
            "VISUAL_AI_BACKEND_PORT": str(backend_port),
            "POSTGRES_PORT": str(free_port()),
        }
        | stack_environment,
    )
    try:
        started = handle.command("up")
        assert started.returncode == 0, f"{started.stdout}\n{started.stderr}"
        yield handle
    finally:
        stopped = handle.command("down")
        shutil.rmtree(state, ignore_errors=True)
    assert stopped.returncode == 0, stopped.stderr
