"""Sets up the logins of the two database roles of least privilege.

`visual_ai_backend` is for the API service, `visual_ai_worker` for Airflow's tasks, triggers and listeners. Migrations
grant their rights. This module sets their passwords and revokes what PostgreSQL grants to everyone by default.
"""

import hashlib
import hmac
from collections.abc import Mapping

import psycopg
from psycopg import sql

BACKEND_ROLE = "visual_ai_backend"
WORKER_ROLE = "visual_ai_worker"
ROLES = (BACKEND_ROLE, WORKER_ROLE)


class RoleError(RuntimeError):
    """The connected user may not set up the roles. The message says what an administrator has to run."""


def role_password(admin_password: str, role: str) -> str:
    """The default password of `role`, derived from the password of the user who migrates.

    Roles belong to the cluster, so two installations in different databases of a cluster share them. They have to
    derive the same password, or each would lock the other out when it starts; the name of the database is therefore not
    part of it. Installations that migrate as different users have to set the passwords
    (`VISUAL_AI_BACKEND_DB_PASSWORD`, `VISUAL_AI_WORKER_DB_PASSWORD`).
    """
    return hmac.new(admin_password.encode(), role.encode(), hashlib.sha256).hexdigest()


def set_password(connection: psycopg.Connection, role: str, password: str) -> None:
    """Let `role` log in with `password`. The server and its logs only see the SCRAM verifier."""
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    connection.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier)))


def can_log_in(connection: psycopg.Connection, role: str, password: str) -> bool:
    """Whether `role` can connect to the database of this connection with `password`."""
    info = connection.info
    try:
        psycopg.connect(
            host=info.host, port=info.port, dbname=info.dbname, user=role, password=password, connect_timeout=5
        ).close()
    except psycopg.OperationalError:
        return False
    return True


def enable_logins(connection: psycopg.Connection, passwords: Mapping[str, str]) -> None:
    """Set the password of each role that can't log in with it yet, so that a second run needs no rights.

    Raises `RoleError` if the connected user may not change such a role.
    """
    for role, password in passwords.items():
        if can_log_in(connection, role, password):
            continue
        try:
            set_password(connection, role, password)
        except psycopg.errors.InsufficientPrivilege:
            connection.rollback()
            variable = {BACKEND_ROLE: "VISUAL_AI_BACKEND_DB_PASSWORD", WORKER_ROLE: "VISUAL_AI_WORKER_DB_PASSWORD"}
            raise RoleError(
                f"The database user may not set the password of {role}. As an administrator run\n"
                f"  ALTER ROLE {role} LOGIN PASSWORD '…';\n"
                f"and set {variable[role]} to the same."
            ) from None
    connection.commit()


def close_defaults(connection: psycopg.Connection) -> list[str]:
    """Revoke what PostgreSQL grants to everyone: temporary tables, and objects in `public` (before version 15).

    Returns one SQL statement for each right that the connected user may not revoke.
    """
    database = connection.info.dbname
    connection.execute(sql.SQL("SET LOCAL client_min_messages = error"))
    statements = (
        sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)),
        sql.SQL("REVOKE CREATE ON SCHEMA public FROM PUBLIC"),
    )
    for statement in statements:
        try:
            with connection.transaction():
                connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            continue
    query = "SELECT has_database_privilege(%s, %s, 'TEMP'), has_schema_privilege(%s, 'public', 'CREATE')"
    kept = connection.execute(query, [WORKER_ROLE, database, WORKER_ROLE]).fetchone()
    connection.commit()
    return [s.as_string(connection) + ";" for s, still in zip(statements, kept or (), strict=True) if still]
