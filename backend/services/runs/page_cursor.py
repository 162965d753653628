"""Cursors: opaque text that clients send back for the next page of a list."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from backend.core.problems import FieldError, Invalid
from backend.db.runs.pages import Position

T = TypeVar("T")


def encode_cursor(moment: datetime, row_id: str) -> str:
    """The cursor that follows the row with this time and id."""
    return base64.urlsafe_b64encode(f"{moment.isoformat()}|{row_id}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """The time and id that the page follows. Raises `Invalid` for anything that `encode_cursor` did not return."""
    return _decoded(cursor, lambda row_id: str(UUID(row_id)))


def decode_numbered_cursor(cursor: str) -> tuple[datetime, int]:
    """The same where ids are numbers."""
    moment, number = _decoded(cursor, int)
    if not 0 <= number < 2**63:
        raise _no_cursor()
    return moment, number


def _decoded(cursor: str, read: Callable[[str], T]) -> tuple[datetime, T]:
    try:
        moment, _, row_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition("|")
        parsed = datetime.fromisoformat(moment)
        if parsed.tzinfo is None:
            raise ValueError(cursor)
        found = read(row_id)
    except (ValueError, binascii.Error) as error:
        raise _no_cursor() from error
    return parsed, found


def encode_task_cursor(last: Position) -> str:
    """The cursor that follows a task's position in `pages.TASKS`."""
    return _encode_parts(last)


def decode_task_cursor(cursor: str) -> Position:
    """The position that the page follows. Raises `Invalid` as `decode_cursor` does."""
    try:
        rank, task_id, map_index = _decode_parts(cursor)
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


def encode_text_cursor(last: tuple[str, str, str]) -> str:
    """The cursor that follows a row with these three texts."""
    return _encode_parts(last)


def decode_text_cursor(cursor: str) -> tuple[str, str, str]:
    """The texts of the row that the page follows. Raises `Invalid` as `decode_cursor` does."""
    try:
        first, second, third = parts = _decode_parts(cursor)
        if not all(type(part) is str and "\x00" not in part for part in parts):
            raise ValueError(cursor)
        "".join(parts).encode()
    except (ValueError, TypeError, binascii.Error) as error:
        raise _no_cursor() from error
    return first, second, third


def _encode_parts(parts: Sequence[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def _decode_parts(cursor: str) -> Sequence[Any]:
    parts: Sequence[Any] = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    return parts


def _no_cursor() -> Invalid:
    detail = "is not a cursor of this list; take it from `next_cursor` of the page before"
    return Invalid(f"?cursor: {detail}", errors=[FieldError("?cursor", detail)])
