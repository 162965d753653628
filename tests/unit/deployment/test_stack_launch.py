"""How the stack's processes are started, and where their output goes."""

import json
import os
import subprocess
import sys
from pathlib import Path

from backend.stack import launch
from tests.kit.processes.stack import wait_until

# Leaves a child behind that waits for the pipe `go` to be written, logs a line and exits normally.
PROGRAM = """
import os, signal
print("first", flush=True)
if os.fork():
    os.kill(os.getpid(), signal.SIGKILL)
open("go").read()
print("left behind", flush=True)
open("ended", "w").close()
"""


def start(folder: Path, program: str, log: Path | None) -> "subprocess.Popen[bytes]":
    (folder / "program.py").write_text(program)
    specification = folder / "program.json"
    values = {
        "command": f"{sys.executable} {folder / 'program.py'}",
        "env": {"PATH": os.environ["PATH"], "GREETING": "it's 100% “quoted”"},
        "log": None if log is None else str(log),
    }
    specification.write_text(json.dumps(values))
    return subprocess.Popen([sys.executable, launch.__file__, str(specification)], cwd=folder, stdout=subprocess.PIPE)


def test_the_children_of_a_killed_process_can_still_log(tmp_path: Path) -> None:
    log = tmp_path / "scheduler.log"
    os.mkfifo(tmp_path / "go")
    process = start(tmp_path, PROGRAM, log)
    try:
        assert process.communicate()[0] == b""  # the pipe is closed now, as the supervisor would close it
    finally:
        (tmp_path / "go").write_text("go")
    wait_until((tmp_path / "ended").exists, timeout=10)
    wait_until(lambda: log.exists() and log.read_text().splitlines() == ["first", "left behind"], timeout=30)


def test_a_process_has_the_environment_of_its_specification(tmp_path: Path) -> None:
    process = start(tmp_path, "import os; print(os.environ.get('HOME'), os.environ['GREETING'])", None)
    assert process.communicate()[0].decode().strip() == "None it's 100% “quoted”"


def test_logs_are_rotated_and_nothing_is_lost(tmp_path: Path) -> None:
    log = tmp_path / "scheduler.log"
    line = "x" * 999
    count = launch.MAX_LOG_BYTES // 1_000 + 10
    given = (f"{line}\n" * count).encode() + b"\xff is not UTF-8\n"
    subprocess.run([sys.executable, launch.__file__, "--log", str(log)], input=given, check=True)
    written = [
        one for name in ("scheduler.log.1", "scheduler.log") for one in (tmp_path / name).read_text().splitlines()
    ]
    assert len(written) == count + 1
    assert written[-1] == "\ufffd is not UTF-8"
