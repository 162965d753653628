"""The environment of each process of `make up`: what it needs and no more.

Airflow's processes get the metadata database and the worker role, the backend gets its own role and its service
account. Neither gets the database's administrator. Secrets travel in the environment only, never in arguments.
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
    setup_accounts,
)
from backend.deployment.layout import Layout
from backend.deployment.options import StackOptions
from backend.deployment.processes import MARKER_VARIABLE


def base_environment(layout: Layout, options: StackOptions, person: Mapping[str, str]) -> dict[str, str]:
    """What every process gets: the person's environment without secrets that are not theirs, and the marker."""
    return passed_on(person) | {
        MARKER_VARIABLE: layout.identity,
        # Titles of processes must not overwrite the marker in /proc/<pid>/environ.
        "SPT_NOENV": "1",
        "PATH": f"{Path(sys.executable).parent}:{person.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
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
    """The environment of Airflow's processes, and with it of every task and trigger."""
    return {
        **base_environment(layout, options, person),
        **airflow_settings(_places(layout, options, person), person),
        **airflow_secrets(credentials, databases.airflow),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(options.airflow_port),
        # Not served (logs are on this disk), but asked for a running task: nobody else's server must answer.
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(options.worker_log_port),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(options.triggerer_log_port),
        "VISUAL_AI_DATABASE_URL": databases.worker,
    }


def setup_environment(
    airflow: Mapping[str, str], options: StackOptions, person: Mapping[str, str], credentials: Mapping[str, str]
) -> dict[str, str]:
    """Airflow's environment plus the accounts to make."""
    return {**airflow, **setup_accounts(options.username, options.password.get_secret_value(), person, credentials)}


def backend_environment(
    layout: Layout,
    options: StackOptions,
    person: Mapping[str, str],
    credentials: Mapping[str, str],
    databases: Databases,
) -> dict[str, str]:
    """The backend's environment: no way into Airflow's database, only its API."""
    return {
        **base_environment(layout, options, person),
        **backend_settings(_places(layout, options, person), person, credentials, databases.backend),
    }


def frontend_environment(layout: Layout, options: StackOptions, person: Mapping[str, str]) -> dict[str, str]:
    """What serves the pages: it knows ports and no keys."""
    base = base_environment(layout, options, {"PATH": person.get("PATH", ""), "HOME": person.get("HOME", "/")})
    return {
        **base,
        "VISUAL_AI_BACKEND_URL": options.backend_url,
        "CI": "true",  # it would end when nobody holds its standard input
        "NODE_ENV": "production",
    }


def _places(layout: Layout, options: StackOptions, person: Mapping[str, str]) -> Places:
    return Places(
        home=layout.airflow_home,
        source=layout.root / "airflow",
        airflow_url=options.airflow_url,
        airflow_public_url=f"http://localhost:{options.airflow_port}",
        backend_public_url=person.get("VISUAL_AI_PUBLIC_URL", f"http://localhost:{options.backend_port}"),
        pages_public_url=pages_url(person, options.frontend_port),
    )
