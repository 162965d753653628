"""LangGraph's store over HTTP: what graphs remember across threads."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from backend.core.problems import FieldError, Forbidden, Invalid
from backend.core.roles import NO_DAGS, Principal, Role

if TYPE_CHECKING:
    from backend.checkpoints.pool import ResilientStore

CONNECTIONS = 2


class Store:
    """Reads and writes the store. Op and Admin may use all of it, a User the namespaces that their name is part of."""

    def __init__(self, database_url: str, stack: AsyncExitStack) -> None:
        """`stack` closes the connections, which are made when somebody needs them."""
        self._database_url = database_url
        self._stack = stack
        self._store: ResilientStore | None = None

    async def put(
        self, who: Principal, namespace: Sequence[str], key: str, value: Mapping[str, Any], index: Any
    ) -> None:
        """Put an item in its place. Raises `Forbidden` and `Invalid`."""
        if who.rights.starts == NO_DAGS:
            raise Forbidden("The role Viewer may not change the store; the role User or higher is needed.")
        place = _checked(who, namespace)
        await (await self._open()).aput(place, key, dict(value), index=index)

    async def get(self, who: Principal, namespace: Sequence[str], key: str) -> dict[str, Any] | None:
        """An item; None if there is none. Raises `Forbidden` and `Invalid`."""
        found = await (await self._open()).aget(_checked(who, namespace), key)
        return None if found is None else found.dict()

    async def delete(self, who: Principal, namespace: Sequence[str], key: str) -> None:
        """Delete an item, if there is one. Raises as `put`."""
        if who.rights.starts == NO_DAGS:
            raise Forbidden("The role Viewer may not change the store; the role User or higher is needed.")
        await (await self._open()).adelete(_checked(who, namespace), key)

    async def search(
        self,
        who: Principal,
        prefix: Sequence[str],
        *,
        filter: Mapping[str, Any] | None,
        query: str | None,
        limit: int,
        offset: int,
    ) -> list[dict[str, Any]]:
        """Items below a namespace. Raises `Forbidden` and `Invalid`."""
        place = _checked(who, prefix, whole=False)
        store = await self._open()
        found = await store.asearch(
            place, query=query, filter=dict(filter) if filter else None, limit=limit, offset=offset
        )
        return [one.dict() for one in found]

    async def namespaces(
        self,
        who: Principal,
        *,
        prefix: Sequence[str] | None,
        suffix: Sequence[str] | None,
        max_depth: int | None,
        limit: int,
        offset: int,
    ) -> list[list[str]]:
        """The namespaces that there are, of those that the caller may use."""
        store = await self._open()
        everything = _uses_all(who)
        found = await store.alist_namespaces(
            prefix=tuple(prefix) if prefix else None,
            suffix=tuple(suffix) if suffix else None,
            max_depth=max_depth,
            limit=limit if everything else 10_000,
            offset=offset if everything else 0,
        )
        shown = [list(one) for one in found if everything or who.username in one]
        return shown if everything else shown[offset : offset + limit]

    async def _open(self) -> "ResilientStore":
        if self._store is None:
            from backend.checkpoints.pool import ResilientStore, open_pool  # which few processes need

            pool = await self._stack.enter_async_context(open_pool(self._database_url, max_size=CONNECTIONS))
            self._store = self._store or ResilientStore(pool)
        return self._store


def _uses_all(who: Principal) -> bool:
    """Whether the user may use all of the store: not with a service token for some DAGs only."""
    return who.role >= Role.OP and who.sees_all


def _checked(who: Principal, namespace: Sequence[str], *, whole: bool = True) -> tuple[str, ...]:
    place = tuple(namespace)
    if whole and not place:
        _refuse("is empty; name at least one part")
    for part in place:
        if not part or "." in part or "\x00" in part:
            _refuse("has an empty part, or one with a full stop")
    if not _uses_all(who) and who.username not in place:
        raise Forbidden(f"A User may use the namespaces that have {who.username!r} as a part; Op and Admin all.")
    return place


def _refuse(detail: str) -> None:
    raise Invalid(f"/namespace: {detail}", errors=[FieldError("/namespace", detail)])
