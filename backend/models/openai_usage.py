"""Reads the usage that servers of OpenAI's protocol report, wherever in an answer they put it and whatever they write.

LangChain adds up every usage that it finds in a stream, and fails at one that isn't made of whole numbers. Here a
stream's usage becomes one, and what isn't a number becomes `UNREADABLE`. Whether numbers make sense is judged where
they are counted (`models/usage.py`), for all providers.
"""

from collections.abc import Mapping
from typing import Any, Final

UNREADABLE: Final = -1
"""Stands for a count that isn't a number. No count is negative, so it is refused where it would be counted."""

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")
_OTHER_NAMES = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
_OTHER_DETAILS = {"input_tokens_details": _DETAILS[0], "output_tokens_details": _DETAILS[1]}


def readable_usage(given: Any) -> dict[str, Any] | None:
    """A usage as LangChain can read it; None if nothing was reported."""
    if given is None or given == {}:
        return None
    if not isinstance(given, Mapping):
        return dict.fromkeys(_COUNTS[:2], UNREADABLE)
    usage = {**given}
    for names in (_OTHER_NAMES, _OTHER_DETAILS):
        for name, usual in names.items():
            if usage.get(usual) is None and usage.get(name) is not None:
                usage[usual] = usage[name]
    if all(usage.get(name) is None for name in _COUNTS[:2]):
        return None  # a total alone says neither what was used nor what it costs
    for name in _COUNTS:
        usage[name] = _count(usage.get(name))
    for name in _DETAILS:
        details = usage.get(name)
        usage[name] = {key: _count(value) for key, value in details.items()} if isinstance(details, Mapping) else None
    return usage


def _count(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and value.strip().isdecimal() and len(value) <= 20:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else UNREADABLE


class UsageInChunks:
    """Takes the usage out of a stream's chunks. Each number that was reported last counts."""

    def __init__(self) -> None:
        self._usage: dict[str, Any] = {}
        self._chunk: dict[str, Any] | None = None

    def take(self, chunk: dict[str, Any]) -> bool:
        """Take the usage out of a chunk. Returns whether something is left to pass on."""
        found = readable_usage(_usage_in(chunk))
        if found is None:
            return True
        self._usage |= {name: value for name, value in found.items() if value is not None}
        self._chunk = {**chunk, "choices": []}
        chunk["usage"] = None
        return bool(chunk.get("choices"))

    def last_chunk(self) -> dict[str, Any] | None:
        """A chunk with the whole usage, to be passed on last; None if the server reported no usage."""
        if self._chunk is None:
            return None
        usage = self._usage
        counts = [usage.get(name) for name in _COUNTS]
        if None not in counts and counts[2] < counts[0] + counts[1]:  # type: ignore[operator]  # of an earlier chunk
            usage = {name: value for name, value in usage.items() if name != "total_tokens"}
        return {**self._chunk, "usage": usage}


def _usage_in(chunk: Mapping[str, Any]) -> Any:
    """The usage of a chunk: its own, a choice's (Moonshot), or that of Groq's extension."""
    if (own := chunk.get("usage")) is not None:
        return own
    choices = chunk.get("choices")
    for place in (*(choices if isinstance(choices, list) else ()), chunk.get("x_groq")):
        if isinstance(place, Mapping) and isinstance(place.get("usage"), Mapping):
            return place["usage"]
    return None
