"""A run's input as it is given on the command line."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backend.cli.errors import CliError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def read_object(source: str) -> dict[str, Any]:
    """The JSON object in a file, or on standard input for `-`. Raises `CliError`."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
        value = json.loads(text)
    except OSError as error:
        raise CliError(f"--input-json: {source} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise CliError(f"--input-json: {source} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise CliError(f"--input-json: {source} holds no JSON object")
    return value


def parse_pairs(pairs: Sequence[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `name=value` and `name:=JSON`.

    A value is text unless the workflow's schema of that name takes none: then it is read as JSON. Raises `CliError`.
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
            wanted = "JSON" if as_json else " or ".join(sorted(types))
            raise CliError(f"--input: {name} takes {wanted}, and {value!r} is none") from None
    return found


def local_picture(image: str) -> tuple[str, bytes] | None:
    """The name and content of a picture on this machine; None for an address. Raises `CliError`."""
    if _ADDRESS.match(image):
        return None
    path = Path(image)
    try:
        return path.name, path.read_bytes()
    except OSError as error:
        raise CliError(f"--image: {image} can't be read: {error.strerror}") from error


def _types(schema: Any) -> set[str]:
    """The JSON types that a schema allows, as far as it says so."""
    if not isinstance(schema, Mapping):
        return set()
    given = schema.get("type")
    types = {given} if isinstance(given, str) else set(given) if isinstance(given, list) else set()
    for alternatives in ("anyOf", "oneOf"):
        for alternative in schema.get(alternatives) or []:
            types |= _types(alternative)
    return types
