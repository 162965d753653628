"""Migrates Airflow's own database and creates its accounts, in one process.

Every command of Airflow's CLI takes seconds to start; this script does the work of `db migrate`, `sync-perm`,
two `roles create` and two `users create`. Idempotent. It reads from the environment:

    VISUAL_AI_SETUP_USERNAME, _PASSWORD                   the administrator; _PASSWORD_IS_SET=1 also resets the password
    VISUAL_AI_SETUP_SERVICE_USERNAME, _SERVICE_PASSWORD   the backend's account, whose password is always set
"""

import os
import sys
from typing import Any

SERVICE_ROLE = "VisualAIService"
FLOW_ROLE = "FlowUser"

SERVICE_PERMISSIONS = [
    ("can_read", "DAGs"),
    ("can_edit", "DAGs"),  # required wherever a run is created or changed
    ("can_read", "DAG Runs"),
    ("can_create", "DAG Runs"),
    ("can_edit", "DAG Runs"),
    ("can_read", "Task Instances"),
    ("can_edit", "Task Instances"),  # clearing failed tasks, to retry them
    ("can_read", "Task Logs"),
    ("can_read", "Audit Logs"),  # who or what ended a run
    ("can_read", "XComs"),
    ("can_read", "Pools"),  # whether one is full
    ("can_read", "Assets"),  # what a schedule that was set with a service token may wait for
    ("can_read", "HITL Detail"),
    ("can_edit", "HITL Detail"),  # passing on a person's answer
    ("can_read", "ImportError"),
    ("can_read", "DAG Warnings"),
    ("can_read", "DAG Versions"),
    ("can_read", "Users"),  # looking up the role of a user who requests a token
    ("can_read", "Roles"),
]

FLOW_PERMISSIONS = [
    ("can_read", "DAGs"),
    ("can_edit", "DAGs"),  # Airflow requires it wherever a run is created; it includes pausing
    ("can_create", "DAG Runs"),
    ("can_read", "Website"),
    ("can_read", "My Profile"),
    ("can_edit", "My Profile"),
    ("can_read", "My Password"),
    ("can_edit", "My Password"),
    ("menu_access", "DAGs"),
]
"""To the page and the API it is a `User`. In Airflow it shows no run: neither conf nor XComs, tasks or logs."""


def ensure_user(manager: Any, *, username: str, password: str, role: str, reset: bool, names: tuple[str, str]) -> None:
    """Create the account or restore its role; `reset` also sets the password of an existing account."""
    found_role = manager.find_role(role)
    if found_role is None:
        raise SystemExit(f"Airflow has no role {role}")
    user = manager.find_user(username=username)
    if user is None:
        if not manager.add_user(username, *names, f"{username}@localhost.localdomain", found_role, password):
            raise SystemExit(f"Airflow could not create the user {username}")
        return
    if found_role not in user.roles:
        user.roles = [*user.roles, found_role]
        manager.update_user(user)
    if reset:
        manager.reset_password(user.id, password)


def restrict_role(manager: Any, role_name: str, permissions: list[tuple[str, str]]) -> None:
    """Create the role with exactly these permissions; any others are removed from an existing one."""
    manager.bulk_sync_roles([{"role": role_name, "perms": permissions}])
    role = manager.find_role(role_name)
    for permission in list(role.permissions):
        if (permission.action.name, permission.resource.name) not in permissions:
            manager.remove_permission_from_role(role, permission)


def main() -> int:
    """Run the set-up. Raises whatever Airflow raises."""
    from airflow.utils import db
    from airflow.utils.providers_configuration_loader import providers_configuration_loaded

    @providers_configuration_loaded
    def setup() -> None:
        db.upgradedb()
        from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

        with get_application_builder() as builder:
            manager = builder.sm
            manager.sync_roles()
            restrict_role(manager, SERVICE_ROLE, SERVICE_PERMISSIONS)
            if manager.find_role(FLOW_ROLE) is None:  # afterwards it is the administrator's
                restrict_role(manager, FLOW_ROLE, FLOW_PERMISSIONS)
            ensure_user(
                manager,
                username=os.environ["VISUAL_AI_SETUP_USERNAME"],
                password=os.environ["VISUAL_AI_SETUP_PASSWORD"],
                role="Admin",
                reset=os.environ.get("VISUAL_AI_SETUP_PASSWORD_IS_SET") == "1",
                names=("Airflow", "Admin"),
            )
            ensure_user(
                manager,
                username=os.environ["VISUAL_AI_SETUP_SERVICE_USERNAME"],
                password=os.environ["VISUAL_AI_SETUP_SERVICE_PASSWORD"],
                role=SERVICE_ROLE,
                reset=True,
                names=("Visual AI", "Service"),
            )

    setup()
    return 0


if __name__ == "__main__":
    sys.exit(main())
