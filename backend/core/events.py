"""The events of an execution's timeline, as they are stored and streamed."""

from dataclasses import dataclass
from typing import Any, Literal

EventType = Literal["workflow_update", "task_update", "agent_update", "token", "error", "end"]
"""What the log holds. A stream adds `gap`, which is never stored."""

CHANNEL = "visual_ai_events"
"""The Postgres notification channel; a payload is `<execution id> <last seq>`."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event before it has its place in the log."""

    type: EventType
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """An event in its place: `seq` counts from 1 without a hole within its execution."""

    execution_id: str
    seq: int
    type: EventType
    payload: dict[str, Any]
