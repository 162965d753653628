"""The schedules, read when the file of their DAGs is parsed.

That costs one connection and one small query. What was read is kept in a file: while the database is away, the DAGs
stay what they were, instead of being gone. It is imported whenever the file is parsed, so it imports nothing heavy.
"""

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 10

_QUERY = """
SELECT id::text, dag_id, template, timetable, timezone, starts_from, end_date, catchup, enabled
FROM visual_ai.schedules ORDER BY id
"""
_TIMES = ("starts_from", "end_date")


def read_schedules(database_url: str) -> list[dict[str, Any]]:
    """All schedules, as they are or as they were known last.

    Raises `ConnectionError` if the database is away and nothing is known: Airflow then keeps the DAGs that it has.
    """
    kept = _file()
    try:
        rows = _read(database_url)
    except ConnectionError:
        if (known := _known(kept)) is None:
            raise
        return known
    _keep(kept, rows)
    return rows


def _read(database_url: str) -> list[dict[str, Any]]:
    import psycopg
    from psycopg.rows import dict_row

    try:
        with psycopg.connect(
            _plain(database_url),
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            application_name="visual_ai_schedules",
            options=f"-c statement_timeout={STATEMENT_SECONDS}s",
            row_factory=dict_row,
        ) as connection:
            return connection.execute(_QUERY).fetchall()
    except psycopg.OperationalError as error:
        raise ConnectionError(f"the schedules can't be read ({type(error).__name__})") from error


def _plain(url: str) -> str:
    """The address for psycopg: without the driver that SQLAlchemy wants to know."""
    scheme = urlsplit(url).scheme
    return url.replace(f"{scheme}:", f"{scheme.partition('+')[0]}:", 1)


def _file() -> Path:
    home = os.environ.get("AIRFLOW_HOME")
    return Path(home, "schedules.json") if home else Path.home() / ".cache" / "langgraph-flow" / "schedules.json"


def _known(file: Path) -> list[dict[str, Any]] | None:
    """The schedules that were read last; None if nothing is kept."""
    try:
        found = json.loads(file.read_text())
        return [
            {**row, **{name: datetime.fromisoformat(row[name]) for name in _TIMES if row[name] is not None}}
            for row in found
        ]
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _keep(file: Path, rows: list[Mapping[str, Any]] | list[dict[str, Any]]) -> None:
    """Keep what was read, if it is new and that is possible."""
    text = json.dumps(rows, default=datetime.isoformat)
    try:
        if file.is_file() and file.read_text() == text:
            return
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(file)
    except OSError:
        return
