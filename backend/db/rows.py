"""Rows as plain mappings."""

from collections.abc import Mapping
from typing import Any, cast

from sqlalchemy import CursorResult, Result

Row = Mapping[str, Any]


def all_rows(result: Result[Any] | CursorResult[Any]) -> list[Row]:
    """All rows by column name."""
    return cast(list[Row], result.mappings().all())


def first_row(result: Result[Any] | CursorResult[Any]) -> Row | None:
    """The first row by column name, if there is one."""
    return cast(Row | None, result.mappings().first())


def one_row(result: Result[Any] | CursorResult[Any]) -> Row:
    """The only row by column name."""
    return cast(Row, result.mappings().one())
