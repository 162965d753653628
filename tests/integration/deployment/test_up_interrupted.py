"""`up` that is interrupted stops what it started and exits as a shell expects of an interrupted program."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.processes.stack import ROOT, free_port


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections and never answers, so that `up` waits for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_start_exits_with_130(tmp_path: Path, silent_server: int, number: signal.Signals) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES_", "VISUAL_AI_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "backend", "up"],
        env=kept
        | {
            "VISUAL_AI_STACK_DIR": str(tmp_path),
            "VISUAL_AI_FRONTEND": "false",
            "VISUAL_AI_AIRFLOW_PORT": str(free_port() % 60_000 + 2_000),
            "VISUAL_AI_BACKEND_PORT": str(free_port()),
            "VISUAL_AI_EVENT_RETENTION_DAY": "3",
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(silent_server),
        },
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell that runs the tests in the background has them ignore the signal, and they would pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        # The line of a step has no end before the step has one.
        seen = ""
        while "PostgreSQL at" not in seen and (character := process.stdout.read(1)):
            seen += character
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, f"{seen}{output}{errors}"
    assert output.rstrip().endswith("Stopped.")
    assert "Traceback" not in errors
    # Named before anything is started, so that a start that takes long shows it at once.
    assert "VISUAL_AI_EVENT_RETENTION_DAY is not a setting; did you mean VISUAL_AI_EVENT_RETENTION_DAYS?" in seen
