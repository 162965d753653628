"""Keeps LangGraph's stream of messages from walking through texts.

LangGraph looks for messages in every sequence that a node returns, and to it a text is a sequence of characters: it
asks of each whether it is a message. A text of five megabytes costs seconds of the event loop for each node, in which
no other agent of the process goes on.
"""

from functools import cache, wraps
from typing import Any
from uuid import UUID

from langgraph.pregel import _messages
from langgraph.pregel._messages import StreamMessagesHandler

_TEXTS = (str, bytes, bytearray, memoryview)


@cache
def skip_texts() -> None:
    """Take texts from what LangGraph looks through. Nothing is streamed otherwise: there is no message in a text."""
    state_values, on_chain_end = _messages._state_values, StreamMessagesHandler.on_chain_end

    @wraps(state_values)
    def without_texts(state: Any) -> list[Any]:
        return [value for value in state_values(state) if not isinstance(value, _TEXTS)]

    @wraps(on_chain_end)
    def unless_text(self: StreamMessagesHandler, response: Any, *, run_id: UUID, **more: Any) -> None:
        on_chain_end(self, None if isinstance(response, _TEXTS) else response, run_id=run_id, **more)

    _messages._state_values = without_texts  # type: ignore[assignment]  # LangGraph offers no seam
    StreamMessagesHandler.on_chain_end = unless_text  # type: ignore[method-assign]  # the same
