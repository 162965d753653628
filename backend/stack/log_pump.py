"""Writes what comes on its standard input to a log file, rotated, until nobody is left who could write more.

The supervisor reads a process's output from a pipe that it closes with the process. Tasks that outlive their scheduler
still tell their log, and would end of it. Standard library only: it is one more process.
"""

import logging
import signal
import sys
from logging.handlers import RotatingFileHandler

MAX_BYTES = 10_000_000
BACKUPS = 3


def main(path: str) -> None:
    """Copy lines to the file at `path`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with those it writes for
    handler = RotatingFileHandler(path, maxBytes=MAX_BYTES, backupCount=BACKUPS)
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]  # it is a text stream
    for line in sys.stdin:
        handler.emit(logging.makeLogRecord({"msg": line.rstrip("\n")}))


if __name__ == "__main__":
    main(sys.argv[1])
