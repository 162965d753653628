"""The parameters of a graph's DAG: what a graph takes, as Airflow and our form ask for it.

LangGraph derives the schema of a graph's input from the type of its state, all of whose fields it may be given and none
of which it needs. So each parameter may be left out, which for Airflow is null.
"""

from collections.abc import Iterable, Mapping
from typing import Any

DEPTH = 6
"""Levels of a schema that are kept; what is deeper may be anything."""

MESSAGES = {
    "type": ["null", "array", "string"],
    "items": {"type": ["object", "string"]},
    "description": 'A text, or a list of messages such as {"role": "user", "content": "…"}',
}
"""LangChain's own schema of messages has 20 KB and refuses what LangChain accepts."""


def parameters(schema: Mapping[str, Any] | None, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each field of an input, the schema of its parameter, with the `default` that is `given` or its own."""
    fields = (schema or {}).get("properties") or {}
    names = [*fields, *(name for name in given if name not in fields)]
    return {name: _parameter(name, fields.get(name) or {}, schema or {}, given) for name in names}


def context_parameter(schema: Mapping[str, Any] | None, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema of one parameter for the whole context of a graph; None for a graph without one."""
    fields = parameters(schema, given)
    if not fields:
        return None
    defaults = {name: field.pop("default") for name, field in fields.items()}
    known = {name: value for name, value in defaults.items() if value is not None}
    return {
        "type": ["null", "object"],
        "title": "Context",
        "description": "The graph's runtime context",
        "properties": fields,
        "default": known or None,
    }


def name_of_context(fields: Iterable[str]) -> str:
    """The name of the parameter for the context, which no field of the input has."""
    return "context" if "context" not in fields else "graph_context"


def _parameter(
    name: str, field: Mapping[str, Any], schema: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    found: dict[str, Any] = dict(MESSAGES) if _has_messages(field) else _nullable(_plain(field, schema, DEPTH))
    found.setdefault("title", name.replace("_", " ").capitalize())
    found["default"] = given[name] if name in given else found.get("default")
    return found


def _has_messages(field: Mapping[str, Any]) -> bool:
    return "#/$defs/HumanMessage" in str(field)


def _nullable(field: dict[str, Any]) -> dict[str, Any]:
    if any(key in field for key in ("allOf", "not", "if")):
        shown: dict[str, Any] = {key: field[key] for key in ("title", "description", "default") if key in field}
        return {**shown, "anyOf": [field, {"type": "null"}]}
    kinds = field.get("type")
    if isinstance(kinds, str):
        field["type"] = ["null", kinds]
    elif isinstance(kinds, list) and "null" not in kinds:
        field["type"] = ["null", *kinds]
    if isinstance(field.get("enum"), list):
        field["enum"] = [*field["enum"], *([] if None in field["enum"] else [None])]
    if "const" in field:
        field["enum"] = [field.pop("const"), None]
    for choice in ("anyOf", "oneOf"):
        if isinstance(field.get(choice), list) and {"type": "null"} not in field[choice]:
            field[choice] = [*field[choice], {"type": "null"}]
    return field


def _plain(value: Any, root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """A schema without references, which Airflow's parameters can't have: each is checked alone."""
    if not isinstance(value, Mapping) or depth == 0:
        return {}
    if isinstance(reference := value.get("$ref"), str):
        target = (root.get("$defs") or {}).get(reference.removeprefix("#/$defs/"))
        own = {key: one for key, one in value.items() if key != "$ref"}
        return {**_plain(target, root, depth - 1), **own}
    found: dict[str, Any] = {}
    for key, one in value.items():
        if key in ("properties", "patternProperties") and isinstance(one, Mapping):
            found[key] = {name: _plain(inner, root, depth - 1) for name, inner in one.items()}
        elif key in ("items", "additionalProperties") and isinstance(one, Mapping):
            found[key] = _plain(one, root, depth - 1)
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(one, list):
            found[key] = [_plain(inner, root, depth - 1) for inner in one]
        elif key not in ("$defs", "discriminator"):
            found[key] = one
    return found
