"""The entry of the images: gives a process its part of an installation's environment, and becomes that process.

    init             once, as root: directories that belong to AIRFLOW_UID, and the secrets
    migrate          once, after `init`: the database, its roles, Airflow's accounts
    airflow …        Airflow's command line
    serve            the backend
    anything else    that program, as it is

Secrets are made by `init` and lie in three volumes, so that each service is given only those that it needs. Where none
of them is mounted, as in Kubernetes, the environment is taken as it is.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from backend.db.address import database_url
from backend.db.roles import BACKEND_ROLE, WORKER_ROLE
from backend.deployment.credentials import load_credentials, read_credentials
from backend.deployment.environment import (
    Places,
    airflow_secrets,
    airflow_settings,
    backend_settings,
    pages_url,
    passed_on,
    setup_accounts,
)
from backend.deployment.layout import StackError
from backend.deployment.local_network import gateway
from backend.deployment.options import COMPOSE_DATABASE_HOST, StackOptions, container_options

AIRFLOW, WORKER, BACKEND = "airflow", "worker", "backend"

SECRETS = {
    AIRFLOW: ("AIRFLOW_FERNET_KEY", "AIRFLOW_SECRET_KEY", "AIRFLOW_JWT_SECRET"),
    WORKER: ("VISUAL_AI_WORKER_DB_PASSWORD",),
    BACKEND: ("AIRFLOW_SERVICE_PASSWORD", "VISUAL_AI_BACKEND_DB_PASSWORD", "VISUAL_AI_JWT_SECRET"),
}
"""Each volume and what lies in it. Airflow's services have the first two, a worker of Celery only the second."""

CELERY_PROFILE = "celery"
CELERY = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    # Two workers of eight tasks: what fits into the memory that the compose file gives each.
    "AIRFLOW__CORE__PARALLELISM": "16",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": "8",
}
"""With that profile, where a person says nothing else."""

NEEDED_MEMORY = 4 * 1024**3


class Container:
    """One container's view: its variables, and the secrets that are mounted."""

    def __init__(self, person: Mapping[str, str], secrets: Path) -> None:
        self._person = person
        self._secrets = secrets
        self._options: StackOptions = container_options()

    def init(self) -> None:
        """Make directories and secrets, all owned by AIRFLOW_UID. Needs root. Idempotent."""
        owner = _owner(self._person)
        for directory in (self._home / "logs", *(self._secrets / name for name in SECRETS)):
            directory.mkdir(parents=True, exist_ok=True)
            os.chown(directory, owner, 0)
        (self._home / "logs").chmod(0o775)
        for name, wanted in SECRETS.items():
            (self._secrets / name).chmod(0o700)
            file = self._file(name)
            load_credentials(file, wanted)
            os.chown(file, owner, 0)
        _warn_of_little_memory()

    def migrate(self) -> None:
        """Bring the database up to date and make the accounts. Raises `StackError`."""
        from contextlib import nullcontext

        import psycopg

        from backend.db.migrate import migrate
        from backend.db.roles import RoleError
        from backend.deployment.airflow_setup import set_up_airflow
        from backend.deployment.database import wait_until_reachable

        admin_url = self._database_url("psycopg")
        wait_until_reachable(admin_url, timeout=60)
        passwords = {BACKEND_ROLE: self._backend_password, WORKER_ROLE: self._worker_password}
        try:
            migrated = migrate(admin_url, passwords)
        except (RoleError, psycopg.Error) as error:
            raise StackError(f"The database can't be brought up to date: {error}") from error
        print(f"Applied: {', '.join(migrated.applied) or 'nothing, all is up to date'}", flush=True)
        options = self._options
        accounts = setup_accounts(
            options.username, options.password.get_secret_value(), self._person, self._read(BACKEND)
        )
        status = set_up_airflow(
            self._home / "config" / "airflow_bootstrap.py", self.airflow_environment() | accounts, admin_url,
            announce=lambda _: nullcontext(), output=None,
        )  # fmt: skip
        if status:
            raise StackError("Airflow's database can't be set up; what it says stands above")

    def airflow_environment(self) -> dict[str, str]:
        """The environment of one of Airflow's processes."""
        if not self._file(WORKER).exists():
            return dict(self._person)
        celery = CELERY_PROFILE in self._person.get("COMPOSE_PROFILES", "").split(",")
        environment = {
            **passed_on(self._person),
            "AIRFLOW__API__HOST": "0.0.0.0",  # noqa: S104  # the container's own
            **airflow_settings(self._places, (CELERY if celery else {}) | dict(self._person)),
            "VISUAL_AI_DATABASE_URL": self._database_url("psycopg", WORKER_ROLE, self._worker_password),
        }
        if self._file(AIRFLOW).exists():
            environment |= airflow_secrets(self._read(AIRFLOW), self._database_url("psycopg2"))
        return environment

    def backend_environment(self) -> dict[str, str]:
        """The environment of the backend."""
        if not self._file(BACKEND).exists():
            return dict(self._person)
        url = self._database_url("psycopg", BACKEND_ROLE, self._backend_password)
        # A request of the machine that runs the containers comes from their gateway, and one from elsewhere may, too,
        # if the ports are open to others.
        closed = self._person.get("VISUAL_AI_BIND_ADDRESS", "127.0.0.1") in ("127.0.0.1", "::1")
        local = gateway() if closed and self._person.get("VISUAL_AI_ENVIRONMENT") != "production" else None
        return {
            **({"VISUAL_AI_LOCAL_NETWORKS": f'["{local}"]'} if local else {}),
            **passed_on(self._person),
            **backend_settings(self._places, self._person, self._read(BACKEND), url),
        }

    @property
    def _home(self) -> Path:
        return Path(self._person.get("AIRFLOW_HOME", "/opt/airflow"))

    @property
    def _places(self) -> Places:
        options = self._options
        return Places(
            home=self._home,
            source=self._home,
            airflow_url=self._person.get("VISUAL_AI_AIRFLOW_URL", "http://airflow-webserver:8080").rstrip("/"),
            airflow_public_url=self._person.get(
                "VISUAL_AI_AIRFLOW_PUBLIC_URL", f"http://localhost:{options.airflow_port}"
            ).rstrip("/"),
            backend_public_url=self._person.get("VISUAL_AI_PUBLIC_URL", f"http://localhost:{options.backend_port}"),
            pages_public_url=pages_url(self._person, options.frontend_port),
        )

    @property
    def _worker_password(self) -> str:
        return self._person.get("VISUAL_AI_WORKER_DB_PASSWORD") or self._read(WORKER)["VISUAL_AI_WORKER_DB_PASSWORD"]

    @property
    def _backend_password(self) -> str:
        return self._person.get("VISUAL_AI_BACKEND_DB_PASSWORD") or self._read(BACKEND)["VISUAL_AI_BACKEND_DB_PASSWORD"]

    def _database_url(self, driver: str, user: str | None = None, password: str | None = None) -> str:
        options = self._options
        return database_url(
            options.postgres_host or COMPOSE_DATABASE_HOST,
            options.postgres_port or 5432,
            options.postgres_db,
            user or options.postgres_user,
            password or options.postgres_password.get_secret_value(),
            driver=driver,
        )

    def _file(self, name: str) -> Path:
        return self._secrets / name / "secrets.env"

    def _read(self, name: str) -> dict[str, str]:
        file = self._file(name)
        if not file.exists():
            raise StackError(f"{file} is missing: the service airflow-init makes it; see its log")
        return read_credentials(file)


def main(arguments: list[str]) -> int:
    """Do what the first argument says. Becomes the process where one is to go on."""
    try:
        container = Container(
            {name: value for name, value in os.environ.items() if value},
            Path(os.environ.get("VISUAL_AI_SECRETS_DIR", "/run/langgraph-flow")),
        )
        match arguments:
            case ["init"]:
                container.init()
            case ["migrate"]:
                container.migrate()
            case ["airflow", *rest]:
                environment = container.airflow_environment()
                _become([str(_programs() / "airflow"), *rest], environment)
            case ["serve", *rest]:
                _become([sys.executable, "-m", "backend", "serve", *rest], container.backend_environment())
            case [program, *_] if found := shutil.which(program):
                os.execv(found, arguments)  # noqa: S606  # as the image's user wants it
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except (StackError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _become(command: list[str], environment: Mapping[str, str]) -> None:
    os.execve(command[0], command, dict(environment))  # noqa: S606  # the image's own programs


def _programs() -> Path:
    return Path(sys.executable).parent


def _owner(person: Mapping[str, str]) -> int:
    given = person.get("AIRFLOW_UID", "50000")
    if not given.isdigit() or int(given) == 0:
        raise StackError(f"AIRFLOW_UID={given}: give the number of a user who isn't root, 50000 or that of `id -u`")
    return int(given)


def _warn_of_little_memory() -> None:
    import psutil

    total = psutil.virtual_memory().total
    if total < NEEDED_MEMORY:
        print(f"note: there are only {total / 1024**3:.1f} GiB of memory; 4 GiB are recommended")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
