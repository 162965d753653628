"""The checkpointer of a project's graphs. The task keeps the checkpoints, and never sees what is in them.

Values are serialized here, at once, by the project's own LangGraph. Texts and numbers travel as they are, because
LangGraph keeps them in the checkpoint's row itself.
"""

import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)

from langgraph_flow_host.errors import NotKeptError
from langgraph_flow_host.link import Link
from langgraph_flow_host.wire import Serialized

_INLINE = (str, int, float, bool, type(None))
_LARGEST_INTEGER = 2**63 - 1


class TaskSaver(BaseCheckpointSaver[str]):
    """Asks the task at the other end of a channel to keep checkpoints, and to return them."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def get_next_version(self, current: Any, channel: None) -> str:
        """Versions as PostgreSQL's saver makes them, because that is where they are kept."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{random.random():016}"  # noqa: S311  # only tells versions apart

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = await self._link.ask("get_tuple", _place(config))
        return None if found is None else self._tuple(found)

    async def alist(self, config: RunnableConfig | None, **more: Any) -> AsyncIterator[CheckpointTuple]:
        for found in await self._link.ask("list", _sought(config, **more)):
            yield self._tuple(found)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        await self._link.ask("put", self._put(config, checkpoint, metadata, new_versions))
        return _after(config, checkpoint)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self._link.ask("put_writes", self._writes(config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        await self._link.ask("delete_thread", thread_id)

    # The same for nodes that are synchronous.

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = self._link.wait("get_tuple", _place(config))
        return None if found is None else self._tuple(found)

    def list(self, config: RunnableConfig | None, **more: Any) -> Iterator[CheckpointTuple]:
        for found in self._link.wait("list", _sought(config, **more)):
            yield self._tuple(found)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        self._link.wait("put", self._put(config, checkpoint, metadata, new_versions))
        return _after(config, checkpoint)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._link.wait("put_writes", self._writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        self._link.wait("delete_thread", thread_id)

    def _put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, versions: ChannelVersions
    ) -> dict[str, Any]:
        source = str(metadata.get("source", "loop"))
        values = {name: self._kept(name, value, source) for name, value in checkpoint["channel_values"].items()}
        return {
            "config": _described(config),
            "checkpoint": {**checkpoint, "channel_values": values},
            "metadata": dict(metadata),
            "versions": dict(versions),
        }

    def _writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task: str, path: str
    ) -> dict[str, Any]:
        kept = [
            (name, type(value).__qualname__ if isinstance(value, BaseException) else self._written(name, value, task))
            for name, value in writes
        ]
        return {"config": _place(config), "writes": kept, "task_id": task, "task_path": path}

    def _kept(self, channel: str, value: Any, source: str) -> Any:
        return value if type(value) in _INLINE and _fits(value) else self._written(channel, value, source)

    def _written(self, channel: str, value: Any, source: str) -> Serialized:
        try:
            return Serialized(*self.serde.dumps_typed(value))
        except (TypeError, ValueError, RecursionError) as error:
            fault = f"can't be kept: {error}; keep plain data in the state"
            raise NotKeptError([source, channel], fault) from None

    def _tuple(self, found: Any) -> CheckpointTuple:
        checkpoint = found["checkpoint"]
        checkpoint["channel_values"] = {name: self._read(value) for name, value in checkpoint["channel_values"].items()}
        writes: Any = [(task, channel, self._read(value)) for task, channel, value in found["writes"]]
        return CheckpointTuple(found["config"], checkpoint, found["metadata"], found["parent"], writes)

    def _read(self, value: Any) -> Any:
        return self.serde.loads_typed((value.kind, value.data)) if isinstance(value, Serialized) else value


def _fits(value: Any) -> bool:
    """Whether msgpack takes a text or number as it is."""
    if isinstance(value, str):
        return value.isascii() or value.encode("utf-8", "replace").decode() == value
    return not isinstance(value, int) or -_LARGEST_INTEGER - 1 <= value <= _LARGEST_INTEGER


def _place(config: RunnableConfig) -> RunnableConfig:
    own = config.get("configurable") or {}
    names = ("thread_id", "checkpoint_ns", "checkpoint_id")
    return {"configurable": {"checkpoint_ns": "", **{name: own[name] for name in names if own.get(name) is not None}}}


def _described(config: RunnableConfig) -> RunnableConfig:
    """The place, with what LangGraph keeps of a config beside a checkpoint."""
    own = config.get("configurable") or {}
    plain = {
        name: value
        for name, value in own.items()
        if isinstance(value, _INLINE) and value is not None and not name.startswith("__")
    }
    return {"configurable": plain, "metadata": plain_metadata(config.get("metadata") or {})}


def plain_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint's metadata that the task knows it by: what has a form in each language."""
    return {name: value for name, value in metadata.items() if isinstance(value, _INLINE)}


def _sought(
    config: RunnableConfig | None,
    *,
    filter: dict[str, Any] | None = None,
    before: RunnableConfig | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    return {
        "config": _place(config) if config else None,
        "filter": filter,
        "before": _place(before) if before else None,
        "limit": limit,
    }


def _after(config: RunnableConfig, checkpoint: Checkpoint) -> RunnableConfig:
    own = config.get("configurable") or {}
    place = {"thread_id": own.get("thread_id"), "checkpoint_ns": own.get("checkpoint_ns", "")}
    return {"configurable": {**place, "checkpoint_id": checkpoint["id"]}}
