"""Starts one process of the stack with exactly the environment in its specification, a JSON file only its owner reads.

The supervisor's own configuration thus holds no secrets, and no value needs quoting. Standard library only: it is
replaced by the process at once.
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def main(specification: str) -> None:
    """Become the process: `exec` of the command line of the Procfile by `sh`, which expands its variables."""
    wanted = json.loads(Path(specification).read_text())
    if wanted["log"] is not None:
        _write_to(wanted["log"], wanted["env"])
    os.execve("/bin/sh", ["sh", "-c", f"exec {wanted['command']}"], wanted["env"])  # noqa: S606  # its own Procfile


def _write_to(log: str, environment: dict[str, str]) -> None:
    """Have output written to a file by a process that lasts as long as anybody who writes."""
    read, write = os.pipe()
    subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("log_pump.py")), log],
        env=environment,
        stdin=read,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # what ends a process and all it has started leaves this one
    )
    os.close(read)
    for stream in (1, 2):
        os.dup2(write, stream)
    os.close(write)


if __name__ == "__main__":
    main(sys.argv[1])
