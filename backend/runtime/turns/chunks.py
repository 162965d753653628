"""The frames of LangGraph's streams by mode: what `runs/stream` sends."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, BaseMessageChunk
from langgraph.types import Interrupt

from backend.core.jsonable import dumps
from backend.core.turns import Frame

PARTIAL_SECONDS = 0.05
"""The mode `messages` sends the whole of a message each time that it has grown: no more often than this, because a long
one would otherwise be written thousands of times."""


class ChunkFrames:
    """Turns the chunks of one graph's stream into frames of the modes that a client asked for."""

    def __init__(self, modes: Sequence[str], *, subgraphs: bool) -> None:
        self._modes = frozenset(modes)
        self._subgraphs = subgraphs
        self._whole: dict[str, BaseMessage] = {}
        self._unsent: dict[str, tuple[str, ...]] = {}  # the namespaces of messages that have grown since
        self._next = 0.0

    def graph_modes(self) -> list[str]:
        """The modes in which the graph has to stream."""
        return ["messages" if mode == "messages-tuple" else mode for mode in self._modes if mode != "events"]

    def of(self, namespace: tuple[str, ...], mode: str, chunk: Any) -> Iterator[Frame]:
        """The frames of a chunk; none if nobody asked for it."""
        if mode != "messages":  # what a node has said comes before what it has done
            yield from [self._partial(key, place) for key, place in self._unsent.items()]
            self._unsent.clear()
        if namespace and not self._subgraphs:
            return
        if mode == "messages":
            yield from self._messages(namespace, *chunk)
        elif mode in self._modes:
            yield Frame(mode, namespace, dumps(plain(chunk)))

    def _messages(self, namespace: tuple[str, ...], message: Any, metadata: Mapping[str, Any]) -> Iterator[Frame]:
        if "messages-tuple" in self._modes:
            yield Frame("messages", namespace, dumps([message, dict(metadata)]))
        if "messages" in self._modes and isinstance(message, BaseMessage) and message.id is not None:
            known = self._whole.get(message.id)
            if known is None:
                yield Frame("messages/metadata", namespace, dumps({message.id: {"metadata": dict(metadata)}}))
            is_chunk = isinstance(message, BaseMessageChunk)
            whole = known + message if isinstance(known, BaseMessageChunk) and is_chunk else message
            self._whole[message.id] = whole
            self._unsent.pop(message.id, None)
            if not is_chunk or getattr(message, "chunk_position", None) == "last":
                yield Frame("messages/complete", namespace, dumps([whole]))
            elif time.monotonic() >= self._next:
                self._next = time.monotonic() + PARTIAL_SECONDS
                yield self._partial(message.id, namespace)
            else:
                self._unsent[message.id] = namespace

    def _partial(self, message_id: str, namespace: tuple[str, ...]) -> Frame:
        return Frame("messages/partial", namespace, dumps([self._whole[message_id]]))


def plain(chunk: Any) -> Any:
    """A chunk with its interrupts as clients know them."""
    if isinstance(chunk, Interrupt):
        return interrupt_json(chunk)
    if isinstance(chunk, dict):
        return {key: plain(part) for key, part in chunk.items()}
    if isinstance(chunk, tuple | list) and any(isinstance(part, Interrupt | dict) for part in chunk):
        return [plain(part) for part in chunk]
    return chunk


def interrupt_json(interrupt: Interrupt) -> dict[str, Any]:
    """An interrupt as clients know it."""
    schema = getattr(interrupt, "response_schema", None)
    found = {"value": interrupt.value, "id": interrupt.id}
    return found if schema is None else {**found, "response_schema": schema}
