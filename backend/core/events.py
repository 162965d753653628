"""The events of an execution, as they are stored in the log and streamed to clients."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from backend.core.jsonable import dumps

EventType = Literal[
    "workflow_update", "task_update", "agent_update", "token", "error", "question", "answer", "custom", "end"
]
"""The types of stored events. A stream adds `gap`, which is never stored."""

CHANNEL = "visual_ai_events"
"""The PostgreSQL channel that announces new events; a payload is `<execution id> <last seq>`."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that has no position in the log yet."""

    type: EventType
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """A stored event. Within an execution, `seq` counts from 1 without gaps."""

    execution_id: str
    seq: int
    type: EventType
    payload: dict[str, Any]


DATA_BYTES = 64_000
"""Bytes of an event's data. An event has at most 64 KB; a stream of 50 runs adds an `id` of up to 1.1 KB to it."""

# The SSE standard does not treat these as line breaks, but Python's `splitlines`, which many clients use, does.
_LINE_BREAKS_ELSEWHERE = {char: f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}


def encode_data(payload: object) -> bytes:
    """The JSON text of an event's data as it is streamed, on one line, at most `DATA_BYTES` long.

    Where the payload is longer, its longest fields are cut: texts end in `… (<n> characters)`, and other values become
    `{"truncated": true, "bytes", "excerpt"}`. Rows of agents and errors have them whole.
    """
    data = encode_value(payload)
    if len(data) <= DATA_BYTES or not isinstance(payload, Mapping):
        return data
    fields = dict(payload)
    for characters in (4_000, 400):
        for name in sorted(fields, key=lambda name: len(encode_value(fields[name])), reverse=True):
            fields[name] = _cut(fields[name], characters)
            data = encode_value(fields)
            if len(data) <= DATA_BYTES:
                return data
    return data


def encode_value(value: object) -> bytes:
    """The JSON text of a value as events contain it."""
    text = dumps(value)
    for char, escape in _LINE_BREAKS_ELSEWHERE.items():  # `str.translate` takes seconds for some megabytes
        text = text.replace(char, escape)
    return text.encode()


def _cut(value: Any, characters: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= characters else f"{value[:characters]}… ({len(value)} characters)"
    text = dumps(value)
    if len(text) <= characters:
        return value
    return {"truncated": True, "bytes": len(text.encode()), "excerpt": text[:characters]}
