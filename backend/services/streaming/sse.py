"""Encodes events as server-sent events (WHATWG HTML, section 9.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

from backend.core.events import Event, encode_data

RETRY = b"retry: 2000\n"
"""Asks the client to reconnect 2 s after a lost connection. The line precedes the first event's own fields."""

RETRY_AFTER_END = b"retry: 3600000\n"
"""Precedes the last `end`: an `EventSource` that nobody closes would otherwise reconnect every 2 s."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An event of the log, encoded once for all clients that receive it."""

    seq: int
    type: str
    data: bytes
    state: str | None = None
    """The run's state, if the event reports one."""


def encode(event: Event) -> Frame:
    """Encode an event of the log."""
    state = event.payload.get("state") if event.type in ("workflow_update", "end") else None
    return Frame(event.seq, event.type, encode_fields(event.type, event.payload, seq=event.seq), state)


def encode_fields(event_type: str, payload: object, *, seq: int | None = None) -> bytes:
    """Encode one event; without `seq` it has no `id`."""
    head = f"id: {seq}\n" if seq is not None else ""
    return b"%sevent: %s\ndata: %s\n\n" % (head.encode(), event_type.encode(), encode_data(payload))


def join(frames: Sequence[Frame], *, last: bool = False) -> bytes:
    """Concatenate frames into one chunk; with `last` it is the stream's last chunk and ends with `end`."""
    parts = [frame.data for frame in frames]
    if last:
        parts.insert(-1, RETRY_AFTER_END)
    return b"".join(parts)
