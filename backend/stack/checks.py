"""Checks that run before anything is started."""

import errno
import shutil
import socket

import psutil

from backend.deployment.layout import Layout, StackError
from backend.deployment.options import StackOptions
from backend.stack.progress import note

_REQUIRED_DISK = 2 * 1024**3
_RECOMMENDED_MEMORY = 3 * 1024**3


def check_ports(options: StackOptions, *, database_runs: bool) -> None:
    """Raise `StackError` naming each port that is taken, the process that holds it and the variable that moves it."""
    ports = {"VISUAL_AI_AIRFLOW_PORT": options.airflow_port, "VISUAL_AI_BACKEND_PORT": options.backend_port}
    if options.serve_frontend:
        ports["VISUAL_AI_FRONTEND_PORT"] = options.frontend_port
    if options.embedded and not database_runs:
        ports["POSTGRES_PORT"] = options.database_port
    if len(set(ports.values())) < len(ports):
        listed = ", ".join(f"{name}={port}" for name, port in ports.items())
        raise StackError(f"Two services can't use the same port: {listed}")
    taken = []
    for name, port in ports.items():
        if not port_is_free(port):
            holder = _holder_of(port)
            taken.append(
                f"  Port {port} is taken" + (f" ({holder})" if holder else "") + f"; choose another: "
                f"{name}={port + 10 if port < 65000 else port - 10} make up, or set it in .env"
            )
    if taken:
        raise StackError("\n".join(taken))


def port_is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # like servers: closing connections don't matter
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise StackError(f"You may not listen on port {port}; choose one above 1023") from None
            return False
    return True


def check_room(layout: Layout) -> None:
    """Raise `StackError` when the disk is nearly full; print a note when memory is short."""
    free = shutil.disk_usage(layout.state).free
    if free < _REQUIRED_DISK:
        raise StackError(f"Only {free / 1024**3:.1f} GiB are free on the disk of {layout.state}; 2 GiB are required")
    available = psutil.virtual_memory().available
    if available < _RECOMMENDED_MEMORY:
        note(f"only {available / 1024**3:.1f} GiB of memory are available; 4 GiB are recommended")


def _holder_of(port: int) -> str | None:
    """The process that listens on TCP `port`, as far as this user may see it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        if listens and connection.pid:
            try:
                process = psutil.Process(connection.pid)
                return f"{process.name()}, process {process.pid} of {process.username()}"
            except psutil.Error:
                return f"process {connection.pid}"
    return None
