"""Waits for the deployment's database."""

import time

import psycopg

from backend.db.address import plain_url
from backend.deployment.layout import StackError


def wait_until_reachable(url: str, *, timeout: float) -> None:
    """Wait up to `timeout` seconds until `url` accepts a login.

    Raises `StackError` with the server's reason; at once when no waiting would help (unknown host, wrong password).
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            psycopg.connect(plain_url(url), connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            reason = str(error).strip()
            hopeless = any(
                text in reason
                for text in ("could not translate", "resolve host", "authentication failed", "does not exist")
            )
            if hopeless or time.monotonic() > deadline:
                raise StackError(
                    f"The database that POSTGRES_HOST names can't be used: {reason}\n"
                    "Check POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB, POSTGRES_USER and POSTGRES_PASSWORD in the "
                    "environment and .env, or remove POSTGRES_HOST to use the embedded server."
                ) from None
            time.sleep(0.5)
