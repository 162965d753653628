"""The environment variables of an installation's processes, wherever they run: on one machine or in containers.

`make up` (`backend.stack.environment`) and the images (`backend.deployment.entrypoint`) add addresses and ports;
everything else is defined here, once. In this package `person` is the environment that the user has set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backend.db.roles import BACKEND_ROLE, WORKER_ROLE

SERVICE_USER = "visual_ai_service"
"""The backend's own account in Airflow."""

_NEVER_PASSED = frozenset(
    {
        "PYTHONDONTWRITEBYTECODE",  # would double the time of every start
        "PYTHONHOME",
        "PYTHONPATH",
        "POSTGRES_PASSWORD",
        "POSTGRES_USER",
        "_AIRFLOW_WWW_USER_PASSWORD",
        "VISUAL_AI_BACKEND_DB_PASSWORD",
        "VISUAL_AI_WORKER_DB_PASSWORD",
        "VISUAL_AI_DATABASE_URL",
        "VISUAL_AI_AIRFLOW_PASSWORD",
        "VISUAL_AI_JWT_SECRET",
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
    }
)

_AIRFLOWS_OWN = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_")
"""The prefixes of the user's options, connections and variables for Airflow, which only its processes get."""

PLACEHOLDERS = frozenset({"your_openai_api_key", "your_langfuse_public_key", "your_langfuse_secret_key"})
"""Values in the integration guide's `.env` that stand for keys. They are treated as if they weren't set."""

# Users can override each of these with their own AIRFLOW__ variable.
AIRFLOW_DEFAULTS = {
    # airflow/config/visual_ai_executor.py, under the alias that DAGs may use as a task's `executor`.
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor:visual_ai_executor.AdoptingLocalExecutor",
    # Idle workers of LocalExecutor are real processes: 8 suit a small machine.
    "AIRFLOW__CORE__PARALLELISM": "8",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    # The default asks DNS for the fully qualified name, which takes seconds on some laptops.
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
    "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    # The API server answers in 40 threads. Each takes a connection, and needs another of these threads to give it back:
    # with the default of 15 connections a burst of tasks makes them wait for each other for 30 s.
    "AIRFLOW__DATABASE__SQL_ALCHEMY_MAX_OVERFLOW": "40",
    # A one-task DAG takes 2.2 s from trigger to success with the default of 1 s, and 0.6 s with this.
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    # A scheduler or triggerer counts as dead after this long without a heartbeat: four heartbeats, which arrive every
    # 5 s even from an overloaded machine. Its queued tasks, or its triggers, are then taken over. With the defaults
    # (30 s, and 5 minutes for the check for orphans) that would take longer than the restart itself.
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
    # A task asks the API server again for about 10 minutes, as long as its token is valid, at most 5 s apart, and gives
    # a slow answer time: neither a restart nor an outage of that server costs a try. With the defaults (five attempts,
    # 6 s or more, and 5 s for an answer) a task that begins meanwhile fails, and a running one ends after three
    # heartbeats.
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "200",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
    # How often, in seconds, a task's supervisor checks whether its process has ended: with the default of 5 a failed
    # task often ends 5 s late, and a stopped one keeps running for as long.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    # A new DAG file appears within seconds, and a changed one soon after.
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "5",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "15",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    # The set-up synchronises the roles; doing so again at every start of the API server costs seconds.
    "AIRFLOW__FAB__UPDATE_FAB_PERMS": "False",
    "AIRFLOW__API__EXPOSE_CONFIG": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}


@dataclass(frozen=True)
class Databases:
    """SQLAlchemy URLs with passwords: Airflow's metadata (psycopg 2), and `visual_ai` for its two roles."""

    airflow: str
    backend: str
    worker: str


@dataclass(frozen=True)
class Places:
    """Directories and addresses of an installation.

    `home` is Airflow's own directory (logs), `source` is the project's `airflow/`. Processes use `airflow_url`, people
    use the public URLs. URLs have no trailing slash.
    """

    home: Path
    source: Path
    airflow_url: str
    airflow_public_url: str
    backend_public_url: str
    pages_public_url: str


def pages_url(person: Mapping[str, str], port: int) -> str:
    """The public address of the web page; behind a proxy it is the backend's."""
    return person.get("VISUAL_AI_PAGES_URL") or person.get("VISUAL_AI_PUBLIC_URL") or f"http://localhost:{port}"


def passed_on(person: Mapping[str, str]) -> dict[str, str]:
    """The user's variables for every process: no secrets of single processes, none of Airflow's, no placeholders."""
    return {
        name: value
        for name, value in person.items()
        if name not in _NEVER_PASSED and not name.startswith("AIRFLOW_") and value not in PLACEHOLDERS
    }


def airflow_settings(places: Places, person: Mapping[str, str]) -> dict[str, str]:
    """What every Airflow process needs, including workers on other machines: no secrets and no database."""
    own = {name: value for name, value in person.items() if name.startswith(_AIRFLOWS_OWN)}
    return {
        **AIRFLOW_DEFAULTS,
        **own,
        "AIRFLOW_HOME": str(places.home),
        "AIRFLOW_CONFIG": str(places.home / "airflow.cfg"),
        "PYTHONPATH": str(places.source / "config"),  # for airflow_local_settings, even when AIRFLOW_HOME is elsewhere
        "AIRFLOW__CORE__DAGS_FOLDER": person.get("AIRFLOW__CORE__DAGS_FOLDER", str(places.source / "dags")),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(places.source / "plugins"),
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{places.airflow_url}/execution/",
        "AIRFLOW__FAB__CONFIG_FILE": str(places.source / "config" / "webserver_config.py"),
        "AIRFLOW__API__BASE_URL": places.airflow_public_url,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(places.home / "logs"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(places.home / "logs" / "dag_processor"),
        "VISUAL_AI_PUBLIC_URL": places.backend_public_url,
        "VISUAL_AI_PAGES_URL": places.pages_public_url,
        "VISUAL_AI_AIRFLOW_PUBLIC_URL": places.airflow_public_url,
    }


def airflow_secrets(credentials: Mapping[str, str], metadata_url: str) -> dict[str, str]:
    """What Airflow's own processes need in addition, and a worker on another machine must not have."""
    return {
        "AIRFLOW__CORE__FERNET_KEY": credentials["AIRFLOW_FERNET_KEY"],
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata_url,
        "AIRFLOW__API__SECRET_KEY": credentials["AIRFLOW_SECRET_KEY"],
        "AIRFLOW__API_AUTH__JWT_SECRET": credentials["AIRFLOW_JWT_SECRET"],
    }


def backend_settings(
    places: Places, person: Mapping[str, str], credentials: Mapping[str, str], database_url: str
) -> dict[str, str]:
    """What the backend needs: access to Airflow's API, but not to its database."""
    return {
        "VISUAL_AI_DATABASE_URL": database_url,
        "VISUAL_AI_AIRFLOW_URL": places.airflow_url,
        "VISUAL_AI_AIRFLOW_PUBLIC_URL": places.airflow_public_url,
        "VISUAL_AI_AIRFLOW_USERNAME": SERVICE_USER,
        "VISUAL_AI_AIRFLOW_PASSWORD": credentials["AIRFLOW_SERVICE_PASSWORD"],
        "VISUAL_AI_PUBLIC_URL": places.backend_public_url,
        "VISUAL_AI_PAGES_URL": places.pages_public_url,
        "VISUAL_AI_JWT_SECRET": person.get("VISUAL_AI_JWT_SECRET") or credentials["VISUAL_AI_JWT_SECRET"],
    }


def setup_accounts(
    username: str, password: str, person: Mapping[str, str], credentials: Mapping[str, str]
) -> dict[str, str]:
    """The accounts that `airflow/config/airflow_bootstrap.py` creates."""
    return {
        "VISUAL_AI_SETUP_USERNAME": username,
        "VISUAL_AI_SETUP_PASSWORD": password,
        # A password set in the environment wins; the default one may have been changed in Airflow's UI since.
        "VISUAL_AI_SETUP_PASSWORD_IS_SET": "1" if person.get("_AIRFLOW_WWW_USER_PASSWORD") else "",
        "VISUAL_AI_SETUP_SERVICE_USERNAME": SERVICE_USER,
        "VISUAL_AI_SETUP_SERVICE_PASSWORD": credentials["AIRFLOW_SERVICE_PASSWORD"],
    }


def given_role_passwords(person: Mapping[str, str]) -> dict[str, str]:
    """The passwords that the user set for the database roles; missing ones are derived (`backend.db.roles`)."""
    names = {BACKEND_ROLE: "VISUAL_AI_BACKEND_DB_PASSWORD", WORKER_ROLE: "VISUAL_AI_WORKER_DB_PASSWORD"}
    return {role: person[name] for role, name in names.items() if person.get(name)}
