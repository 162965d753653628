"""What a project's process asks the task for: checkpoints, LangGraph's store, and leave for each model call.

All of it happens as it does for graphs of this process: checkpoints go through the task's fenced saver, and callbacks
to the handlers that record, limit and trace the agent.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.callbacks.manager import ahandle_event
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.store.base import (
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchItem,
    SearchOp,
)

from backend.checkpoints.batched_saver import BatchedSaver
from backend.checkpoints.store import Store
from backend.runtime.remote.errors import Tickets

_OPERATIONS: Mapping[str, Any] = {
    "GetOp": GetOp,
    "PutOp": PutOp,
    "SearchOp": SearchOp,
    "ListNamespacesOp": ListNamespacesOp,
}
_IGNORED = {
    "on_chain_start": "ignore_chain",
    "on_chat_model_start": "ignore_chat_model",
    "on_llm_start": "ignore_llm",
    "on_llm_end": "ignore_llm",
    "on_llm_error": "ignore_llm",
    "on_tool_start": "ignore_agent",
    "on_tool_end": "ignore_agent",
    "on_tool_error": "ignore_agent",
}
"""For each event, the attribute with which a handler says that it has no use for it."""


class TaskService:
    """Answers a project's process for one agent of the task."""

    def __init__(self, saver: BatchedSaver | None, store: Store | None, tickets: Tickets) -> None:
        """`saver` passes values on without reading them: see `BatchedSaver.passing`."""
        self._saver = saver
        self._store = store
        self._tickets = tickets

    async def answer(self, method: str, arguments: Any) -> Any:
        """Answer what isn't about a run. Raises what the process is to fail with."""
        if method == "store" and self._store is not None:
            return [_sent(found) for found in await _carried_out(self._store, arguments)]
        saver = self._saver
        if saver is None:
            raise ValueError(f"{method!r} is unknown here")
        if method == "put":
            return await saver.aput(
                arguments["config"], arguments["checkpoint"], arguments["metadata"], arguments["versions"]
            )
        if method == "put_writes":
            writes = [(channel, value) for channel, value in arguments["writes"]]
            return await saver.aput_writes(
                arguments["config"], writes, arguments["task_id"], arguments["task_path"] or ""
            )
        if method == "get_tuple":
            found = await saver.aget_tuple(arguments)
            return None if found is None else _checkpoint(found)
        if method == "list":
            more = {name: arguments[name] for name in ("filter", "before", "limit")}
            return [_checkpoint(one) async for one in saver.alist(arguments["config"], **more)]
        if method == "delete_thread":
            return await saver.adelete_thread(arguments)
        raise ValueError(f"{method!r} is unknown here")

    async def call(
        self, handlers: Sequence[BaseCallbackHandler], event: str, arguments: Sequence[Any], known: Mapping[str, Any]
    ) -> None:
        """Report an event to callback handlers, in LangChain's own way. Raises what one of them refuses it with."""
        more = dict(known)
        for name in ("run_id", "parent_run_id"):
            more[name] = UUID(more[name]) if more.get(name) else None
        given: list[Any] = list(arguments)
        if event in ("on_llm_error", "on_tool_error"):
            given = [self._tickets.unpacked(given[0])]
        elif event == "on_llm_end":
            given = [_response(given[0])]
        else:
            given[0] = given[0] or {}
            more.setdefault("tags", [])
        await ahandle_event([*handlers], event, _IGNORED[event], *given, **more)


def wanted(handlers: Sequence[BaseCallbackHandler], event: str) -> bool:
    """Whether one of the handlers does something at an event."""
    usual = {getattr(kind, event) for kind in (BaseCallbackHandler, AsyncCallbackHandler)}
    return any(getattr(type(one), event) not in usual and not getattr(one, _IGNORED[event]) for one in handlers)


def _checkpoint(found: CheckpointTuple) -> dict[str, Any]:
    return {
        "config": found.config,
        "checkpoint": found.checkpoint,
        "metadata": found.metadata,
        "parent": found.parent_config,
        "writes": [list(write) for write in found.pending_writes or ()],
    }


def _response(generations: Sequence[Sequence[Mapping[str, Any]]]) -> LLMResult:
    return LLMResult(
        generations=[
            [
                Generation(text=one["text"]) if one["message"] is None else ChatGeneration(message=one["message"])
                for one in batch
            ]
            for batch in generations
        ]
    )


async def _carried_out(store: Store, asked: Mapping[str, Any]) -> list[Any]:
    ops = [_operation(*one) for one in asked["ops"]]
    if asked["index"] is None:
        return await store.abatch(ops)
    vectors = [None if found is None else [(path, vector) for path, vector in found] for found in asked["vectors"]]
    return await store.with_vectors(ops, vectors, asked["index"])


def _operation(name: str, fields: Mapping[str, Any]) -> Any:
    given = {
        field: tuple(value) if field in ("namespace", "namespace_prefix") else value for field, value in fields.items()
    }
    if conditions := given.get("match_conditions"):
        given["match_conditions"] = tuple(MatchCondition(kind, tuple(path)) for kind, path in conditions)
    return _OPERATIONS[name](**given)


def _sent(found: Any) -> Any:
    """A result of the store: an item, items, namespaces or nothing."""
    if isinstance(found, list):
        return [_sent(one) for one in found]
    if isinstance(found, tuple):
        return {"namespace_of": list(found)}
    if not isinstance(found, Item):
        return found
    common = {
        "value": found.value,
        "key": found.key,
        "namespace": list(found.namespace),
        "created_at": found.created_at.isoformat(),
        "updated_at": found.updated_at.isoformat(),
    }
    return {**common, "score": found.score} if isinstance(found, SearchItem) else common
