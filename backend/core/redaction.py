"""Removes secrets and image bytes from everything that is stored, streamed or logged."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w=.+-]+)*);base64,([A-Za-z0-9+/=_\-\s]{64,})")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_\-\r\n])[A-Za-z0-9+/_\-\r\n]{400,}+={0,2}")
_KINDS = tuple(map(re.compile, ("[0-9]", "[a-z]", "[A-Z]")))
_SECRETS = re.compile(
    r"(?ix)"
    r"(?:\b(?:sk|pk|rk|xox[abp]|ghp|gho|glpat)[-_][A-Za-z0-9_\-]{8,})"  # vendors' key prefixes
    r"|(?:\bbearer\s+[A-Za-z0-9._~+/\-]{8,}=*)"
    r"|(?:\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*)"  # a JWT
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"  # credentials in a URL
)
_SECRET_KEYS = re.compile(r"(?i)(api[_-]?key|secret|password|passwd|token|authorization|credential)s?$")
_COUNTS = re.compile(
    r"(?i)(?:(input|output|total|max|cached|reasoning|prompt|completion)_?tokens?|(limit|remaining|reset)-tokens)$"
)

REDACTED = "[redacted]"

_PREFIXES = ("sk", "pk", "rk", "xoxa", "xoxb", "xoxp", "ghp", "gho", "glpat")
_MARKS = ("bearer", "eyj", "://", *(prefix + joint for prefix in _PREFIXES for joint in "-_"))
"""Every text that `_SECRETS` matches contains one of these; searching for them is twenty times as fast."""

_SHORTEST = 3
"""The length of the shortest text that a pattern matches: `a:b` before an `@` in a URL."""

_WINDOW = 200
"""Half the minimum length of a match of `_BASE64`, so that each match contains one whole window of the text."""


def redact_text(text: str, *, limit: int | None = None) -> str:
    """`text` without secrets and embedded images, truncated to `limit` characters."""
    # Most texts are short names and states, and most others contain no image.
    if len(text) >= _SHORTEST:
        if ";base64," in text:
            text = _DATA_URL.sub(_describe, text)
        # Model integrations also accept images and files as bare base64.
        if len(text) >= 2 * _WINDOW and _has_long_word(text):
            text = _BASE64.sub(_describe_bare, text)
        lowered = text.lower()
        if any(mark in lowered for mark in _MARKS):
            text = _SECRETS.sub(REDACTED, text)
    if limit is not None and len(text) > limit:
        return f"{text[:limit]}… ({len(text)} characters)"
    return text


def redact(value: Any, *, limit: int | None = None) -> Any:
    """A JSON-compatible copy of `value` without secrets and embedded images, strings truncated to `limit`
    characters."""
    if isinstance(value, str):
        return redact_text(value, limit=limit)
    if isinstance(value, bytes):
        return f"[{len(value)} bytes]"
    if isinstance(value, dict):
        return {
            str(key): REDACTED if item is not None and _is_secret_key(key) else redact(item, limit=limit)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item, limit=limit) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    if hasattr(value, "model_dump"):  # a message or another pydantic model
        return redact(value.model_dump(), limit=limit)
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None  # JSON has no NaN
    return redact_text(str(value), limit=limit)


def find_secret(value: Any) -> list[str | int] | None:
    """The keys and indexes of the first text in a JSON value that would be redacted; None if there is none."""
    if isinstance(value, str):
        return [] if redact_text(value) != value else None
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and _is_secret_key(key) and item:
                return [key]
        items.extend(value.items())
    elif isinstance(value, list):
        items.extend(enumerate(value))
    for key, item in items:
        if (found := find_secret(item)) is not None:
            return [key, *found]
    return None


def _is_secret_key(key: Any) -> bool:
    return bool(_SECRET_KEYS.search(str(key)) and not _COUNTS.search(str(key)))


def hide(value: Any, keys: Sequence[str]) -> Any:
    """A copy of a JSON value without these API keys: a provider may repeat the key that it rejects."""
    if isinstance(value, str):
        for key in keys:
            value = value.replace(key, REDACTED)
        return value
    if isinstance(value, Mapping):
        return {name: hide(item, keys) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [hide(item, keys) for item in value]
    return value


def _describe(match: re.Match[str]) -> str:
    return f"data:{match.group(1) or ''};base64,[{_described(match.group(3))}]"


def _has_long_word(text: str) -> bool:
    """Whether `_BASE64` can match, at a hundredth of the cost of searching."""
    return any(" " not in text[start : start + _WINDOW] for start in range(0, len(text) - _WINDOW + 1, _WINDOW))


def _describe_bare(match: re.Match[str]) -> str:
    found = match.group()
    # Ids, rulers and text in languages without spaces don't contain digits, lower and upper case letters.
    return f"[{_described(found)}]" if all(kind.search(found, 0, _WINDOW) for kind in _KINDS) else found


def _described(encoded: str) -> str:
    return f"{len(encoded) * 3 // 4} bytes, {sha256(encoded.encode()).hexdigest()[:12]}"
