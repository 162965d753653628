"""Removes secrets and image bytes from everything that is stored, streamed or logged."""

import math
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

from backend.core.jsonable import MAX_DEPTH, storable

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

_PART = 10
"""What each part of a truncated value counts besides its text, in characters."""
_LONGEST_KEY = 1_000
"""The longest key of a truncated value, in characters."""
_LONGEST_INTEGER = 4_096
"""The longest integer that is kept as one, in bits. Python refuses to write much longer ones."""

_PREFIXES = ("sk", "pk", "rk", "xoxa", "xoxb", "xoxp", "ghp", "gho", "glpat")
_MARKS = tuple(prefix + joint for prefix in _PREFIXES for joint in "-_")
"""Every text that `_SECRETS` matches contains one of these, or `bearer`, `eyj` or `://`; searching for them is twenty
times as fast."""

_LONGEST_SECRET = 8_192
"""How far beyond its limit a text is searched, in characters, so that no secret is cut in two and overlooked."""

_SHORTEST = 7
"""The length of the shortest text in which a pattern matches: `://a:b@`."""

_WINDOW = 200
"""Half the minimum length of a match of `_BASE64`, so that each match contains one whole window of the text."""


def redact_text(text: str, *, limit: int | None = None) -> str:
    """`text` without secrets and embedded images, truncated to `limit` characters.

    The cost is bounded by the limit, unless an embedded image begins before it, which is measured as a whole.
    """
    size = len(text)
    if limit is not None and size > limit + _LONGEST_SECRET and ";base64," not in text[: limit + _LONGEST_SECRET]:
        return f"{redact_text(text[: limit + _LONGEST_SECRET])[:limit]}… ({size} characters)"
    # Most texts are short names and states, and most others contain no image.
    if len(text) >= _SHORTEST:
        if ";base64," in text:
            text = _DATA_URL.sub(_describe, text)
        # Model integrations also accept images and files as bare base64.
        if len(text) >= 2 * _WINDOW and _has_long_word(text):
            text = _BASE64.sub(_describe_bare, text)
        if _has_mark(text):
            text = _SECRETS.sub(REDACTED, text)
    if limit is not None and len(text) > limit:
        return f"{text[:limit]}… ({len(text)} characters)"
    return text


def redact(value: Any, *, limit: int | None = None, total: int | None = None) -> Any:
    """A JSON-compatible copy of `value` without secrets and embedded images.

    With a `limit`, strings are truncated to that many characters, and all of it together to `total`, by default ten
    times as many; what was left out is counted in its place. Never raises: a value without a JSON form becomes its
    `str()`.
    """
    return _Redaction(limit, total).redact(value)


def redact_within(value: Any, size: int) -> tuple[Any, bool]:
    """What `redact` returns with a limit of `size` characters for all of it, and whether anything was left out."""
    redaction = _Redaction(size, size)
    return redaction.redact(value), redaction.cut


class _Redaction:
    """One call of `redact`."""

    __slots__ = ("_around", "_left", "_limit", "cut")

    def __init__(self, limit: int | None, total: int | None) -> None:
        self._limit = limit
        self._left = math.inf if limit is None else total or 10 * limit
        self._around: set[int] = set()
        self.cut = False
        """Whether anything was left out for its length."""

    def redact(self, value: Any) -> Any:
        self._left -= _PART
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value) if value.bit_length() <= _LONGEST_INTEGER else f"[integer of {value.bit_length()} bits]"
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else None  # JSON has no NaN
        if isinstance(value, bytes | bytearray):
            return f"[{len(value)} bytes]"
        if isinstance(value, dict):
            return self._inside(value, self._dict)
        if isinstance(value, list | tuple | set | frozenset | deque | range):
            return self._inside(value, self._list)
        return self._other(value)

    def _other(self, value: Any) -> Any:
        try:
            if hasattr(value, "model_dump"):  # a message or another pydantic model
                return self._inside(value, lambda model: self.redact(model.model_dump(warnings=False)))
            if is_dataclass(value) and not isinstance(value, type):
                parts = {part.name: getattr(value, part.name) for part in fields(value)}
                return self._inside(value, lambda _: self.redact(parts))
            if hasattr(value, "dtype") and hasattr(value, "tolist"):  # NumPy's
                if getattr(value, "ndim", 0):
                    return self._inside(value, self._list)
                plain = value.tolist()
                return self.redact(plain if isinstance(plain, str | int | float) else str(value))
            return self._text(str(value))
        except Exception:  # whatever the methods of a user's class raise
            return f"[{type(value).__qualname__}]"

    def _text(self, text: str) -> str:
        if self._limit is None:
            return redact_text(text)
        limit = max(0, min(self._limit, int(self._left)))
        text = redact_text(text, limit=limit)
        self.cut = self.cut or len(text) > limit
        self._left -= len(text)
        return text

    def _list(self, values: Any) -> list[Any]:
        found: list[Any] = []
        for item in values:
            if self._left <= 0:
                self.cut = True
                found.append(f"… ({len(values) - len(found)} more)")
                break
            found.append(self.redact(item))
        return found

    def _dict(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in values.items():
            if self._left <= 0:
                self.cut = True
                found["…"] = f"({len(values) - len(found)} more)"
                break
            name = key if type(key) is str and key.isascii() else storable(str(key))
            secret = item is not None and _is_secret_key(name)
            if self._limit is not None:
                self._left -= min(len(name), _LONGEST_KEY)
                if len(name) > _LONGEST_KEY:
                    self.cut = True
                    name = f"{name[:_LONGEST_KEY]}… ({len(name)} characters)"
            found[name] = REDACTED if secret else self.redact(item)
        return found

    def _inside(self, value: Any, redact_parts: Callable[[Any], Any]) -> Any:
        if id(value) in self._around:
            return "… (contains itself)"
        if len(self._around) >= MAX_DEPTH:
            return "… (nested deeper)"
        self._around.add(id(value))
        found = redact_parts(value)
        self._around.discard(id(value))
        return found


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
    name = str(key)
    return _is_secret_name(name) if len(name) <= _LONGEST_KEY else _names_secret(name)


def _names_secret(name: str) -> bool:
    return bool(_SECRET_KEYS.search(name) and not _COUNTS.search(name))


# A list of many objects repeats their few keys.
_is_secret_name = lru_cache(maxsize=1024)(_names_secret)


def _has_mark(text: str) -> bool:
    lowered = text.lower()
    if "://" in lowered or "bearer" in lowered or "eyj" in lowered:
        return True
    return ("-" in lowered or "_" in lowered) and any(mark in lowered for mark in _MARKS)


_maskers: list[Callable[[str], str]] = []


def mask_with(mask: Callable[[str], str]) -> None:
    """Have `hide` remove in this process what `mask` removes, too: secrets that somebody else knows by their values."""
    if mask not in _maskers:
        _maskers.append(mask)


def hide(value: Any, keys: Sequence[str]) -> Any:
    """A copy of a JSON value without these secrets: a provider may repeat the key that it rejects."""
    if isinstance(value, str):
        for key in keys:
            value = value.replace(key, REDACTED)
        for mask in _maskers:
            value = mask(value)
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
