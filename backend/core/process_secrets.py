"""The secrets in this process's environment, by their values: none may leave it in a text, whatever its shape."""

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

SHORTEST = 8
"""A shorter value is no secret that could be told from an ordinary word."""

_NAMES = re.compile(r"(KEY|SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIALS?)(_\d+)?$")


@lru_cache(maxsize=1)
def process_secrets() -> tuple[str, ...]:
    """The values of this process's variables that are named like secrets, and the passwords in addresses."""
    return secrets_in(os.environ)


def secrets_in(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The same for any environment, the longest first."""
    found: set[str] = set()
    for name, value in environment.items():
        if _NAMES.search(name.upper()):
            found.add(value)
        elif "://" in value and "@" in value:
            found |= _passwords(value)
    found |= {quote(value, safe="") for value in found if "%" not in value}
    return tuple(sorted((value for value in found if len(value) >= SHORTEST), key=len, reverse=True))


def _passwords(address: str) -> set[str]:
    try:
        password = urlsplit(address).password
    except ValueError:
        return set()
    return {password, unquote(password)} if password else set()
