"""Cursors: opaque text that clients send back for the next page of a list."""

import base64
import binascii
import json
from datetime import datetime
from uuid import UUID

from backend.core.problems import FieldError, Invalid
from backend.db.runs.pages import Position


def encode_cursor(moment: datetime, row_id: str) -> str:
    """The cursor that follows the row with this time and id."""
    return base64.urlsafe_b64encode(f"{moment.isoformat()}|{row_id}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """The time and id that the page follows. Raises `Invalid` for anything that `encode_cursor` did not return."""
    try:
        moment, _, row_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition("|")
        parsed = datetime.fromisoformat(moment)
        if parsed.tzinfo is None:
            raise ValueError(cursor)
        row_id = str(UUID(row_id))
    except (ValueError, binascii.Error) as error:
        raise _no_cursor() from error
    return parsed, row_id


def encode_task_cursor(last: Position) -> str:
    """The cursor that follows a task's position in `pages.TASKS`."""
    return base64.urlsafe_b64encode(json.dumps(last).encode()).decode().rstrip("=")


def decode_task_cursor(cursor: str) -> Position:
    """The position that the page follows. Raises `Invalid` as `decode_cursor` does."""
    try:
        rank, task_id, map_index = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not (type(rank) is int and type(task_id) is str and type(map_index) is int) or "\x00" in task_id:
            raise ValueError(cursor)
        if not (0 <= rank < 10 and -1 <= map_index < 2**31):
            raise ValueError(cursor)
        task_id.encode()
    except (ValueError, TypeError, binascii.Error) as error:
        raise _no_cursor() from error
    return rank, task_id, map_index


def encode_row_cursor(last: Position) -> str:
    """The cursor that follows an agent's or error's position in `pages`."""
    level, moment, row_id = last
    return f"{level}.{encode_cursor(moment, str(row_id))}"


def decode_row_cursor(cursor: str) -> Position:
    """The position that the page follows. Raises `Invalid` as `decode_cursor` does."""
    level, _, rest = cursor.partition(".")
    if level not in ("0", "1"):
        raise _no_cursor()
    return int(level), *decode_cursor(rest)


def _no_cursor() -> Invalid:
    detail = "is not a cursor of this list; take it from `next_cursor` of the page before"
    return Invalid(f"?cursor: {detail}", errors=[FieldError("?cursor", detail)])
