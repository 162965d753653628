"""Checks that the database is available and has the schema that this version of the code expects."""

from sqlalchemy import Connection, select, text

from backend.db.conversations.tables import conversations

metadata = conversations.metadata
"""All tables, of which those of conversations are the last to be defined."""


def ping(connection: Connection) -> None:
    """Make one round trip. Raises `sqlalchemy.exc.DBAPIError` if the database is unavailable."""
    connection.execute(select(1))


def missing(connection: Connection) -> list[str]:
    """The tables that don't exist or lack a column, because a migration has not been applied."""
    rows = connection.execute(
        text("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = :schema"),
        {"schema": metadata.schema},
    )
    found = {(row.table_name, row.column_name) for row in rows}
    return sorted(
        table.name
        for table in metadata.tables.values()
        if any((table.name, column.name) not in found for column in table.c)
    )
