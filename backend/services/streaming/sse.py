"""Events as they go over the wire."""

from collections.abc import Iterable
from dataclasses import dataclass

from backend.core.events import Event
from backend.core.jsonable import dumps

# No line breaks to the standard, but to Python's `splitlines`, with which many clients read.
_LINE_BREAKS_ELSEWHERE = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}


@dataclass(frozen=True, slots=True)
class Frame:
    """An event encoded once for all who get it."""

    seq: int
    type: str
    data: bytes
    state: str | None = None
    """The run's state, of an event that tells it."""


def encode(event: Event) -> Frame:
    """The event as it goes over the wire."""
    state = event.payload.get("state") if event.type in ("workflow_update", "end") else None
    return Frame(event.seq, event.type, encode_frame(event.type, event.payload, seq=event.seq), state)


def encode_frame(event_type: str, payload: object, *, seq: int | None = None) -> bytes:
    """One server-sent event (WHATWG HTML, section 9.2.5). JSON text has no line break, so `data` is one line."""
    head = f"id: {seq}\n" if seq is not None else ""
    data = dumps(payload).translate(_LINE_BREAKS_ELSEWHERE)
    return f"{head}event: {event_type}\ndata: {data}\n\n".encode()


def joined(frames: Iterable[Frame]) -> bytes:
    """Several events in one piece."""
    return b"".join(frame.data for frame in frames)
