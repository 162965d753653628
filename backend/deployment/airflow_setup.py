"""Creates Airflow's own tables and accounts.

This costs seconds of CPU, so a fingerprint of what was set up is kept in the database, and the work is skipped while it
still matches.
"""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import IO

import psycopg

from backend.db.address import plain_url
from backend.db.migrate import BOOKKEEPING_SCHEMA

_PACKAGES = ("apache-airflow-core", "apache-airflow-providers-fab")
"""The packages whose tables and permissions are created."""

Announce = Callable[[str], AbstractContextManager[None]]


def set_up_airflow(
    script: Path, environment: Mapping[str, str], admin_url: str, *, announce: Announce, output: IO[str] | None
) -> int:
    """Run `script` (`airflow_bootstrap.py`) with `environment` unless the same was done before; return its exit code.

    `announce` is entered only when there is something to do. The script's output goes to `output`; None stands for this
    process's own output.
    """
    digest = hashlib.sha256(script.read_bytes())
    digest.update(" ".join(version(name) for name in _PACKAGES).encode())
    digest.update(repr(sorted((k, v) for k, v in environment.items() if k.startswith("VISUAL_AI_SETUP_"))).encode())
    fingerprint = digest.hexdigest()
    table = f"{BOOKKEEPING_SCHEMA}.airflow_setup"
    with psycopg.connect(plain_url(admin_url), autocommit=True) as connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (fingerprint text NOT NULL)")
        if (fingerprint,) in connection.execute(f"SELECT fingerprint FROM {table}").fetchall():  # noqa: S608
            return 0
        Path(environment["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]).mkdir(parents=True, exist_ok=True)
        with announce("Airflow's database and accounts (once)"):
            status = _run([sys.executable, str(script)], environment, output)
        if status == 0:
            with connection.transaction():
                connection.execute(f"DELETE FROM {table}")  # noqa: S608
                connection.execute(f"INSERT INTO {table} VALUES (%s)", [fingerprint])  # noqa: S608
    return status


def _run(command: list[str], environment: Mapping[str, str], output: IO[str] | None) -> int:
    process = subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait(10)
        raise
