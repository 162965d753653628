"""The processes of projects: started by whoever needs one, and shared by all who do.

A project has one process per version and environment variables. It listens on a Unix socket in a folder that only its
user may enter. Whoever finds nobody listening starts another one, under a lock, and hands it the socket: so a task
never waits for a process to be ready, but only for its answer. Nothing secret is in the arguments of a process.
"""

import asyncio
import fcntl
import json
import os
import socket
import stat
import subprocess
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path

import langgraph_flow_host
from backend.core.settings import Settings
from backend.runtime.langgraph_json import GraphLoadError, variables
from backend.runtime.projects.library import InstalledProject

LOG_BYTES = 1_000_000
"""The size at which a process's log begins anew."""

PACKAGE = Path(langgraph_flow_host.__file__).parent

_BOOT = (
    "import importlib.util as u, sys; p = sys.argv.pop(1); "
    "s = u.spec_from_file_location('langgraph_flow_host', p + '/__init__.py', submodule_search_locations=[p]); "
    "m = u.module_from_spec(s); sys.modules[s.name] = m; s.loader.exec_module(m); "
    "from langgraph_flow_host.main import main; main(sys.argv[1:])"
)
"""Loads the host's package, and nothing else of the product's installation, into the project's Python."""

_DETACH = "import os; os.fork() and os._exit(0); os.setsid(); "
"""Makes a process nobody's child, so that none of the tasks that use it has to wait for it."""

_STACK = "VISUAL_AI_STACK"
_WITHHELD = ("AIRFLOW", "_AIRFLOW", "VISUAL_AI_", "POSTGRES_", "PYTHON", "SUPERVISOR_", "VIRTUAL_ENV", "PYTEST_")
"""The prefixes of variables that a project doesn't get: the product's own, and those that differ between tasks."""


def command(project: InstalledProject, *arguments: str, detached: bool = False) -> list[str]:
    """A program of the host's package in the project's environment."""
    return [str(project.python), "-c", (_DETACH if detached else "") + _BOOT, str(PACKAGE), *arguments]


def environment_of(project: InstalledProject) -> dict[str, str]:
    """The variables of a project's processes. What is set here takes precedence over the project's own."""
    passed = {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD) or name == _STACK}
    passed.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy would start threads, after which nothing can be forked
    own = {"PATH": f"{project.python.parent}:{passed.get('PATH', '')}", "VIRTUAL_ENV": str(project.python.parents[1])}
    return {**variables(project.project()), **passed, **own}


class Host:
    """The process of a project, which runs its graphs. `shared` says that hundreds of agents want it at once."""

    def __init__(self, project: InstalledProject, settings: Settings, *, shared: bool) -> None:
        options = ["--idle", str(settings.project_idle_seconds)]
        options += ["--shared"] if shared else []
        options += ["--sdk-retries"] if settings.sdk_retries else []
        options += [] if settings.stream_usage else ["--no-stream-usage"]
        self._project = project
        self._options = options
        self._environment = environment_of(project)
        whole = [str(project.file), _version_of(PACKAGE), *options, *sorted(self._environment.items())]
        self._place = _folder() / sha256(json.dumps(whole).encode()).hexdigest()[:24]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the process, which is started if it isn't there. Raises `GraphLoadError`."""
        connection = await asyncio.to_thread(self._connection)
        return await asyncio.open_unix_connection(sock=connection, limit=2**20)

    def log_excerpt(self) -> str:
        """The end of what the process has written, for an error's message."""
        try:
            return self._place.with_suffix(".log").read_text(errors="replace")[-1500:].strip()
        except OSError:
            return ""

    def _connection(self) -> socket.socket:
        place = self._place.with_suffix(".sock")
        if (found := _connected(place)) is not None:
            return found
        with self._place.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (found := _connected(place)) is None:
                self._start(place)
                found = _connected(place)
        if found is None:
            raise GraphLoadError(f"the process of {self._project.name} ended at once: {self.log_excerpt()}")
        return found

    def _start(self, place: Path) -> None:
        if not self._project.python.exists():
            name = self._project.name
            raise GraphLoadError(f"the environment of {name} is incomplete; run `projects update {name}`")
        place.unlink(missing_ok=True)
        log = self._place.with_suffix(".log")
        mode = "wb" if log.exists() and log.stat().st_size > LOG_BYTES else "ab"
        with socket.socket(socket.AF_UNIX) as listener, log.open(mode) as output:
            listener.bind(str(place))
            listener.listen(1024)
            number = listener.fileno()
            given = ["--socket", str(number), "--in-use", str(self._project.folder), *self._options]
            program = command(self._project, "serve", str(self._project.file), *given, detached=True)
            subprocess.run(  # noqa: S603  # the project's Python, and our package
                program,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[number],
                cwd=self._project.file.parent,
                env=self._environment,
                check=False,
            )


def _connected(place: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(place))
    except OSError:
        connection.close()
        return None
    connection.setblocking(False)
    return connection


def _folder() -> Path:
    """The folder of sockets: short, because their paths may have 100 characters, and this user's alone."""
    folder = Path(tempfile.gettempdir()) / f"langgraph-flow-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
        raise GraphLoadError(f"{folder} isn't this user's alone; remove it or set TMPDIR")
    return folder


@cache
def _version_of(package: Path) -> str:
    """What changes with each release of the host's package."""
    return sha256(b"".join(file.read_bytes() for file in sorted(package.glob("*.py")))).hexdigest()
