"""The supervisor (supervisord) that keeps the processes of the Procfile running and restarts those that die.

Its configuration is generated from the Procfile. Each process is started by `launch.py` from a specification of its
own, which holds the command line and the environment.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from backend.deployment.credentials import write_private
from backend.deployment.layout import Layout, StackError
from backend.deployment.processes import MARKER_VARIABLE

SCHEDULER = "scheduler"
API_SERVER = "api-server"
BACKEND = "backend"
FRONTEND = "frontend"

_SUPERVISOR = """\
[supervisord]
logfile={logs}/supervisor.log
logfile_maxbytes=5MB
logfile_backups=2
pidfile={run}/supervisord.pid
childlogdir={logs}
directory={root}
umask=022
minfds=4096

[unix_http_server]
file={socket}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""

_PROGRAM = """
[program:{name}]
command="{python}" "{launcher}" "{specification}"
directory={root}
autostart=true
autorestart=true
; A process that lives this long counts as started. One that doesn't is restarted after a delay that grows by a second
; each time, however long the database is away.
startsecs=4
startretries=1000
stopsignal=TERM
stopasgroup={group}
killasgroup={group}
stopwaitsecs=12
redirect_stderr=true
stdout_logfile={logs}/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""

# The processes of a group are stopped together, and the group with the lower number last: tasks that are being stopped
# still report to the API server.
_GROUPS = """
[group:api]
programs={api}
priority=10

[group:services]
programs={services}
priority=20
"""


@dataclass(frozen=True)
class ProgramState:
    """What the supervisor reports about one process. `state` is supervisord's (RUNNING, STARTING, BACKOFF, FATAL, …),
    `uptime` is in seconds."""

    name: str
    state: str
    pid: int | None
    uptime: float


def programs(layout: Layout) -> dict[str, str]:
    """The names and command lines of the Procfile's processes, one `name: command` per line."""
    return dict(re.findall(r"^([\w-]+):\s*(.+)$", (layout.root / "Procfile").read_text(), re.MULTILINE))


def render_configuration(layout: Layout, names: list[str]) -> str:
    """The supervisor's configuration. It contains no secret and no setting: those are in the specifications."""

    def literal(value: object) -> str:
        return str(value).replace("%", "%%")  # a percent sign starts an expression in this format

    places = {
        "root": literal(layout.root),
        "logs": literal(layout.logs),
        "run": literal(layout.run),
        "socket": literal(layout.supervisor_socket),
        "python": literal(sys.executable),
        "launcher": literal(Path(__file__).with_name("launch.py")),
    }
    text = _SUPERVISOR.format(**places)
    for name in names:
        # The scheduler's tasks are in its process group, and outlive it.
        group = "false" if name == SCHEDULER else "true"
        text += _PROGRAM.format(name=name, specification=literal(layout.run / f"{name}.json"), group=group, **places)
    services = [name for name in names if name != API_SERVER]
    return text + _GROUPS.format(api=API_SERVER, services=",".join(services))


class Supervisor:
    """One stack's supervisor daemon."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._configuration = layout.run / "supervisord.conf"

    def environment(self, name: str) -> dict[str, str]:
        """The environment with which a process of the Procfile was started."""
        specification = json.loads((self._layout.run / f"{name}.json").read_text())
        return dict(specification["env"])

    def start(self, environments: Mapping[str, Mapping[str, str]], environment: Mapping[str, str]) -> None:
        """Write the configuration and start the daemon, which starts every process named in `environments`.

        `environments` maps names of the Procfile to environments; `environment` is the daemon's own. Raises
        `StackError` when the daemon doesn't start.
        """
        commands = {name: command for name, command in programs(self._layout).items() if name in environments}
        for name, command in commands.items():
            # The scheduler's tasks outlive it and the pipe that the supervisor reads: they log to a file.
            log = str(self._layout.logs / f"{name}.log") if name == SCHEDULER else None
            specification = {"command": command, "env": dict(environments[name]), "log": log}
            write_private(self._layout.run / f"{name}.json", json.dumps(specification))
        write_private(self._configuration, render_configuration(self._layout, list(commands)))
        self._layout.supervisor_socket.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(self._configuration)],
            env=dict(environment),
            cwd=self._layout.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
        )
        if result.returncode != 0:
            raise StackError(f"The supervisor didn't start:\n{result.stderr.strip() or result.stdout.strip()}")
        deadline = time.monotonic() + 10
        while not self.running():
            if time.monotonic() > deadline:
                raise StackError(f"The supervisor didn't start; see {self._layout.logs / 'supervisor.log'}")
            time.sleep(0.05)

    def process(self) -> psutil.Process | None:
        """The daemon's process, if it is alive and belongs to this stack."""
        try:
            process = psutil.Process(int(self._pid_file.read_text()))
            # The number in a stale file may be another program's by now.
            return process if process.environ().get(MARKER_VARIABLE) == self._layout.identity else None
        except (OSError, ValueError, psutil.Error):
            return None

    def running(self) -> bool:
        """Whether the daemon is alive."""
        return self.process() is not None

    def states(self) -> list[ProgramState]:
        """The state of every process; empty when the daemon doesn't answer."""
        transport = SupervisorTransport(None, None, f"unix://{self._layout.supervisor_socket}")
        try:
            with ServerProxy("http://localhost", transport=transport) as server:
                answer: list[dict[str, object]] = server.supervisor.getAllProcessInfo()  # type: ignore[assignment]
        except (OSError, Fault):
            return []
        return [
            ProgramState(
                name=str(info["name"]),
                state=str(info["statename"]),
                pid=int(str(info["pid"])) or None,
                uptime=float(str(info["now"])) - float(str(info["start"])),
            )
            for info in answer
        ]

    def stop(self, *, timeout: float = 30.0) -> bool:
        """Stop every process, then the daemon. Returns whether the daemon was running.

        Running tasks, and processes that don't exit within `timeout` seconds, are left to
        `backend.deployment.processes.end_all`.
        """
        process = self.process()
        if process is None:
            return False
        process.terminate()
        try:
            process.wait(timeout)
        except psutil.TimeoutExpired:
            process.kill()
        self._layout.supervisor_socket.unlink(missing_ok=True)
        return True

    @property
    def _pid_file(self) -> Path:
        return self._layout.run / "supervisord.pid"
