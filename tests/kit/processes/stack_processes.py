"""The processes of a running stack, for tests that end them."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from xmlrpc.client import ServerProxy

import httpx
from supervisor.xmlrpc import SupervisorTransport

from backend.deployment.credentials import load_credentials
from backend.deployment.layout import Layout
from backend.deployment.processes import MARKER_VARIABLE
from backend.stack.postgres import Cluster
from tests.kit.processes.stack import ROOT, RunningStack, wait_until


def pid_of(stack: RunningStack, program: str) -> int:
    """The process of the Procfile that has this name."""

    def ask() -> int | None:
        lines = [line for line in stack.command("status").stdout.splitlines() if " pid " in line]
        return next((int(line.split()[3].rstrip(",")) for line in lines if line.split()[0] == program), None)

    return wait_until(ask, timeout=60, what=f"the process {program}")


def kill_program(stack: RunningStack, program: str) -> int:
    """`kill -9` of a process of the Procfile, which the supervisor starts again; gives its number."""
    pid = pid_of(stack, program)
    os.kill(pid, signal.SIGKILL)
    return pid


@contextmanager
def program_stopped(stack: RunningStack, program: str) -> Iterator[None]:
    """Keep a process of the Procfile from running; the supervisor doesn't start it again before the end."""
    layout = Layout(root=ROOT, state=stack.state)
    transport = SupervisorTransport(None, None, f"unix://{layout.supervisor_socket}")
    with ServerProxy("http://localhost", transport=transport) as server:
        name = next(f"{info['group']}:{program}" for info in processes(server) if info["name"] == program)
        server.supervisor.stopProcess(name)
        try:
            yield
        finally:
            server.supervisor.startProcess(name, False)


def processes(server: ServerProxy) -> list[dict[str, str]]:
    """What the supervisor says about each process."""
    found: list[dict[str, str]] = server.supervisor.getAllProcessInfo()  # type: ignore[assignment]
    return found


def kill_task(airflow: httpx.Client, dag_id: str, run_id: str, task_id: str) -> None:
    """`kill -9` of the process that a task runs in."""
    url = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
    os.kill(int(airflow.get(url).raise_for_status().json()["pid"]), signal.SIGKILL)


def restart_postgres(stack: RunningStack) -> None:
    """Stop the embedded server, which ends all connections, and start it again."""
    layout = Layout(root=ROOT, state=stack.state)
    marker = {MARKER_VARIABLE: layout.identity}
    cluster = Cluster(layout.postgres, int(stack.environment["POSTGRES_PORT"]), "", marker, report=lambda _: None)
    assert cluster.stop()
    cluster.start()


def admin_url(stack: RunningStack) -> str:
    """The address of the stack's database for PostgreSQL's superuser."""
    layout = Layout(root=ROOT, state=stack.state)
    password = load_credentials(layout.secrets)["POSTGRES_ADMIN_PASSWORD"]
    port = int(stack.environment["POSTGRES_PORT"])
    return Cluster(layout.postgres, port, password, {}, report=lambda _: None).url("airflow")
