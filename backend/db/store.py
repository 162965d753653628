"""LangGraph's store, as far as it isn't LangGraph that reads and writes it."""

from sqlalchemy import Connection, text

_EXPIRED = text("""
    DELETE FROM visual_ai.store WHERE (prefix, key) IN (
        SELECT prefix, key FROM visual_ai.store WHERE expires_at < clock_timestamp() LIMIT :limit
    )
""")


def delete_expired(connection: Connection, *, limit: int) -> int:
    """Delete items whose time to live is over, with their vectors; returns how many, up to `limit`."""
    return connection.execute(_EXPIRED, {"limit": limit}).rowcount
