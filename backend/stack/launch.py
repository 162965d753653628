"""Starts one process of the stack with exactly the environment in its specification.

The specification is a JSON file that only its owner can read, so the supervisor's configuration holds no secrets and no
value needs quoting. Two commands; standard library only, because each of them is one more process:

    launch.py SPECIFICATION     become the process
    launch.py --log PATH        copy standard input to a rotated log file until every writer has closed it

The second one is for the scheduler. The supervisor reads a process's output from a pipe that it closes when the process
exits; tasks that outlive their scheduler would be killed by their next line of output.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

MAX_LOG_BYTES = 10_000_000
BACKUPS = 3


def launch(specification: str) -> None:
    """Become the process: `sh` expands the variables in the Procfile's command line and executes it."""
    process = json.loads(Path(specification).read_text())
    if process["log"] is not None:
        _redirect_output(process["log"], process["env"])
    os.execve("/bin/sh", ["sh", "-c", f"exec {process['command']}"], process["env"])  # noqa: S606  # the checkout's Procfile


def write_log(path: str) -> None:
    """Copy standard input, line by line, to the rotated file at `path`."""
    from logging import makeLogRecord
    from logging.handlers import RotatingFileHandler

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with the last process that writes to it
    handler = RotatingFileHandler(path, maxBytes=MAX_LOG_BYTES, backupCount=BACKUPS)
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]  # it is a text stream
    for line in sys.stdin:
        handler.emit(makeLogRecord({"msg": line.rstrip("\n")}))


def _redirect_output(log: str, environment: dict[str, str]) -> None:
    read, write = os.pipe()
    subprocess.Popen(
        [sys.executable, __file__, "--log", log],
        env=environment,
        stdin=read,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # whoever stops the process and its descendants leaves this one alone
    )
    os.close(read)
    for stream in (1, 2):
        os.dup2(write, stream)
    os.close(write)


if __name__ == "__main__":
    if sys.argv[1] == "--log":
        write_log(sys.argv[2])
    else:
        launch(sys.argv[1])
