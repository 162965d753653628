"""The events of LangGraph's newer streaming protocol, shaped by LangGraph itself.

`Pregel.astream_events(version="v3")` shapes them, but only hands out what remains after it has taken some of them for
its own, such as the starts and ends of nodes, which are recorded. So its parts are put together here: a graph's own
transformers, LangGraph's for the lifecycle of subgraphs, and the mux that leads each part of the stream through them.
Their names are private; `pyproject.toml` limits LangGraph's version.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph._internal._config import patch_configurable
from langgraph._internal._constants import CONFIG_KEY_STREAM_MESSAGES_V2
from langgraph.stream import LifecycleTransformer, ProtocolEvent, StreamChannel
from langgraph.stream._convert import convert_to_protocol_event
from langgraph.stream._mux import StreamMux

from backend.core.jsonable import dumps
from backend.core.turns import Frame

MODES = ("values", "updates", "messages", "tasks", "custom", "checkpoints", "tools")
"""The stream modes that the protocol's channels are made of."""


def with_message_events(config: RunnableConfig) -> RunnableConfig:
    """The config with which models' answers are streamed as the protocol's events instead of chunks."""
    return patch_configurable(config, {CONFIG_KEY_STREAM_MESSAGES_V2: True})


def token_of(payload: Any) -> str:
    """The text that a part of the mode `messages` adds to a model's answer."""
    if isinstance(payload, BaseMessage):
        return str(payload.text) if isinstance(payload, AIMessage) else ""
    delta = payload.get("delta") if isinstance(payload, Mapping) else None
    return str(delta.get("text", "")) if isinstance(delta, Mapping) and delta.get("type") == "text-delta" else ""


class ProtocolEvents:
    """Turns the parts of one graph's stream into frames."""

    def __init__(self, graph: Any) -> None:
        """A `graph` in another process has no transformers here."""
        self._log = _Log()
        factories = [LifecycleTransformer, *getattr(graph, "stream_transformers", ())]
        self._mux = StreamMux(factories=factories, is_async=True)
        self._mux._events = self._log
        self._messages: dict[str, str] = {}

    async def push(self, part: Any) -> list[Frame]:
        """The frames that a part of the stream, of version `v2`, makes."""
        event = convert_to_protocol_event(part)
        await self._mux.apush(event)
        made = [frame for one in self._log.taken() if (frame := self._frame(one)) is not None]
        if event["method"] == "tasks":  # the transformer takes them out
            made.append(Frame("tasks", tuple(event["params"]["namespace"]), dumps(event["params"]["data"])))
        return made

    async def end(self, error: Exception | None) -> list[Frame]:
        """The frames that follow the last part."""
        if error is None:
            await self._mux.aclose()
        else:
            await self._mux.afail(error)
        return [frame for one in self._log.taken() if (frame := self._frame(one)) is not None]

    def _frame(self, event: ProtocolEvent) -> Frame | None:
        method, params = event["method"], event["params"]
        data, namespace = params["data"], tuple(params["namespace"])
        if method == "messages":
            payload, metadata = data
            data = self._message(payload, metadata)
            if data is None:
                return None
        elif method == "lifecycle":
            namespace = tuple(data["namespace"])
        elif method == "values" and params.get("interrupts"):
            data = {**data, "__interrupt__": params["interrupts"]} if isinstance(data, dict) else data
        return Frame(method, namespace, dumps(data))

    def _message(self, payload: Any, metadata: Mapping[str, Any]) -> dict[str, Any] | None:
        """An event of a message, which names it: clients tell apart by that what is streamed at the same time.

        A message that a node returns as a whole is no event; it is among the values.
        """
        if not isinstance(payload, Mapping) or "event" not in payload:
            return None
        call = str(metadata.get("run_id", ""))
        if payload["event"] == "message-start":
            name = payload.get("id") or payload.get("message_id") or call
            self._messages[call] = str(name)
            return {**payload, "id": name, "message_id": name, "metadata": dict(metadata)}
        found = {**payload, "message_id": self._messages.get(call, call)}
        if payload["event"] == "message-finish":
            self._messages.pop(call, None)
        return found


class _Log(StreamChannel[ProtocolEvent]):
    """What the mux appends to: everything that passes the transformers, and what they add."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[ProtocolEvent] = []

    def push(self, item: ProtocolEvent) -> None:
        self._kept.append(item)

    def taken(self) -> Iterator[ProtocolEvent]:
        """What was appended since the last call."""
        kept, self._kept = self._kept, []
        return iter(kept)
