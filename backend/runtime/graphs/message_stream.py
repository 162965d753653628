"""Keeps LangGraph's stream of messages from walking through what contains none.

LangGraph looks for messages in every sequence that a node gets or returns, and to it a text is a sequence of
characters: it asks of each whether it is a message. A text of five megabytes costs seconds of the event loop for each
node, in which no other agent of the process goes on, and a list of as much data a tenth of a second.
"""

from functools import cache, wraps
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage
from langgraph.pregel import _messages
from langgraph.pregel._messages import StreamMessagesHandler
from langgraph.types import Command

_TEXTS = (str, bytes, bytearray, memoryview)


def _may_hold_messages(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(issubclass(kind, BaseMessage | Command) for kind in set(map(type, value)))
    return not isinstance(value, _TEXTS)


@cache
def skip_texts() -> None:
    """Take texts and lists of data from what LangGraph looks through. What is streamed stays the same."""
    state_values, on_chain_end = _messages._state_values, StreamMessagesHandler.on_chain_end

    @wraps(state_values)
    def without_data(state: Any) -> list[Any]:
        return [value for value in state_values(state) if _may_hold_messages(value)]

    @wraps(on_chain_end)
    def unless_data(self: StreamMessagesHandler, response: Any, *, run_id: UUID, **more: Any) -> None:
        on_chain_end(self, response if _may_hold_messages(response) else None, run_id=run_id, **more)

    _messages._state_values = without_data  # type: ignore[assignment]  # LangGraph offers no seam
    StreamMessagesHandler.on_chain_end = unless_data  # type: ignore[method-assign]  # the same
