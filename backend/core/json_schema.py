"""Checks values against JSON Schemas that DAG authors write.

The checks run in compiled code: a list of 900,000 numbers takes 0.1 s, where Python's `jsonschema` takes 40. Regular
expressions can't hang it: they take linear time, or give up after a bounded number of steps if they refer back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
from jsonschema_rs import ValidationError, ValidationErrorKind

from backend.core.jsonable import unstorable

MAX_PARTS = 2_000
"""In a value of more parts only the first fault is looked for: each takes up to 0.1 ms, and all are found at once."""

_BACKTRACKING = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)


class SchemaFaultError(ValueError):
    """A schema that isn't valid. `path` leads to the part that is wrong; the message says what is."""

    def __init__(self, message: str, path: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """Where a value violates its schema. `path` leads to the part, which violates `keyword`.

    `missing` is the name of the property that is required, or None. `description` is the schema's own.
    """

    path: tuple[str | int, ...]
    keyword: str
    message: str
    instance: Any
    missing: str | None = None
    description: str | None = None


class JsonSchema:
    """A schema ready for use, by default of draft 2020-12. References to other documents are never fetched."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises `SchemaFaultError`."""
        try:
            self._validator = jsonschema_rs.validator_for(
                dict(schema), validate_formats=True, offline=True, pattern_options=_BACKTRACKING
            )
        except ValidationError as error:
            raise SchemaFaultError(error.message, tuple(error.instance_path)) from None
        except ValueError as error:
            raise SchemaFaultError(str(error).partition("\n")[0], ()) from None
        self._schema = schema

    def is_valid(self, value: Any) -> bool:
        """Whether a JSON value fits."""
        return self._validator.is_valid(value)

    def faults(self, value: Any) -> list[SchemaFault]:
        """How a JSON value violates the schema; empty if it fits. Of a value with many parts only the first fault."""
        try:
            return self._find(value)
        except UnicodeEncodeError:  # a text with half of a surrogate pair, which nothing can store
            path, detail = unstorable(value) or ((), "contains half of a surrogate pair")
            return [SchemaFault(tuple(path), "", detail, None)]

    def _find(self, value: Any) -> list[SchemaFault]:
        if self._validator.is_valid(value):
            return []
        if _has_many_parts(value):
            try:
                self._validator.validate(value)
            except ValidationError as error:
                return [self._fault(error)]
        return [self._fault(error) for error in self._validator.iter_errors(value)]

    def _fault(self, error: ValidationError) -> SchemaFault:
        error = _closest(error)
        kind = error.kind
        missing = kind.property if isinstance(kind, ValidationErrorKind.Required) else None
        description = self._description(error.schema_path[:-1])
        return SchemaFault(tuple(error.instance_path), kind.name, error.message, error.instance, missing, description)

    def _description(self, path: list[str | int]) -> str | None:
        part: Any = self._schema
        for key in path:
            try:
                part = part[key]
            except (KeyError, IndexError, TypeError):  # behind a reference
                return None
        found = part.get("description") if isinstance(part, Mapping) else None
        return found if isinstance(found, str) else None


def json_path(path: Iterable[str | int]) -> str:
    """A path as people write it: `$.ships[0].name`."""
    parts = (f"[{part}]" if isinstance(part, int) or not part.isidentifier() else f".{part}" for part in path)
    return "$" + "".join(parts)


def _closest(error: ValidationError) -> ValidationError:
    """Of alternatives, none of which fits, the fault of the only one that a value of this type can be meant for."""
    while isinstance(error.kind, ValidationErrorKind.AnyOf | ValidationErrorKind.OneOfNotValid):
        meant = [
            branch
            for branch in error.kind.context
            if not any(fault.kind.name == "type" and fault.instance_path == error.instance_path for fault in branch)
        ]
        if len(meant) != 1 or not meant[0]:
            break
        error = meant[0][0]
    return error


def _has_many_parts(value: Any) -> bool:
    return sum(1 for _ in zip(_parts(value), range(MAX_PARTS + 1), strict=False)) > MAX_PARTS


def _parts(value: Any) -> Iterator[Any]:
    pending = [value]
    while pending:
        part = pending.pop()
        yield part
        if isinstance(part, dict):
            pending.extend(part.values())
        elif isinstance(part, list | tuple):
            pending.extend(part)
