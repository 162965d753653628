"""The two database roles of least privilege: their logins, and what they must not be able to do.

`visual_ai_backend` is the API service, `visual_ai_worker` the Airflow tasks, triggers and listeners. Their rights stand
in the migrations; here they get a password, and the database's defaults for everybody are taken away.
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
    """The roles can't be set up with the rights at hand; the message says what an administrator has to run."""


def role_password(admin_password: str, role: str) -> str:
    """The password of `role` when none is given: derived from the migrating user's own.

    Roles belong to the cluster, not to a database. Two installations in two databases of one cluster therefore share
    the role, and must come to the same password or lock each other out at every start: so the database's name is no
    part of it. Installations that migrate as different users set the passwords themselves
    (`VISUAL_AI_BACKEND_DB_PASSWORD`, `VISUAL_AI_WORKER_DB_PASSWORD`).
    """
    return hmac.new(admin_password.encode(), role.encode(), hashlib.sha256).hexdigest()


def set_password(connection: psycopg.Connection, role: str, password: str) -> None:
    """Give `role` a login and `password`. The server sees only its SCRAM verifier, and so do its logs."""
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    connection.execute(sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier)))


def can_log_in(connection: psycopg.Connection, role: str, password: str) -> bool:
    """Whether `role` reaches this connection's database with `password`."""
    info = connection.info
    try:
        psycopg.connect(
            host=info.host, port=info.port, dbname=info.dbname, user=role, password=password, connect_timeout=5
        ).close()
    except psycopg.OperationalError:
        return False
    return True


def enable_logins(connection: psycopg.Connection, passwords: Mapping[str, str]) -> None:
    """Make each role's password valid; what already works is left alone, so no rights are needed a second time.

    Raises `RoleError` when the connected user may not change a role that needs it.
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
    """Take from everybody what PostgreSQL gives everybody: temporary tables, and objects in `public` (before 15).

    Returns one line of SQL for each right that the connected user can't take away.
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
