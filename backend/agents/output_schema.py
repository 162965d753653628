"""The form of an agent's `data`: a JSON Schema, or a Pydantic model named by its path."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import referencing
import referencing.exceptions
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.validators import validator_for
from referencing.jsonschema import DRAFT202012

from backend.core.errors.input_error import InputError
from backend.core.exact_json import NoJsonFormError, to_json
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
    validator = validator_for(schema, default=Draft202012Validator)
    try:
        validator.check_schema(schema)
    except SchemaError as error:
        raise InputError(f"is no valid JSON Schema: {error.json_path}: {error.message}", field=FIELD) from None
    if schema.get("type") != "object":
        raise InputError('has to describe an object: its "type" has to be "object"', field=FIELD)
    _check_references(schema, schema)
    return schema


def load_output_schema(value: dict[str, Any] | str) -> OutputSchema:
    """Make a checked schema ready for use, importing a Pydantic model. Raises `InputError` if that isn't possible."""
    return _of_model(value) if isinstance(value, str) else _of_json_schema(value)


def _of_json_schema(schema: dict[str, Any]) -> OutputSchema:
    kind = validator_for(schema, default=Draft202012Validator)
    # The registry is empty, so that no reference is ever fetched.
    validator = kind(schema, registry=referencing.Registry(), format_checker=kind.FORMAT_CHECKER)

    def fit(data: Any) -> dict[str, Any]:
        _check_storable(data)
        error = best_match(validator.iter_errors(data))
        if error is not None:
            raise DataError(f"{error.json_path}: {error.message[:MAX_MESSAGE]}")
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


def _check_references(part: Any, root: dict[str, Any]) -> None:
    if isinstance(part, Mapping):
        reference = part.get("$ref")
        if isinstance(reference, str):
            _check_reference(reference, root)
        for value in part.values():
            _check_references(value, root)
    elif isinstance(part, list | tuple):
        for value in part:
            _check_references(value, root)


def _check_reference(reference: str, root: dict[str, Any]) -> None:
    if not reference.startswith("#"):
        raise InputError(f"refers to {reference!r}; references have to stay inside the schema (#/$defs/…)", field=FIELD)
    resource = referencing.Resource.from_contents(root, default_specification=DRAFT202012)
    try:
        referencing.Registry().with_resource("", resource).resolver().lookup(reference)
    except (referencing.exceptions.Unresolvable, referencing.exceptions.PointerToNowhere):
        raise InputError(f"refers to {reference!r}, which it does not hold", field=FIELD) from None
