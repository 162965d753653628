"""A real PostgreSQL for tests: one cluster and one migrated database for a test process, emptied for each test.

A test uses several connections, two roles and often several processes, so it can't run inside one transaction that is
rolled back. Its rows are deleted instead. `DELETE` on tables that hold a few rows takes a millisecond in all, where
`TRUNCATE` takes fifty on an idle machine and seconds on a busy one: it makes new files for each table and index.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from backend.db.address import plain_url
from backend.db.migrate import migrate
from backend.stack.postgres import Cluster
from tests.kit.processes.reaper import disposable_folder, marker
from tests.kit.processes.stack import free_port


@contextmanager
def running_cluster(password: str, *, durable: bool = False) -> Iterator[Cluster]:
    """A cluster of its own on a free port. `durable=True` makes it as safe, and as slow, as one in production."""
    directory = disposable_folder("postgres")
    cluster = Cluster(directory / "data", free_port(), password, marker(), durable=durable, report=lambda _: None)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True)
class Postgres:
    """One migrated database: SQLAlchemy URLs (psycopg 3) for its superuser and for the two roles of the product."""

    admin_url: str
    backend_url: str
    worker_url: str


def migrated_database(cluster: Cluster) -> Postgres:
    """The database `airflow`, owned by role `airflow`, with the `visual_ai` schema."""
    cluster.ensure_database("airflow", owner="airflow", password="owner")
    migrated = migrate(cluster.url("airflow"))
    return Postgres(cluster.url("airflow"), migrated.backend_url, migrated.worker_url)


def erase(database: Postgres) -> None:
    """Delete all rows of the `visual_ai` tables, once every transaction that writes to them has ended.

    What migrations wrote stays.
    """
    with psycopg.connect(plain_url(database.admin_url)) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'visual_ai'").fetchall()
        tables = [
            sql.Identifier("visual_ai", name)
            for (name,) in found
            if not name.endswith("_migrations") and name != "signing_keys"
        ]
        connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(sql.SQL(", ").join(tables)))
        # Without triggers, foreign keys are not checked and the order of the tables does not matter.
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute(sql.SQL("; ").join(sql.SQL("DELETE FROM {}").format(table) for table in tables))


@contextmanager
def locked_out(database: Postgres, role: str) -> Iterator[None]:
    """A database that a role can't reach: its connections have ended, and it gets no new ones."""
    with psycopg.connect(plain_url(database.admin_url), autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(role)))
        try:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role])
            yield
        finally:
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(role)))
