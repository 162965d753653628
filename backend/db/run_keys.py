"""The key that signs what the trigger adds to runs' confs (`core/run_envelope.py`). A migration creates it."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from backend.core.run_envelope import SYSTEM_KEY, read_signed
from backend.db.tables import signing_keys

_known: dict[str, bytes] = {}
"""The keys of this process's databases, by their addresses. They never change."""


def run_key(connection: Connection) -> bytes:
    """The key, which is read once per process."""
    address = str(connection.engine.url)
    found = _known.get(address)
    if found is None:
        query = select(signing_keys.c.key).where(signing_keys.c.name == "run_conf")
        found = _known[address] = bytes(connection.execute(query).scalar_one())
    return found


def trigger_values(connection: Connection, dag_id: str, dag_run_id: str, conf: Mapping[str, Any]) -> dict[str, Any]:
    """What the trigger added to the conf of this run; empty if it added nothing. Costs nothing then."""
    if SYSTEM_KEY not in conf:
        return {}
    return read_signed(run_key(connection), dag_id, dag_run_id, conf)
