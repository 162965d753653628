"""Messages of models as events of the newer protocol, for graphs whose LangGraph may not know it."""

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

Event = tuple[dict[str, Any], Mapping[str, Any]]


class MessageEvents:
    """Turns the chunks of one graph's messages into events, each with the metadata of its chunk. Only text is sent as
    it comes; whatever else a message has is among the values."""

    def __init__(self) -> None:
        self._open: dict[str, Mapping[str, Any]] = {}

    def of(self, message: Any, metadata: Mapping[str, Any]) -> Iterator[Event]:
        """The events of a chunk; none of what a node returned as a whole."""
        if not isinstance(message, AIMessageChunk):
            if isinstance(message, AIMessage) and message.id in self._open:
                yield from self._end(str(message.id))
            return
        name = message.id or str(metadata.get("langgraph_checkpoint_ns", ""))
        about = {**metadata, "run_id": name}
        if name not in self._open:
            for other in [*self._open]:
                if self._open[other].get("langgraph_checkpoint_ns") == metadata.get("langgraph_checkpoint_ns"):
                    yield from self._end(other)
            self._open[name] = about
            yield {"event": "message-start", "role": "ai", "id": name}, about
            yield {"event": "content-block-start", "index": 0, "content": {"type": "text", "text": ""}}, about
        if text := str(message.text):
            delta = {"type": "text-delta", "text": text}
            yield {"event": "content-block-delta", "index": 0, "delta": delta}, about
        if message.chunk_position == "last":
            yield from self._end(name)

    def _end(self, name: str) -> Iterator[Event]:
        about = self._open.pop(name)
        yield {"event": "content-block-finish", "index": 0}, about
        yield {"event": "message-finish"}, about
