"""The smallest value that fits a JSON Schema: the reply of a fake model to a request with a schema.

Covers what OpenAI's structured outputs allow (https://platform.openai.com/docs/guides/structured-outputs).
`pattern` is not honoured, nor is a combination of `allOf` parts that is more than a merged object.
"""

from __future__ import annotations

import math
from typing import Any

_FORMATS = {
    "date": "2025-01-01",
    "time": "12:00:00Z",
    "date-time": "2025-01-01T12:00:00Z",
    "duration": "P1D",
    "email": "user@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_DEEP = 6  # below this, take null where null is allowed: a recursive schema then ends


def example(schema: dict[str, Any]) -> Any:
    """The smallest value; the same one for the same schema. Raises `RecursionError` if no finite value fits."""
    return _example(schema, schema, 0)


def _example(schema: Any, root: dict[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict):  # `true`: anything
        return None
    if "$ref" in schema:
        target = _resolve(schema["$ref"], root)
        return _example({**target, **{k: v for k, v in schema.items() if k != "$ref"}}, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return _example(_choose(schema[union], depth), root, depth + 1)
    if "allOf" in schema:
        return _example(_merge(schema, root), root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else None)
    if isinstance(kind, list):
        some = [k for k in kind if k != "null"]
        kind = "null" if not some or (depth > _DEEP and "null" in kind) else some[0]
    match kind:
        case "object":
            wanted = schema.get("required", [])
            properties = schema.get("properties", {})
            return {name: _example(properties.get(name, {}), root, depth + 1) for name in wanted}
        case "array":
            first = schema.get("prefixItems", [])[: schema.get("minItems", 0)]
            rest = [schema.get("items", {})] * (schema.get("minItems", 0) - len(first))
            return [_example(item, root, depth + 1) for item in [*first, *rest]]
        case "string":
            return _string(schema)
        case "integer" | "number":
            return _number(schema, whole=kind == "integer")
        case "boolean":
            return False
        case _:
            return None


def _resolve(ref: str, root: dict[str, Any]) -> dict[str, Any]:
    node: Any = root
    for part in ref.removeprefix("#").strip("/").split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")] if part else node
    return dict(node)


def _choose(options: list[Any], depth: int) -> Any:
    """The first alternative that is not null; deep inside a recursive schema, null."""
    null = [o for o in options if isinstance(o, dict) and o.get("type") == "null"]
    some = [o for o in options if o not in null]
    return null[0] if null and (depth > _DEEP or not some) else some[0]


def _merge(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {k: v for k, v in schema.items() if k != "allOf"}
    for part in schema["allOf"]:
        given = _resolve(part["$ref"], root) if "$ref" in part else part
        properties = {**merged.get("properties", {}), **given.get("properties", {})}
        required = [*merged.get("required", []), *given.get("required", [])]
        merged = {**merged, **given}
        if properties:
            merged |= {"properties": properties, "required": required}
    return merged


def _string(schema: dict[str, Any]) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    text = "text".ljust(schema.get("minLength", 0), "x")
    return text[: schema.get("maxLength", len(text))]


def _number(schema: dict[str, Any], *, whole: bool) -> int | float:
    """Zero, or the value nearest to it within the bounds."""
    step = schema.get("multipleOf", 1)
    low = schema.get("minimum", -math.inf)
    above = schema.get("exclusiveMinimum", -math.inf)
    high = schema.get("maximum", math.inf)
    below = schema.get("exclusiveMaximum", math.inf)
    value = min(max(0, low, above + step), high, below - step)
    if value < low or value <= above:  # no whole step fits between the bounds
        value = (max(low, above) + min(high, below)) / 2
    elif "multipleOf" in schema:
        value = math.ceil(value / step) * step
    return math.ceil(value) if whole else float(value)
