"""Changes accounts of a running stack's Airflow."""

import json
import subprocess
import sys
from typing import Any

from tests.kit.processes.stack import RunningStack

# Airflow's API lets even an Admin create neither users nor roles, and each command of its command line takes seconds.
SCRIPT = """
import json, sys
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
wanted = json.load(sys.stdin)
with get_application_builder() as builder:
    manager = builder.sm
    for name, permissions in wanted.get("roles", {}).items():
        manager.bulk_sync_roles([{"role": name, "perms": [tuple(one) for one in permissions]}])
    for name, role in wanted.get("users", {}).items():
        assert manager.add_user(
            name, name, "Test", f"{name}@example.com", manager.find_role(role), wanted["password"]
        )
    for name in wanted.get("deleted", []):
        user = manager.find_user(username=name)
        user.roles = []
        manager.session.delete(user)
        manager.session.commit()
"""


def change_accounts(stack: RunningStack, **wanted: Any) -> None:
    """Change Airflow's users and roles."""
    subprocess.run(
        [sys.executable, "-c", SCRIPT], env=stack.specification("api-server"), input=json.dumps(wanted), text=True,
        check=True, capture_output=True,
    )  # fmt: skip
