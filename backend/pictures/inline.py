"""Pictures that stand in JSON as `data:` URLs, and references to uploads that stand for them."""

import base64
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from backend.core.jsonable import Path

SCHEME = "upload://"

LARGE = 2_000

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
    return {text for _, text in long_texts(value) if text in references}


def long_texts(value: Any) -> Iterator[tuple[Path, str]]:
    """The texts in a JSON value that are long enough to name a picture, and where they stand."""
    pending: list[tuple[Path, Any]] = [((), value)]
    while pending:
        path, part = pending.pop()
        if isinstance(part, Mapping):
            pending.extend(((*path, key), inner) for key, inner in part.items() if not is_plain(inner))
        elif isinstance(part, list):
            pending.extend(((*path, index), inner) for index, inner in enumerate(part) if not is_plain(inner))
        elif isinstance(part, str):
            yield path, part


def data_urls(value: Any) -> list[str]:
    """The pictures in a JSON value that stand there as `data:` URLs of more than `LARGE` characters."""
    return [text for _, text in long_texts(value) if len(text) > LARGE and text[:11].lower() == "data:image/"]


def data_url(media_type: str, content: bytes) -> str:
    """A picture as a `data:` URL."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def is_plain(value: Any) -> bool:
    """Whether a value neither names a picture nor contains one; an input may have a million of these."""
    if isinstance(value, str):
        return len(value) < SHORTEST
    return not isinstance(value, list | dict)
