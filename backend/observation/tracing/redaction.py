"""Redacts inputs, outputs and errors before they are sent to Langfuse: no secrets, no pictures, limited size."""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from backend.core.jsonable import dumps, storable
from backend.core.redaction import hide, redact, redact_text

STRING_LIMIT = 20_000
TEXT_LIMIT = 200_000
"""The longest string, and the longest input or output, in characters."""

_ROLES = {"human": "user", "ai": "assistant"}


class Redacted(str):
    """Text that may be sent."""

    __slots__ = ()


class Known(dict[str, Any]):
    """Metadata of our own that may be sent: ids, numbers, addresses."""


class TraceContent:
    """Redacts content. With `enabled` false, inputs, outputs and error messages aren't sent at all."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._hidden: set[str] = set()

    def keep_back(self, keys: Sequence[str]) -> None:
        """Add keys that must not appear anywhere."""
        self._hidden.update(keys)

    def text(self, value: Any) -> Redacted | None:
        """An input or output as redacted text or JSON."""
        if value is None or not self._enabled:
            return None
        clean = redact(value, limit=STRING_LIMIT)
        text = self._without_keys(storable(clean) if isinstance(clean, str) else dumps(clean))
        if len(text) > TEXT_LIMIT:
            text = f"{text[:TEXT_LIMIT]}… ({len(text)} characters)"
        # What is left of a data URI must not look like one, because the SDK would upload it as a file.
        return Redacted(text.replace(";base64,[", ";["))

    def message(self, category: str, kind: str, words: str) -> str:
        """The message of an error; `kind` is its class."""
        kind = kind.rpartition(".")[2]
        if not self._enabled:
            return f"{category}: {kind}"
        return self._without_keys(f"{category}: {kind}: {storable(redact_text(words, limit=2_000))}")

    def mask(self, *, data: Any, **_: Any) -> Any:
        """Langfuse's hook for everything that its SDK receives, also from users' own code."""
        if isinstance(data, Redacted | Known):
            return data
        if not isinstance(data, Mapping):
            return self.text(data)
        return hide(redact(dict(data), limit=STRING_LIMIT), [*self._hidden]) if self._enabled else None

    def _without_keys(self, text: str) -> str:
        return str(hide(text, [*self._hidden]))


def message_json(message: BaseMessage) -> dict[str, Any]:
    """A message in the form that Langfuse displays as a part of a conversation."""
    found: dict[str, Any] = {"role": _ROLES.get(message.type, message.type), "content": message.content}
    if isinstance(message, AIMessage) and message.tool_calls:
        found["tool_calls"] = [{"name": call["name"], "args": call["args"]} for call in message.tool_calls]
    if isinstance(message, ToolMessage):
        found["name"] = message.name
    return found
