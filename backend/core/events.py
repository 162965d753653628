"""The events of an execution, as they are stored in the log and streamed to clients."""

from dataclasses import dataclass
from typing import Any, Literal

EventType = Literal["workflow_update", "task_update", "agent_update", "token", "error", "end"]
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
