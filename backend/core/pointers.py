"""Places in JSON documents, as RFC 6901 writes them."""

import re


def pointer(*path: str | int) -> str:
    """The JSON pointer of keys and positions."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def field_path(field: str) -> list[str]:
    """The keys and positions of a field as arguments' errors name it: `agents[0].depends_on`."""
    return re.findall(r"[^.\[\]]+", field)
