"""Waits for a database server that the user named."""

import time

import psycopg

from backend.db.address import plain_url
from backend.deployment.layout import StackError


def wait_until_reachable(url: str, *, timeout: float) -> None:
    """Wait up to `timeout` seconds until the server at `url` accepts a login.

    Raises `StackError` with the server's reason, immediately when waiting can't help (unknown host, wrong password).
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            psycopg.connect(plain_url(url), connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            reason = str(error).strip()
            permanent = any(
                text in reason
                for text in ("could not translate", "resolve host", "authentication failed", "does not exist")
            )
            if permanent or time.monotonic() > deadline:
                raise StackError(
                    f"Can't connect to the database at POSTGRES_HOST: {reason}\n"
                    "Check POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB, POSTGRES_USER and POSTGRES_PASSWORD in the "
                    "environment and .env, or remove POSTGRES_HOST to use the embedded server."
                ) from None
            time.sleep(0.5)
