"""Test processes that are killed with SIGKILL leave no server behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.kit.processes.stack import ROOT, wait_until

# Waits with servers running, like a test that hangs. The stack's variable stands for the processes of a whole stack.
TEST = """
import json, os, subprocess, time
from pathlib import Path

from tests.kit.processes.reaper import disposable_folder


def test_that_waits(postgres, redis_server):
    of_a_stack = {"PATH": os.environ["PATH"], "VISUAL_AI_STACK": str(disposable_folder("stack"))}
    child = subprocess.Popen(["sleep", "600"], env=of_a_stack)
    postmaster = int((postgres.data / "postmaster.pid").read_text().split()[0])
    pids = [postmaster, redis_server._process.pid, child.pid]
    Path("unfinished").write_text(json.dumps({"folder": str(postgres.data), "pids": pids}))
    Path("unfinished").rename("ready")
    time.sleep(600)
"""


@pytest.mark.parametrize("distribution", [["-p", "no:xdist"], ["-n", "1"]], ids=["one-process", "workers"])
def test_a_killed_pytest_leaves_no_server_behind(tmp_path: Path, distribution: list[str]) -> None:
    (tmp_path / "test_that_waits.py").write_text(TEST)
    (tmp_path / "pytest.ini").touch()
    ready = tmp_path / "ready"
    pytest_process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.kit.fixtures.servers", *distribution],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: ready.exists() or pytest_process.poll() is not None, timeout=120, what="the servers")
        found = json.loads(ready.read_text())
        folder, servers = Path(found["folder"]), [psutil.Process(pid) for pid in found["pids"]]
        assert folder.exists()
        assert all(server.is_running() for server in servers)
    finally:
        pytest_process.send_signal(signal.SIGKILL)
        pytest_process.wait()
    wait_until(lambda: not any(alive(server) for server in servers), timeout=30, what="the end of the servers")
    wait_until(lambda: not folder.exists(), timeout=10, what="the deletion of their data")


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
