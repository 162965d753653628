"""LangGraph's store over HTTP: what graphs remember across threads."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from backend.core.errors.agent_errors import UnstorableOutputError
from backend.core.problems import FieldError, Forbidden, Invalid, Unavailable
from backend.core.roles import NO_DAGS, Principal, Role
from backend.core.settings import Settings
from backend.runtime.langgraph_json import GraphLoadError, read_project
from langgraph_flow_host.store_terms import StoreTerms

if TYPE_CHECKING:
    from backend.checkpoints.store import Store as Items

CONNECTIONS = 2

RETRY_AFTER = 5.0
"""Seconds after which a model that didn't answer may do so."""

log = logging.getLogger(__name__)


class Store:
    """Reads and writes the store. Op and Admin may use all of it, a User the namespaces that their name is part of."""

    def __init__(self, settings: Settings, stack: AsyncExitStack) -> None:
        """`stack` closes the connections, which are made when somebody needs them."""
        self._settings = settings
        self._stack = stack
        self._opened: Callable[[], Items] | None = None

    async def put(
        self,
        who: Principal,
        namespace: Sequence[str],
        key: str,
        value: Mapping[str, Any],
        *,
        index: Any,
        ttl: float | None,
    ) -> None:
        """Put an item in its place, for `ttl` minutes if that is given. Raises `Forbidden` and `Invalid`."""
        if who.rights.starts == NO_DAGS:
            raise Forbidden("The role Viewer may not change the store; the role User or higher is needed.")
        place = _checked(who, namespace)
        store = await self._open()
        with _explained("/value"):
            await store.aput(place, key, dict(value), index=index, **({} if ttl is None else {"ttl": ttl}))

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
        with _explained("/query" if query else "/filter"):
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

    async def _open(self) -> "Items":
        """The store for one request: LangGraph's stores carry out one batch after another, and all of a batch fails
        with a part of it, so one user's search would hold up everybody's items."""
        from backend.checkpoints.pool import open_pool  # which few processes need
        from backend.checkpoints.store import Store as Items
        from langgraph_flow_host.embedding import Embedder

        if self._opened is None:
            terms = self._terms()
            pool = await self._stack.enter_async_context(open_pool(self._settings.database_url, max_size=CONNECTIONS))
            embedder = None if terms.index is None else Embedder(terms.index, _in_tasks_only)
            self._opened = self._opened or partial(Items, pool, terms, embedder)
        return self._opened()

    def _terms(self) -> StoreTerms:
        """Those of the `langgraph.json`, whose graphs most items are from."""
        file = self._settings.langgraph_json
        try:
            return StoreTerms() if file is None else read_project(Path(file)).store
        except GraphLoadError as error:
            log.warning("the store is used without an index: %s", error)
            return StoreTerms()


def _in_tasks_only(place: str) -> Any:
    raise ValueError(
        f"{place} is code of the project, which only runs in tasks; give `index: false` to store an item without "
        "vectors, and no `query`"
    )


@contextmanager
def _explained(pointer: str) -> Iterator[None]:
    """Tell the client what is wrong with its item or search, and that the index's model doesn't answer."""
    try:
        yield
    except (ValueError, UnstorableOutputError) as error:
        raise Invalid(f"{pointer}: {error}", errors=[FieldError(pointer, str(error))]) from error
    except (psycopg.Error, OSError):
        raise
    except Exception as error:  # its client is the provider's; what it says may name addresses and keys
        log.warning("no vectors can be made for the store's index: %s", error)
        detail = f"The model of the store's index doesn't make vectors ({type(error).__name__})."
        raise Unavailable(detail, retry_after=RETRY_AFTER) from error


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
