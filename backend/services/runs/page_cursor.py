"""Cursors of lists that are sorted newest first: opaque text that clients send back for the next page."""

import base64
import binascii
from datetime import datetime
from uuid import UUID

from backend.core.problems import FieldError, Invalid


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
        detail = "is not a cursor of this list; take it from `next_cursor` of the page before"
        raise Invalid(f"?cursor: {detail}", errors=[FieldError("?cursor", detail)]) from error
    return parsed, row_id
