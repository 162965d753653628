"""LangGraph's store for a project's graphs: the task carries out the operations, in the product's database.

Vectors of items and searches are made here, with the project's own embeddings.
"""

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from langgraph.store.base import BaseStore, Item, ListNamespacesOp, Op, Result, SearchItem

from langgraph_flow_host.embedding import Embedder
from langgraph_flow_host.link import Link
from langgraph_flow_host.store_terms import StoreTerms


class TaskStore(BaseStore):
    """Sends each operation as its name and fields."""

    supports_ttl = True

    def __init__(self, link: Link, terms: StoreTerms, embedder: Embedder | None) -> None:
        """It belongs to the event loop that makes it."""
        self._link = link
        self._embedder = embedder
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.ttl_config = terms.ttl_config  # type: ignore[assignment]  # None is for ever

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out the operations. Raises as `Embedder.vectors` and `Link.ask`."""
        return [_result(one) for one in await self._link.ask("store", await self._with_vectors([*ops]))]

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """As `abatch`, for a node that is synchronous and so in a thread of its own. Raises `RuntimeError` in the event
        loop for operations that need vectors."""
        if self._embedder is None:
            asked = _asked([*ops])
        elif threading.get_ident() == self._thread:
            raise RuntimeError("this waits for the event loop that it blocks: await the store's asynchronous method")
        else:
            asked = asyncio.run_coroutine_threadsafe(self._with_vectors([*ops]), self._loop).result()
        return [_result(one) for one in self._link.wait("store", asked)]

    async def _with_vectors(self, ops: Sequence[Op]) -> dict[str, Any]:
        if self._embedder is None:
            return _asked(ops)
        vectors = await self._embedder.vectors(ops)
        return {**_asked(ops), "vectors": vectors, "index": self._embedder.index.name}


def _asked(ops: Iterable[Op]) -> dict[str, Any]:
    return {"ops": [[type(op).__name__, _fields(op)] for op in ops], "index": None}


def _fields(op: Op) -> dict[str, Any]:
    fields = op._asdict()
    if isinstance(op, ListNamespacesOp) and op.match_conditions:
        fields["match_conditions"] = [[one.match_type, [*one.path]] for one in op.match_conditions]
    return {name: value for name, value in fields.items() if type(value).__name__ not in ("NotProvided", "ellipsis")}


def _result(found: Any) -> Any:
    if isinstance(found, list):
        return [_result(one) for one in found]
    if not isinstance(found, Mapping):
        return found
    if "namespace_of" in found:
        return tuple(found["namespace_of"])
    common = {
        "value": found["value"],
        "key": found["key"],
        "namespace": tuple(found["namespace"]),
        "created_at": datetime.fromisoformat(found["created_at"]),
        "updated_at": datetime.fromisoformat(found["updated_at"]),
    }
    return SearchItem(**common, score=found["score"]) if "score" in found else Item(**common)
