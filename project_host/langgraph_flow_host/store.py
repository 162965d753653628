"""LangGraph's store for a project's graphs: the task carries out the operations, in the product's database."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from langgraph.store.base import BaseStore, Item, ListNamespacesOp, Op, Result, SearchItem

from langgraph_flow_host.link import Link


class TaskStore(BaseStore):
    """Sends each operation as its name and fields."""

    supports_ttl = True

    def __init__(self, link: Link) -> None:
        self._link = link

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        return [_result(one) for one in await self._link.ask("store", _asked(ops))]

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """As `abatch`, for a node that is synchronous."""
        return [_result(one) for one in self._link.wait("store", _asked(ops))]


def _asked(ops: Iterable[Op]) -> list[Any]:
    return [[type(op).__name__, _fields(op)] for op in ops]


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
