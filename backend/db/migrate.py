"""Migrates the `visual_ai` schema: plain SQL files, each applied once, in order."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy.engine import make_url
from yoyo import get_backend, read_migrations

from backend.db.address import plain_url, with_login
from backend.db.roles import BACKEND_ROLE, ROLES, WORKER_ROLE, RoleError, close_defaults, enable_logins, role_password

BOOKKEEPING_SCHEMA = "visual_ai_migrations"
"""Holds the list of applied migrations, in a schema that the roles' rights on `visual_ai` don't cover."""

CHECKPOINT_TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "store")
"""LangGraph's own tables, which tasks read, write and delete from. The backend reads checkpoints, and
serves the store to LangGraph's clients."""

_LOCK_KEY = 0x5649_5341_4D49  # arbitrary, but the same in every version

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Migrated:
    """The result of a migration. The URLs are SQLAlchemy's, for psycopg 3, and contain passwords."""

    applied: tuple[str, ...]
    backend_url: str
    worker_url: str
    warnings: tuple[str, ...]


def migrations_directory() -> Path:
    """The directory of the SQL files: the checkout's, or the one packed into the wheel."""
    packed = Path(__file__).parents[1] / "_migrations"
    return packed if packed.is_dir() else Path(__file__).parents[2] / "database" / "migrations"


def migrate(admin_url: str, passwords: Mapping[str, str] | None = None) -> Migrated:
    """Apply pending migrations and enable the logins of the two roles. Idempotent; concurrent calls are safe.

    `admin_url` is a SQLAlchemy URL of a user who owns the database or is a superuser. `passwords` maps role names to
    passwords; missing ones are derived (`backend.db.roles.role_password`).

    Raises `RoleError` if the user may not create or change roles, and `psycopg.Error` for other failures. A failed
    migration is rolled back.
    """
    libpq, own_password = plain_url(admin_url), make_url(admin_url).password or ""
    logins = {role: (passwords or {}).get(role) or role_password(own_password, role) for role in ROLES}

    with psycopg.connect(libpq, connect_timeout=10, application_name="visual-ai migrate") as connection:
        # yoyo's own lock is a row, which a killed process leaves behind. This lock ends with its connection. While it
        # is held nobody else migrates, so a remaining row belongs to a dead process and can be removed.
        _wait_for_lock(connection)
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(BOOKKEEPING_SCHEMA)))
        connection.commit()
        applied = _apply(libpq)
        applied += _create_checkpoint_tables(connection, libpq)
        enable_logins(connection, logins)
        warnings = close_defaults(connection)

    return Migrated(
        applied=tuple(applied),
        backend_url=with_login(admin_url, BACKEND_ROLE, logins[BACKEND_ROLE]),
        worker_url=with_login(admin_url, WORKER_ROLE, logins[WORKER_ROLE]),
        warnings=tuple(f"every user has a right that nobody needs; revoke it with {line}" for line in warnings),
    )


def _wait_for_lock(connection: psycopg.Connection[Any]) -> None:
    # Polled, because a statement that waits holds a snapshot, for which the other process's CREATE INDEX CONCURRENTLY
    # would wait in turn.
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK_KEY]).fetchone()
        connection.commit()
        if row and row[0]:
            return
        time.sleep(0.1)


def _create_checkpoint_tables(connection: psycopg.Connection[Any], libpq: str) -> list[str]:
    """Create LangGraph's checkpoint and store tables with its own migrations, once for each of its versions."""
    current = f"langgraph-checkpoint-postgres {version('langgraph-checkpoint-postgres')}"
    table = sql.Identifier(BOOKKEEPING_SCHEMA, "checkpoint_tables")
    connection.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} (version text NOT NULL)").format(table))
    done = connection.execute(sql.SQL("SELECT 1 FROM {} WHERE version = %s").format(table), [current]).fetchone()
    connection.commit()
    if done:
        return []
    from langgraph.checkpoint.postgres import PostgresSaver  # takes half a second, and most starts don't need it
    from langgraph.store.postgres import PostgresStore

    with psycopg.connect(
        libpq, autocommit=True, row_factory=dict_row, options="-c search_path=visual_ai", connect_timeout=10
    ) as own:
        PostgresSaver(own).setup()
        PostgresStore(own).setup()
        for name in CHECKPOINT_TABLES:
            _grant(own, "SELECT, INSERT, UPDATE, DELETE", name, WORKER_ROLE)
            _grant(own, "SELECT, INSERT, UPDATE, DELETE" if name == "store" else "SELECT", name, BACKEND_ROLE)
    connection.execute(sql.SQL("DELETE FROM {}").format(table))
    connection.execute(sql.SQL("INSERT INTO {} VALUES (%s)").format(table), [current])
    connection.commit()
    return [current]


def _grant(connection: psycopg.Connection[Any], rights: LiteralString, table: str, role: str) -> None:
    statement = sql.SQL("GRANT {} ON {} TO {}")
    names = sql.Identifier("visual_ai", table), sql.Identifier(role)
    connection.execute(statement.format(sql.SQL(rights), *names))


def _apply(libpq: str) -> list[str]:
    parts = urlsplit(libpq)
    query = "&".join(part for part in (parts.query, f"schema={BOOKKEEPING_SCHEMA}") if part)
    backend = get_backend(urlunsplit(parts._replace(scheme="postgresql+psycopg", query=query)))
    try:
        backend.break_lock()
        with backend.lock():
            pending = backend.to_apply(read_migrations(str(migrations_directory())))
            names = [migration.id for migration in pending]
            log.info("migrations to apply: %s", ", ".join(names) or "none")
            backend.apply_migrations(pending)
    except psycopg.errors.InsufficientPrivilege as error:
        if "role" not in str(error):
            raise
        roles = "\n".join(f"  CREATE ROLE {role} LOGIN PASSWORD '…';" for role in ROLES)
        raise RoleError(
            "The database user may not create roles. Grant it CREATEROLE, or run as an administrator\n"
            f"{roles}\nand set VISUAL_AI_BACKEND_DB_PASSWORD and VISUAL_AI_WORKER_DB_PASSWORD to the same passwords."
        ) from None
    finally:
        backend.connection.close()
    return names
