"""Brings the `visual_ai` schema up to date: plain SQL files, applied in order, each once."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from sqlalchemy.engine import make_url
from yoyo import get_backend, read_migrations

from backend.db.address import plain_url, with_login
from backend.db.roles import BACKEND_ROLE, ROLES, WORKER_ROLE, RoleError, close_defaults, enable_logins, role_password

BOOKKEEPING_SCHEMA = "visual_ai_migrations"
"""What has been applied. A schema of its own: the roles' rights on `visual_ai` must not reach it."""

CHECKPOINT_TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes", "store")
"""LangGraph's own tables; tasks read, write and delete in them."""

_LOCK_KEY = 0x5649_5341_4D49  # any number, the same in every version

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Migrated:
    """What a migration did. The URLs are SQLAlchemy's, for psycopg 3, and hold passwords."""

    applied: tuple[str, ...]
    backend_url: str
    worker_url: str
    warnings: tuple[str, ...]


def migrations_directory() -> Path:
    """The SQL files: of the checkout, or those that were packed into the wheel."""
    packed = Path(__file__).parents[1] / "_migrations"
    return packed if packed.is_dir() else Path(__file__).parents[2] / "database" / "migrations"


def migrate(admin_url: str, passwords: Mapping[str, str] | None = None) -> Migrated:
    """Apply what is missing and make the two roles' logins work. Idempotent, and safe to run at the same time twice.

    `admin_url` is a SQLAlchemy URL of a user who owns the database or is a superuser; `passwords` maps role names to
    passwords, and what is missing in it is derived (`backend.db.roles.role_password`).

    Raises `RoleError` when the user lacks the right to make or change roles, `psycopg.Error` on everything else;
    a migration that fails leaves nothing behind.
    """
    libpq, own_password = plain_url(admin_url), make_url(admin_url).password or ""
    logins = {role: (passwords or {}).get(role) or role_password(own_password, role) for role in ROLES}

    with psycopg.connect(libpq, connect_timeout=10, application_name="visual-ai migrate") as connection:
        # yoyo's own lock is a row, which outlives a process that is killed. This one ends with its connection; while
        # it is held nobody migrates, so a row that is still there is a dead one's.
        _wait_for_lock(connection)
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(BOOKKEEPING_SCHEMA)))
        connection.commit()
        applied = _apply(libpq)
        applied += _make_checkpoint_tables(connection, libpq)
        enable_logins(connection, logins)
        warnings = close_defaults(connection)

    return Migrated(
        applied=tuple(applied),
        backend_url=with_login(admin_url, BACKEND_ROLE, logins[BACKEND_ROLE]),
        worker_url=with_login(admin_url, WORKER_ROLE, logins[WORKER_ROLE]),
        warnings=tuple(f"everybody keeps a right in this database that nobody needs; run {line}" for line in warnings),
    )


def _wait_for_lock(connection: psycopg.Connection[Any]) -> None:
    # Asked for again and again: who waits inside a statement holds a snapshot, for which the other's
    # CREATE INDEX CONCURRENTLY would wait in turn.
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK_KEY]).fetchone()
        connection.commit()
        if row and row[0]:
            return
        time.sleep(0.1)


def _make_checkpoint_tables(connection: psycopg.Connection[Any], libpq: str) -> list[str]:
    """The tables of LangGraph's checkpointer and store, by their own migrations, once for each version of theirs."""
    wanted = f"langgraph-checkpoint-postgres {version('langgraph-checkpoint-postgres')}"
    table = sql.Identifier(BOOKKEEPING_SCHEMA, "checkpoint_tables")
    connection.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} (version text NOT NULL)").format(table))
    done = connection.execute(sql.SQL("SELECT 1 FROM {} WHERE version = %s").format(table), [wanted]).fetchone()
    connection.commit()
    if done:
        return []
    from langgraph.checkpoint.postgres import PostgresSaver  # half a second that most starts need not pay
    from langgraph.store.postgres import PostgresStore

    with psycopg.connect(
        libpq, autocommit=True, row_factory=dict_row, options="-c search_path=visual_ai", connect_timeout=10
    ) as own:
        PostgresSaver(own).setup()
        PostgresStore(own).setup()
        for name in CHECKPOINT_TABLES:
            own.execute(
                sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {}, {}").format(
                    sql.Identifier("visual_ai", name), sql.Identifier(BACKEND_ROLE), sql.Identifier(WORKER_ROLE)
                )
            )
    connection.execute(sql.SQL("DELETE FROM {}").format(table))
    connection.execute(sql.SQL("INSERT INTO {} VALUES (%s)").format(table), [wanted])
    connection.commit()
    return [wanted]


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
            "The database user may not create roles. Give it CREATEROLE, or as an administrator run\n"
            f"{roles}\nand set VISUAL_AI_BACKEND_DB_PASSWORD and VISUAL_AI_WORKER_DB_PASSWORD to the same."
        ) from None
    finally:
        backend.connection.close()
    return names
