"""A run's input, and answers to its questions, as given on the command line."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backend.cli.errors import CliError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def read_object(source: str, option: str = "--input-json") -> dict[str, Any]:
    """Return the JSON object in a file, or on standard input for `-`. Raises `CliError` naming the option."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
        value = json.loads(text)
    except OSError as error:
        raise CliError(f"{option}: {source} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise CliError(f"{option}: {source} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CliError(f"{option}: {source} does not contain a JSON object")
    return value


def parse_pairs(pairs: Sequence[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Parse `name=value` and `name:=JSON` pairs into a dictionary.

    A value is read as text, or as JSON if the workflow's `schema` allows no string under that name. Raises `CliError`.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        as_json = name.endswith(":")
        name = name.removesuffix(":")
        if not equals or not name:
            raise CliError(f"--input: {pair!r} is neither name=value nor name:=JSON")
        if name in found:
            raise CliError(f"--input: {name} is given twice")
        types = _types(schema.get("properties", {}).get(name))
        if not as_json and (not types or "string" in types):
            found[name] = value
            continue
        try:
            found[name] = json.loads(value)
        except ValueError:
            expected = "JSON" if as_json else " or ".join(sorted(types))
            raise CliError(f"--input: {value!r} is not valid for {name}, which takes {expected}") from None
    return found


def local_picture(image: str) -> tuple[str, bytes] | None:
    """Return the name and content of a picture on this machine; None for an address. Raises `CliError`."""
    if _ADDRESS.match(image):
        return None
    path = Path(image)
    try:
        return path.name, path.read_bytes()
    except OSError as error:
        raise CliError(f"--image: {image} can't be read: {error.strerror}") from error


def _types(schema: Any) -> set[str]:
    """The JSON types that a schema allows, as far as it names them."""
    if not isinstance(schema, Mapping):
        return set()
    given = schema.get("type")
    types = {given} if isinstance(given, str) else set(given) if isinstance(given, list) else set()
    for alternatives in ("anyOf", "oneOf"):
        for alternative in schema.get(alternatives) or []:
            types |= _types(alternative)
    return types


def answer_body(text: str | None, as_json: str | None, approve: bool, reject: bool) -> dict[str, Any]:
    """The body of an answer, which is given in one of four ways. Raises `CliError`."""
    given = [text is not None, as_json is not None, approve, reject]
    if sum(given) != 1:
        raise CliError("give either the answer's TEXT, --json-answer, --approve or --reject")
    if approve or reject:
        return {"decision": "approve" if approve else "reject"}
    if as_json is None:
        return {"answer": text}
    try:
        return {"answer": json.loads(as_json)}
    except ValueError as error:
        raise CliError(f"--json-answer: not valid JSON: {error}") from error
