"""The ledger of tool calls: who runs one claims it first, so that nothing is repeated without anybody knowing."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One attempt at a call that a model asked for. `place` tells it from all others of its thread, also when its node
    runs again."""

    thread_id: str
    place: str
    attempt: int
    call_id: str
    agent: str
    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call returned, as a message's content, or what its error says."""

    content: Any
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Claimed:
    """`mine`: the attempt may be made now, and by nobody else. Otherwise it was begun before: it has an `outcome`, or
    it was cut off, and nobody knows what came of it."""

    mine: bool
    outcome: Outcome | None = None


class ToolLedger(Protocol):
    """Keeps a task's tool calls. All methods wait out a short outage; a longer one raises, and a retry helps."""

    async def claim(self, call: ToolCall) -> Claimed: ...

    async def finish(self, call: ToolCall, outcome: Outcome) -> None:
        """The call's outcome is known."""

    async def release(self, call: ToolCall) -> None:
        """The call has not begun after all."""


ledger_of_task: ContextVar[ToolLedger | None] = ContextVar("visual_ai_tool_ledger", default=None)
"""The ledger of the present task; None without a database or checkpoints, from which nothing could resume."""
