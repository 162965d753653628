"""Idempotency keys: which run was started for a request of a user."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert

from backend.db.tables import idempotency_keys as keys


@dataclass(frozen=True, slots=True)
class Claim:
    """The run of a key. `request_hash` detects that the key was reused for a different request."""

    request_hash: str
    dag_id: str
    dag_run_id: str
    execution_id: str


def claim(connection: Connection, user_id: str, key: str, wanted: Claim) -> tuple[Claim, bool]:
    """Claim the key for `wanted`. Returns the claim that is stored for the key, and whether it is new."""
    made = connection.execute(
        insert(keys)
        .values(
            user_id=user_id,
            key=key,
            request_hash=wanted.request_hash,
            dag_id=wanted.dag_id,
            dag_run_id=wanted.dag_run_id,
            execution_id=wanted.execution_id,
        )
        .on_conflict_do_nothing()
        .returning(keys.c.key)
    ).first()
    if made is not None:
        return wanted, True
    known = find(connection, user_id, key)
    if known is None:  # released between the two statements
        return claim(connection, user_id, key, wanted)
    return known, False


def find(connection: Connection, user_id: str, key: str) -> Claim | None:
    """The claim of a key, if it was used."""
    row = connection.execute(
        select(keys.c.request_hash, keys.c.dag_id, keys.c.dag_run_id, keys.c.execution_id).where(
            keys.c.user_id == user_id, keys.c.key == key
        )
    ).first()
    return Claim(*row) if row else None


def release(connection: Connection, user_id: str, key: str) -> None:
    """Delete a claim after Airflow rejected the run, so that a corrected request may use the key."""
    connection.execute(delete(keys).where(keys.c.user_id == user_id, keys.c.key == key))
