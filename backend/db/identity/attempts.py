"""Attempts to sign in: by account, by address, and by both. The empty string stands for any account or address."""

from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from backend.db.rows import Row, all_rows
from backend.db.tables import sign_in_attempts as attempts

Key = tuple[str, str]
"""An account and an address."""

KEPT = timedelta(days=1)
KEPT_AFTER_SUCCESS = timedelta(days=30)
"""For how long an address counts as one that the account is used from."""


def lock(connection: Connection, keys: list[Key]) -> dict[Key, Row]:
    """The counters of `keys`, created if need be and locked until the transaction ends.

    Each has `quiet`, the seconds since its last attempt, and `blocked_for`, the seconds for which none is accepted.
    """
    ordered = sorted(keys)
    connection.execute(
        insert(attempts)
        .values([{"account": account, "address": address, "failures": 0} for account, address in ordered])
        .on_conflict_do_nothing()
    )
    now = func.clock_timestamp()
    query = (
        select(
            attempts,
            func.extract("epoch", now - attempts.c.last_attempt_at).label("quiet"),
            func.extract("epoch", attempts.c.blocked_until - now).label("blocked_for"),
            (attempts.c.last_success_at > now - KEPT_AFTER_SUCCESS).label("known"),
        )
        .where(tuple_(attempts.c.account, attempts.c.address).in_(ordered))
        .order_by(attempts.c.account, attempts.c.address)
        .with_for_update()
    )
    return {(row["account"], row["address"]): row for row in all_rows(connection.execute(query))}


def count(connection: Connection, key: Key, failures: int, wait: float) -> None:
    """Record an attempt, the `failures`-th without success; none is accepted for the next `wait` seconds."""
    now = func.clock_timestamp()
    connection.execute(
        update(attempts)
        .where(_is(key))
        .values(
            failures=failures,
            last_attempt_at=now,
            blocked_until=now + timedelta(seconds=wait) if wait else None,
        )
    )


def take_back(connection: Connection, keys: list[Key]) -> None:
    """Uncount an attempt that did not fail because of the password."""
    connection.execute(
        update(attempts)
        .where(tuple_(attempts.c.account, attempts.c.address).in_(sorted(keys)))
        .values(failures=func.greatest(attempts.c.failures - 1, 0), blocked_until=None)
    )


def succeed(connection: Connection, key: Key) -> None:
    """Record that the account was signed in to from the address."""
    connection.execute(
        update(attempts).where(_is(key)).values(failures=0, blocked_until=None, last_success_at=func.clock_timestamp())
    )


def forget(connection: Connection) -> None:
    """Delete counters that no longer matter."""
    now = func.clock_timestamp()
    connection.execute(
        delete(attempts).where(
            attempts.c.last_attempt_at < now - KEPT,
            func.coalesce(attempts.c.last_success_at < now - KEPT_AFTER_SUCCESS, True),
        )
    )


def _is(key: Key) -> ColumnElement[bool]:
    return and_(attempts.c.account == key[0], attempts.c.address == key[1])
