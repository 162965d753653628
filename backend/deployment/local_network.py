"""Where requests come from that the machine makes which runs the containers."""

import socket
import struct
from pathlib import Path

ROUTES = Path("/proc/net/route")

_ANYWHERE = "00000000"


def gateway(routes: Path = ROUTES) -> str | None:
    """The IPv4 address of the default gateway, in a container its host's; None where there is none."""
    try:
        lines = routes.read_text().splitlines()[1:]
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if len(fields) > 2 and fields[1] == _ANYWHERE and fields[2] != _ANYWHERE:
            return socket.inet_ntoa(struct.pack("=L", int(fields[2], 16)))
    return None
