"""Which events of a thread a client wants: channels, namespaces and how deep below them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from backend.core.problems import FieldError, Invalid
from backend.db.conversations.frames import StoredFrame

CHANNELS = frozenset({"values", "updates", "messages", "tools", "lifecycle", "input", "checkpoints", "tasks", "custom"})
_METHODS = CHANNELS - {"input"}


@dataclass(frozen=True, slots=True)
class Filter:
    """A subscription. Without `namespaces` it is to all of them, and without a `depth` to everything below."""

    channels: frozenset[str]
    namespaces: tuple[tuple[str, ...], ...] | None = None
    depth: int | None = None

    @classmethod
    def of(cls, channels: Sequence[str], namespaces: Sequence[Sequence[str]] | None, depth: int | None) -> "Filter":
        """The filter that a client describes. Raises `Invalid` naming an unknown channel."""
        for index, channel in enumerate(channels):
            if channel not in CHANNELS and not channel.startswith("custom:"):
                detail = f"is {channel!r}; it has to be one of {', '.join(sorted(CHANNELS))}, or custom:<name>"
                raise Invalid(f"/channels/{index}: {detail}", errors=[FieldError(f"/channels/{index}", detail)])
        wanted = None if namespaces is None else tuple(tuple(one) for one in namespaces)
        return cls(frozenset(channels), wanted or None, depth)

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out, as in the stream of a `RemoteGraph`, which ends with the run."""
        return self.channels >= CHANNELS and self.namespaces is None and self.depth is None

    def takes(self, frame: StoredFrame) -> bool:
        """Whether the client wants a frame."""
        channel = self._channel(frame)
        if channel is None:
            return False
        wanted = channel in self.channels or (channel.startswith("custom:") and "custom" in self.channels)
        return wanted and self._is_within(frame.namespace)

    def _channel(self, frame: StoredFrame) -> str | None:
        if frame.mode == "input.requested":
            return "input"
        if frame.mode != "custom":
            return frame.mode if frame.mode in _METHODS else None
        data = json.loads(frame.data)
        name = data.get("name") if isinstance(data, dict) else None
        return f"custom:{name}" if name else "custom"

    def _is_within(self, namespace: tuple[str, ...]) -> bool:
        if self.namespaces is None:
            return self.depth is None or len(namespace) <= self.depth
        return any(
            _begins_with(namespace, prefix) and (self.depth is None or len(namespace) - len(prefix) <= self.depth)
            for prefix in self.namespaces
        )


def _begins_with(namespace: tuple[str, ...], prefix: tuple[str, ...]) -> bool:
    """Whether a namespace is within another one, whose parts may leave out the ids of nodes' executions."""
    if len(prefix) > len(namespace):
        return False
    return all(
        part == wanted or (":" not in wanted and part.partition(":")[0] == wanted)
        for part, wanted in zip(namespace, prefix, strict=False)
    )
