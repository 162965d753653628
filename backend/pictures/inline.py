"""Pictures that stand in JSON as `data:` URLs, and references to uploads that stand for them."""

import base64
from collections.abc import Collection, Mapping
from typing import Any

SCHEME = "upload://"

SHORTEST = 43
"""Characters of the shortest text that names a picture: an upload's scheme and id."""


def with_references(value: Any, references: Mapping[str, str]) -> Any:
    """A copy of a JSON value with other texts for some; parts without such a text are shared with the original."""
    if isinstance(value, str):
        return references.get(value, value)
    if isinstance(value, Mapping):
        parts = {key: part if is_plain(part) else with_references(part, references) for key, part in value.items()}
        return parts if any(parts[key] is not part for key, part in value.items()) else value
    if isinstance(value, list):
        items = [part if is_plain(part) else with_references(part, references) for part in value]
        return items if any(item is not part for item, part in zip(items, value, strict=True)) else value
    return value


def named(value: Any, references: Collection[str]) -> set[str]:
    """Those of the references that stand anywhere in a JSON value."""
    found: set[str] = set()
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, Mapping):
            pending.extend(inner for inner in part.values() if not is_plain(inner))
        elif isinstance(part, list):
            pending.extend(inner for inner in part if not is_plain(inner))
        elif isinstance(part, str) and part in references:
            found.add(part)
    return found


def data_url(media_type: str, content: bytes) -> str:
    """A picture as a `data:` URL."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def is_plain(value: Any) -> bool:
    """Whether a value neither names a picture nor contains one; an input may have a million of these."""
    if isinstance(value, str):
        return len(value) < SHORTEST
    return not isinstance(value, list | dict)
