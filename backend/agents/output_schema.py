"""The form of an agent's `data`: a JSON Schema, or a Pydantic model named by its path."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from backend.core.errors.input_error import InputError
from backend.core.exact_json import NoJsonFormError, to_json
from backend.core.json_schema import JsonSchema, SchemaFaultError, json_path
from backend.core.problems import pointer

FIELD = "output_schema"
MAX_MESSAGE = 1_000

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class DataError(ValueError):
    """The data doesn't fit the schema. The message says where and why, in words that a model can act on."""


@dataclass(frozen=True, slots=True)
class OutputSchema:
    """A schema ready for use.

    `json_schema` is shown to the model. `fit` returns the data as JSON, as a Pydantic model normalises it, or raises
    `DataError`.
    """

    json_schema: dict[str, Any]
    fit: Callable[[Any], dict[str, Any]]


def check_output_schema(value: Any) -> dict[str, Any] | str:
    """Check a DAG author's schema, as far as that is possible without importing a model. Raises `InputError`.

    The root has to be an object, because providers support nothing else. References must stay inside the schema.
    """
    if isinstance(value, str):
        if not _PATH.fullmatch(value):
            raise InputError(
                f"is {value!r}; it has to be a JSON Schema or the path of a Pydantic model, package.module:Class",
                field=FIELD,
            )
        return value
    if not isinstance(value, Mapping):
        kind = value.__name__ if isinstance(value, type) else type(value).__name__
        raise InputError(
            f"has to be a JSON Schema (a dict) or the path of a Pydantic model, package.module:Class, not {kind}",
            field=FIELD,
        )
    schema = dict(value)
    _check_references(schema)
    try:
        JsonSchema(schema)
    except SchemaFaultError as fault:
        raise InputError(f"is no valid JSON Schema: {json_path(fault.path)}: {fault}", field=FIELD) from None
    if schema.get("type") != "object":
        raise InputError('has to describe an object: its "type" has to be "object"', field=FIELD)
    return schema


def load_output_schema(value: dict[str, Any] | str) -> OutputSchema:
    """Make a checked schema ready for use, importing a Pydantic model. Raises `InputError` if that isn't possible."""
    return _of_model(value) if isinstance(value, str) else _of_json_schema(value)


def _of_json_schema(schema: dict[str, Any]) -> OutputSchema:
    checks = JsonSchema(schema)

    def fit(data: Any) -> dict[str, Any]:
        _check_storable(data)
        if faults := checks.faults(data):
            raise DataError(f"{json_path(faults[0].path)}: {faults[0].message[:MAX_MESSAGE]}")
        return dict(data)

    return OutputSchema(schema, fit)


def _of_model(path: str) -> OutputSchema:
    from pydantic import BaseModel, ValidationError

    module, _, name = path.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # importing a module may raise anything
        raise InputError(f"{path} can't be imported: {type(error).__name__}: {error}", field=FIELD) from error
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise InputError(f"{path} is no Pydantic model", field=FIELD)
    model: type[BaseModel] = found
    schema = model.model_json_schema()
    if "$ref" in schema:  # a recursive model is one of its own definitions
        schema = {**schema, **schema["$defs"][schema["$ref"].rpartition("/")[2]]}
        del schema["$ref"]
    if schema.get("type") != "object":
        raise InputError(f"{path} has to describe an object", field=FIELD)

    def fit(data: Any) -> dict[str, Any]:
        _check_storable(data)
        try:
            return model.model_validate(data).model_dump(mode="json")
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False, include_context=False)
            lines = [f"{'.'.join(map(str, problem['loc'])) or '$'}: {problem['msg']}" for problem in problems]
            raise DataError("; ".join(lines)[:MAX_MESSAGE]) from None

    return OutputSchema(schema, fit)


def _check_storable(data: Any) -> None:
    """Raise `DataError` for a part that no row or XCom can hold: the model can write it in another way."""
    try:
        to_json(data, for_xcom=True)
    except NoJsonFormError as error:
        raise DataError(f"{pointer(*error.path[:20]) or '$'} {error.fault}") from None


def _check_references(part: Any) -> None:
    if isinstance(part, Mapping):
        reference = part.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            raise InputError(
                f"refers to {reference!r}; references have to stay inside the schema (#/$defs/…)", field=FIELD
            )
        for value in part.values():
            _check_references(value)
    elif isinstance(part, list | tuple):
        for value in part:
            _check_references(value)
