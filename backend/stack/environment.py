"""The environment of each process of `make up`: exactly what it needs.

Airflow's processes get the metadata database and the worker role; the backend gets its own role and its service
account. Neither gets the database's administrator. Secrets are passed in the environment only, never as arguments.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from backend.deployment.environment import (
    Databases,
    Places,
    airflow_secrets,
    airflow_settings,
    backend_settings,
    pages_url,
    passed_on,
)
from backend.deployment.layout import Layout
from backend.deployment.options import StackOptions
from backend.deployment.processes import MARKER_VARIABLE


def base_environment(layout: Layout, options: StackOptions, person: Mapping[str, str]) -> dict[str, str]:
    """The environment of every process: the user's, without the secrets of other processes, and the stack's marker."""
    return passed_on(person) | {
        MARKER_VARIABLE: layout.identity,
        # Keeps setproctitle from overwriting the marker in /proc/<pid>/environ.
        "SPT_NOENV": "1",
        "PATH": f"{Path(sys.executable).parent}:{person.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        "VISUAL_AI_PROJECTS_DIR": person.get("VISUAL_AI_PROJECTS_DIR") or str(layout.projects),
        "VISUAL_AI_AIRFLOW_PORT": str(options.airflow_port),
        "VISUAL_AI_BACKEND_PORT": str(options.backend_port),
        "VISUAL_AI_FRONTEND_PORT": str(options.frontend_port),
    }


def airflow_environment(
    layout: Layout,
    options: StackOptions,
    person: Mapping[str, str],
    credentials: Mapping[str, str],
    databases: Databases,
) -> dict[str, str]:
    """The environment of Airflow's processes, and therefore of every task and trigger."""
    return {
        **base_environment(layout, options, person),
        **airflow_settings(_places(layout, options, person), person),
        **airflow_secrets(credentials, databases.airflow),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(options.airflow_port),
        # Not served, as logs are on this disk, but requested for running tasks: no other stack's server must respond.
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(options.worker_log_port),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(options.triggerer_log_port),
        "VISUAL_AI_DATABASE_URL": databases.worker,
    }


def backend_environment(
    layout: Layout,
    options: StackOptions,
    person: Mapping[str, str],
    credentials: Mapping[str, str],
    databases: Databases,
) -> dict[str, str]:
    """The backend's environment: access to Airflow's API, but not to its database."""
    return {
        **base_environment(layout, options, person),
        **backend_settings(_places(layout, options, person), person, credentials, databases.backend),
    }


def frontend_environment(layout: Layout, options: StackOptions, person: Mapping[str, str]) -> dict[str, str]:
    """The environment of the frontend's server: ports, but no keys."""
    base = base_environment(layout, options, {"PATH": person.get("PATH", ""), "HOME": person.get("HOME", "/")})
    return {
        **base,
        "VISUAL_AI_BACKEND_URL": options.backend_url,
        "CI": "true",  # otherwise Vite exits when its standard input is closed
        "NODE_ENV": "production",
    }


def _places(layout: Layout, options: StackOptions, person: Mapping[str, str]) -> Places:
    return Places(
        home=layout.airflow_home,
        source=layout.root / "airflow",
        airflow_url=options.airflow_url,
        airflow_public_url=person.get(
            "VISUAL_AI_AIRFLOW_PUBLIC_URL", f"http://localhost:{options.airflow_port}"
        ).rstrip("/"),
        backend_public_url=person.get("VISUAL_AI_PUBLIC_URL", f"http://localhost:{options.backend_port}"),
        pages_public_url=pages_url(person, options.frontend_port),
    )
