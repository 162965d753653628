"""Fixtures for all tests: a real PostgreSQL, migrated once and emptied for each test that asks for it."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from backend.db.address import plain_url
from backend.db.migrate import migrate
from backend.stack.postgres import Cluster
from tests.kit.processes.stack import free_port

pytest_plugins = ("tests.kit.fixtures",)

# Airflow reads it when it is imported, and would otherwise write to the home directory of whoever runs the tests. Each
# process has its own: those that run tests side by side have inherited that of the one that started them.
if "AIRFLOW_HOME" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="visual-ai-airflow-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)


@dataclass(frozen=True)
class Postgres:
    """SQLAlchemy URLs (psycopg 3) of one migrated database: its superuser's, and the two roles'."""

    admin_url: str
    backend_url: str
    worker_url: str


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A running cluster of its own, gone after the tests; roles and databases in it are the test's business."""
    directory = Path(tempfile.mkdtemp(prefix="visual-ai-pg-"))
    cluster = Cluster(directory / "data", free_port(), "a superuser's pass/word", durable=False, report=lambda _: None)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def pg(postgres: Cluster) -> Postgres:
    """The database `airflow`, owned by role `airflow`, with the `visual_ai` schema."""
    postgres.ensure_database("airflow", owner="airflow", password="owner")
    migrated = migrate(postgres.url("airflow"))
    return Postgres(postgres.url("airflow"), migrated.backend_url, migrated.worker_url)


@pytest.fixture
def database_url(pg: Postgres) -> str:
    """The backend role's URL of a database whose `visual_ai` tables are empty."""
    with psycopg.connect(plain_url(pg.admin_url), autocommit=True) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'visual_ai'").fetchall()
        tables = sql.SQL(", ").join(sql.Identifier("visual_ai", str(name)) for (name,) in names)
        connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(tables))
    return pg.backend_url
