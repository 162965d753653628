"""`/store`: what graphs remember across threads."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from backend.api.deps import Reader, Services, Starter
from backend.api.langgraph.bodies import ItemDelete, ItemPut, ItemSearch, NamespaceSearch

router = APIRouter(prefix="/store", tags=["store"])


@router.put("/items", status_code=204)
async def put(body: ItemPut, who: Starter, services: Services) -> None:
    """Put an item in its place."""
    await services.langgraph.store.put(who, body.namespace, body.key, body.value, index=body.index, ttl=body.ttl)


@router.get("/items")
async def get(
    who: Reader,
    services: Services,
    key: Annotated[str, Query()],
    namespace: Annotated[str, Query(description="Its parts, joined with full stops")] = "",
) -> dict[str, Any] | None:
    """An item, or null."""
    return await services.langgraph.store.get(who, namespace.split(".") if namespace else [], key)


@router.delete("/items", status_code=204)
async def delete(body: ItemDelete, who: Starter, services: Services) -> None:
    """Delete an item."""
    await services.langgraph.store.delete(who, body.namespace, body.key)


@router.post("/items/search")
async def search(body: ItemSearch, who: Reader, services: Services) -> dict[str, Any]:
    """Items below a namespace."""
    found = await services.langgraph.store.search(
        who, body.namespace_prefix, filter=body.filter, query=body.query, limit=body.limit, offset=body.offset
    )
    return {"items": found}


@router.post("/namespaces")
async def namespaces(body: NamespaceSearch, who: Reader, services: Services) -> dict[str, Any]:
    """The namespaces that there are."""
    found = await services.langgraph.store.namespaces(
        who,
        prefix=body.prefix,
        suffix=body.suffix,
        max_depth=body.max_depth,
        limit=body.limit,
        offset=body.offset,
    )
    return {"namespaces": found}
