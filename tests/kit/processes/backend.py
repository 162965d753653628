"""Backends in separate processes, as in production: `python -m backend serve`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from tests.kit.processes.stack import ROOT, free_port, wait_until


class BackendProcess:
    """A context manager. After `kill`, `start` starts it again on the same port."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("POSTGRES_", "AIRFLOW", "OPENAI_", "LANGFUSE_", "VISUAL_AI_", "REDIS_"))
                and name != "PYTHONDONTWRITEBYTECODE"
            },
            **environment,
        }
        descriptor, name = tempfile.mkstemp(prefix="visual-ai-backend-", suffix=".log")
        os.close(descriptor)
        self.log = Path(name)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        self.log.unlink()

    def launch(self) -> None:
        """Start it without waiting."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "backend", "serve", "--port", str(self.port)],
                env=self._environment, cwd=tempfile.gettempdir(), stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def start(self, *, timeout: float = 60) -> None:
        """Start it and wait until it responds."""
        self.launch()
        self.wait(timeout=timeout)

    def wait(self, *, timeout: float = 60) -> None:
        """Wait until it responds."""

        def answers() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()
            try:
                return httpx.get(f"{self.url}/healthz", trust_env=False, timeout=2).is_success
            except httpx.HTTPError:
                return False

        wait_until(answers, timeout=timeout, poll=0.05, what="the backend")

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def memory(self) -> int:
        """Resident memory in bytes."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def kill(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def terminate(self) -> None:
        """Send SIGTERM, as a supervisor does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def ended(self, *, timeout: float) -> int:
        """Wait for it to exit, at most `timeout` seconds, and return its exit code."""
        assert self._process is not None
        code = self._process.wait(timeout)
        self._process = None
        return code


def environment(database_url: str, airflow_url: str, *, redis_url: str | None = None, **more: str) -> dict[str, str]:
    """The environment of a backend, plus any further variables."""
    return {
        "PYTHONPATH": str(ROOT),
        "VISUAL_AI_DATABASE_URL": database_url,
        "VISUAL_AI_AIRFLOW_URL": airflow_url,
        "VISUAL_AI_JWT_SECRET": "a secret that several backends share",
        **({"REDIS_URL": redis_url} if redis_url else {}),
        **more,
    }
