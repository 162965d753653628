"""Query results as plain mappings from column names to values."""

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import CursorResult, Result

Row = Mapping[str, Any]


def all_rows(result: Result[Any] | CursorResult[Any]) -> list[Row]:
    """All rows."""
    return cast(list[Row], result.mappings().all())


def first_row(result: Result[Any] | CursorResult[Any]) -> Row | None:
    """The first row, if there is one."""
    return cast(Row | None, result.mappings().first())


def one_row(result: Result[Any] | CursorResult[Any]) -> Row:
    """The only row."""
    return cast(Row, result.mappings().one())
