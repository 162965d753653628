"""Starts one process of the stack with exactly the environment in its specification, a JSON file only its owner reads.

The supervisor's own configuration thus holds no secrets, and no value needs quoting. Standard library only: it is
replaced by the process at once.
"""

import json
import os
import sys
from pathlib import Path


def main(specification: str) -> None:
    """Become the process: `exec` of the command line of the Procfile by `sh`, which expands its variables."""
    wanted = json.loads(Path(specification).read_text())
    if wanted["reap"]:
        from backend.stack.processes import end_idle_task_workers  # only the scheduler needs it

        end_idle_task_workers(wanted["env"])
    os.execve("/bin/sh", ["sh", "-c", f"exec {wanted['command']}"], wanted["env"])  # noqa: S606  # its own Procfile


if __name__ == "__main__":
    main(sys.argv[1])
