"""What must be so before anything is started."""

import errno
import shutil
import socket

import psutil

from backend.deployment.layout import Layout, StackError
from backend.deployment.options import StackOptions
from backend.deployment.processes import holder_of_port
from backend.deployment.progress import note

_NEEDED_DISK = 2 * 1024**3
_WANTED_MEMORY = 3 * 1024**3


def check_ports(options: StackOptions, *, database_runs: bool) -> None:
    """Raise `StackError` that names each port that is taken, who holds it and the variable that moves it."""
    wanted = {"VISUAL_AI_AIRFLOW_PORT": options.airflow_port, "VISUAL_AI_BACKEND_PORT": options.backend_port}
    if options.serve_frontend:
        wanted["VISUAL_AI_FRONTEND_PORT"] = options.frontend_port
    if options.embedded and not database_runs:
        wanted["POSTGRES_PORT"] = options.database_port
    if len(set(wanted.values())) < len(wanted):
        given = ", ".join(f"{name}={port}" for name, port in wanted.items())
        raise StackError(f"Two services can't have the same port: {given}")
    taken = []
    for name, port in wanted.items():
        if not port_is_free(port):
            holder = holder_of_port(port)
            taken.append(
                f"  Port {port} is taken" + (f" ({holder})" if holder else "") + f"; choose another: "
                f"{name}={port + 10 if port < 65000 else port - 10} make up, or put it into .env"
            )
    if taken:
        raise StackError("\n".join(taken))


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the loopback's `port`."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a closing connection is no matter
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno == errno.EACCES:
                raise StackError(f"Port {port} needs rights that this user lacks; choose one above 1023") from None
            return False
    return True


def check_room(layout: Layout) -> None:
    """Raise `StackError` when the disk is nearly full; only tell when memory is short."""
    free = shutil.disk_usage(layout.state).free
    if free < _NEEDED_DISK:
        raise StackError(
            f"Only {free / 1024**3:.1f} GiB are free on the disk of {layout.state}; at least 2 GiB are needed"
        )
    available = psutil.virtual_memory().available
    if available < _WANTED_MEMORY:
        note(f"only {available / 1024**3:.1f} GiB of memory are available; 4 GiB are recommended")
