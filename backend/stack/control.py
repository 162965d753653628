"""Starts and stops the whole stack on one machine."""

import fcntl
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType

import psutil
import psycopg

from backend.db.address import database_url
from backend.db.migrate import Migrated, migrate
from backend.db.roles import BACKEND_ROLE, WORKER_ROLE, RoleError
from backend.deployment.airflow_setup import set_up_airflow
from backend.deployment.credentials import load_credentials
from backend.deployment.database import wait_until_reachable
from backend.deployment.environment import Databases, given_role_passwords, setup_accounts
from backend.deployment.known_settings import overridden_settings, unread_settings
from backend.deployment.layout import Layout, StackError
from backend.deployment.options import read_environment, read_options
from backend.deployment.processes import MARKER_VARIABLE, end_all
from backend.stack import environment
from backend.stack.checks import check_ports, check_room
from backend.stack.frontend import Frontend
from backend.stack.health import Readiness
from backend.stack.postgres import Cluster
from backend.stack.progress import note, step
from backend.stack.supervision import BACKEND, FRONTEND, SCHEDULER, ProgramState, Supervisor, programs

_AIRFLOW_OWNER = "airflow"


@dataclass(frozen=True)
class Status:
    """What is running, for `status`."""

    programs: list[ProgramState]
    database: str


class Stack:
    """The stack of one checkout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.options = read_options(layout.root)
        self._person = read_environment(layout.root)
        self._supervisor = Supervisor(layout)

    def up(self) -> bool:
        """Start everything and return once it is healthy. Returns False if it was running already.

        Raises `StackError` if that fails. What had been started is stopped again, also on Ctrl-C.
        """
        self.layout.make_directories()
        with self._locked(), _signals_as_interrupts():
            credentials = load_credentials(self.layout.secrets)
            for message in unread_settings(self._person):
                note(message)
            if self._healthy():
                frontend = self._prepare_frontend()  # changed pages are served immediately
                if frontend.keys() <= {state.name for state in self._supervisor.states()}:
                    self._cluster(credentials).start() if self.options.embedded else None
                    return False
            self._stop_everything(keep_database=True)
            database_ran = self.options.embedded and self._cluster(credentials).running()
            with step("Ports, disk and memory"):
                check_ports(self.options, database_runs=database_ran)
                check_room(self.layout)
            if self.options.compose_host_ignored:
                note("POSTGRES_HOST=postgres only exists inside docker compose; using the embedded PostgreSQL")
            try:
                self._start(credentials, self._prepare_frontend())
            except BaseException:
                print("Stopping what had been started …")
                self._stop_everything()
                raise
            return True

    def down(self) -> bool:
        """Stop everything, including leftovers of a crash. Returns whether there was anything to stop. Data is kept."""
        if not self.layout.state.is_dir():
            return end_all(self.layout.identity) > 0
        self.layout.make_directories()
        with self._locked():
            return self._stop_everything()

    def status(self) -> Status:
        """Return what is currently running."""
        database = "external"
        if self.options.embedded:
            database = "running" if self._cluster(None).running() else "stopped"
        return Status(self._supervisor.states() if self._supervisor.running() else [], database)

    def airflow_environment(self) -> dict[str, str]:
        """Return the environment of Airflow's processes. Raises `StackError` if the stack isn't running."""
        if not self._supervisor.running():
            raise StackError("The stack isn't running. To start it: make up")
        return self._supervisor.environment(SCHEDULER)

    def _start(self, credentials: dict[str, str], frontend: Mapping[str, dict[str, str]]) -> None:
        databases, admin_url, migrated = self._prepare_database(credentials)
        for warning in migrated.warnings:
            note(warning)
        airflow = environment.airflow_environment(self.layout, self.options, self._person, credentials, databases)
        self._prepare_airflow(airflow, credentials, admin_url)
        environments = dict.fromkeys(programs(self.layout), airflow)
        environments.pop(FRONTEND, None)
        environments |= frontend
        environments[BACKEND] = environment.backend_environment(
            self.layout, self.options, self._person, credentials, databases
        )
        for name in overridden_settings(self._person, (airflow, environments[BACKEND])):
            note(f"{name} has no effect here: `make up` sets it itself, or no process reads it")
        since = datetime.now(UTC)
        with step("Supervisor"):
            base = environment.base_environment(self.layout, self.options, {"PATH": os.environ.get("PATH", "")})
            self._supervisor.start(environments, base)
        readiness = Readiness(self.layout, self.options, credentials["AIRFLOW_SERVICE_PASSWORD"], since)
        readiness.wait(self._supervisor, self.options.start_timeout, frontend=bool(frontend))

    def _prepare_frontend(self) -> dict[str, dict[str, str]]:
        """Build the frontend; return the environment of its process, or nothing if it can't be served.

        A frontend that can't be built doesn't prevent the rest from starting.
        """
        frontend = Frontend(self.layout.root, step)
        if not (self.options.serve_frontend and frontend.exists):
            return {}
        try:
            nodejs = frontend.build()
        except (StackError, OSError) as error:
            note(f"the frontend isn't served: {error}")
            return {}
        serving = environment.frontend_environment(self.layout, self.options, self._person)
        return {FRONTEND: nodejs.environment(serving)}

    def _prepare_database(self, credentials: Mapping[str, str]) -> tuple[Databases, str, Migrated]:
        options = self.options
        if options.embedded:
            with step("PostgreSQL (embedded)"):
                cluster = self._cluster(credentials)
                cluster.start()
                user, password = _AIRFLOW_OWNER, credentials["POSTGRES_AIRFLOW_PASSWORD"]
                try:
                    cluster.ensure_database(options.postgres_db, owner=user, password=password)
                except psycopg.OperationalError as error:
                    raise StackError(
                        f"{self.layout.secrets} doesn't match the database in {self.layout.postgres}: {error}\n"
                        "Restore the file that belongs to it, or remove both to start from scratch."
                    ) from None
            admin_url, host = cluster.url(options.postgres_db), "127.0.0.1"
            passwords = {
                BACKEND_ROLE: credentials["VISUAL_AI_BACKEND_DB_PASSWORD"],
                WORKER_ROLE: credentials["VISUAL_AI_WORKER_DB_PASSWORD"],
            }
        else:
            host = options.postgres_host or ""
            user, password = options.postgres_user, options.postgres_password.get_secret_value()
            admin_url = database_url(host, options.database_port, options.postgres_db, user, password)
            with step(f"PostgreSQL at {host}:{options.database_port}"):
                wait_until_reachable(admin_url, timeout=60)
            passwords = given_role_passwords(self._person)
        with step("Database migrations"):
            try:
                migrated = migrate(admin_url, passwords)
            except (RoleError, psycopg.Error) as error:
                raise StackError(f"The database migration failed: {error}") from error
        metadata = database_url(host, options.database_port, options.postgres_db, user, password, driver="psycopg2")
        return Databases(metadata, migrated.backend_url, migrated.worker_url), admin_url, migrated

    def _prepare_airflow(self, airflow: dict[str, str], credentials: dict[str, str], admin_url: str) -> None:
        options = self.options
        password = options.password.get_secret_value()
        accounts = setup_accounts(options.username, password, self._person, credentials)
        log = self.layout.logs / "airflow-setup.log"
        with log.open("w") as output:
            status = set_up_airflow(
                self.layout.root / "airflow" / "config" / "airflow_bootstrap.py",
                airflow | accounts,
                admin_url,
                announce=step,
                output=output,
            )
        if status != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            raise StackError(f"Airflow's database could not be set up. The last lines of {log}:\n{tail}")

    def _healthy(self) -> bool:
        states = self._supervisor.states() if self._supervisor.running() else []
        return bool(states) and all(state.state in ("RUNNING", "STARTING") for state in states)

    def _stop_everything(self, *, keep_database: bool = False) -> bool:
        found = self._supervisor.stop()
        # What is left are the running tasks. Killed like this they are handed back: the next start runs them again from
        # their last checkpoints. A task that is asked to end reports that it has failed.
        found |= end_all(self.layout.identity, unless=_is_postgres, grace=0) > 0
        if keep_database:
            return found
        if (self.layout.postgres / "PG_VERSION").exists():
            found |= self._cluster(None).stop()
        return end_all(self.layout.identity) > 0 or found

    def _cluster(self, credentials: Mapping[str, str] | None) -> Cluster:
        return Cluster(
            data=self.layout.postgres,
            port=self.options.database_port,
            password=(credentials or {}).get("POSTGRES_ADMIN_PASSWORD", ""),
            environment={MARKER_VARIABLE: self.layout.identity},
            report=note,
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Allow only one `up` or `down` at a time; the system releases the lock with the process that holds it."""
        with self.layout.lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError("Another `make up` or `make down` of this checkout is in progress") from None
            yield


def _is_postgres(process: psutil.Process) -> bool:
    return process.name().startswith("postgres")


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Make a closing terminal or a `kill` stop a start as cleanly as Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
