"""Service tokens. Of their secrets only hashes are stored."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select, update

from backend.db.rows import Row, all_rows, first_row, one_row
from backend.db.tables import service_tokens as tokens

_LISTED = [column for column in tokens.c if column.name != "secret_hash"]

USED_AT_MOST_EVERY = timedelta(minutes=1)
"""How often the time of a token's last use is written."""


def add(connection: Connection, values: dict[str, Any]) -> Row:
    """Store a token and return it without its hash."""
    return one_row(connection.execute(insert(tokens).values(values).returning(*_LISTED)))


def count_live(connection: Connection, user_id: str) -> int:
    """How many tokens of the user are valid. They are locked against others that count at the same time."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"service_tokens {user_id}"))))
    query = select(func.count()).where(tokens.c.user_id == user_id, tokens.c.revoked_at.is_(None), _not_expired())
    return int(connection.execute(query).scalar_one())


def find(connection: Connection, prefix: str) -> Row | None:
    """The token with this prefix, with its hash."""
    return first_row(connection.execute(select(tokens).where(tokens.c.prefix == prefix)))


def get(connection: Connection, token_id: str) -> Row | None:
    """A token, without its hash."""
    return first_row(connection.execute(select(*_LISTED).where(tokens.c.id == token_id)))


def list_tokens(
    connection: Connection, *, user_id: str | None, before: tuple[datetime, str] | None, limit: int
) -> list[Row]:
    """Tokens of a user, or of all users, newest first, without their hashes."""
    query = select(*_LISTED).order_by(tokens.c.created_at.desc(), tokens.c.id.desc()).limit(limit)
    if user_id is not None:
        query = query.where(tokens.c.user_id == user_id)
    if before is not None:
        moment, last = before
        query = query.where(or_(tokens.c.created_at < moment, (tokens.c.created_at == moment) & (tokens.c.id < last)))
    return all_rows(connection.execute(query))


def revoke(connection: Connection, token_id: str, *, by: str) -> Row | None:
    """Revoke a token; a revoked one stays as it is. Returns it, or None if it doesn't exist."""
    connection.execute(
        update(tokens)
        .where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
        .values(revoked_at=func.clock_timestamp(), revoked_by=by)
    )
    return get(connection, token_id)


def revoke_all(connection: Connection, user_id: str, *, by: str) -> list[str]:
    """Revoke all tokens of a user; returns their ids."""
    revoked = connection.execute(
        update(tokens)
        .where(tokens.c.user_id == user_id, tokens.c.revoked_at.is_(None))
        .values(revoked_at=func.clock_timestamp(), revoked_by=by)
        .returning(tokens.c.id)
    )
    return [str(token_id) for token_id in revoked.scalars()]


def touch(connection: Connection, token_ids: Sequence[str]) -> None:
    """Record that tokens have been used."""
    now = func.clock_timestamp()
    stale = or_(tokens.c.last_used_at.is_(None), tokens.c.last_used_at < now - USED_AT_MOST_EVERY)
    connection.execute(update(tokens).where(tokens.c.id.in_(token_ids), stale).values(last_used_at=now))


def _not_expired() -> Any:
    return tokens.c.expires_at > func.clock_timestamp()
