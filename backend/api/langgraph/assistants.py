"""`/assistants`."""

from typing import Any

from fastapi import APIRouter, Query, Response

from backend.api.deps import Reader, Services, Starter
from backend.api.langgraph.bodies import (
    AssistantCreate,
    AssistantPatch,
    AssistantSearch,
    LatestVersion,
    VersionSearch,
)
from backend.core.problems import NotFound
from backend.core.roles import Principal
from backend.services.application import Application

router = APIRouter(prefix="/assistants", tags=["assistants"])


@router.post("")
async def create(body: AssistantCreate, who: Starter, services: Services) -> dict[str, Any]:
    """Make an assistant of a graph or another workflow: its config, context and name."""
    made = await services.langgraph.assistants.create(
        who,
        assistant_id=str(body.assistant_id) if body.assistant_id else None,
        graph_id=body.graph_id,
        if_exists=body.if_exists,
        values=body.model_dump(exclude={"assistant_id", "graph_id", "if_exists"}),
    )
    return made.to_json()


@router.post("/search")
async def search(body: AssistantSearch, who: Reader, services: Services, response: Response) -> list[dict[str, Any]]:
    """Assistants, newest first; those that stand for workflows as they are come last."""
    found = await services.langgraph.assistants.search(
        who, graph_id=body.graph_id, name=body.name, metadata=body.metadata or {}
    )
    shown = [one.to_json() for one in found]
    if body.sort_by is not None:
        key = body.sort_by
        shown.sort(key=lambda one: str(one[key] or ""), reverse=body.sort_order != "asc")
    page = shown[body.offset : body.offset + body.limit]
    if body.offset + body.limit < len(shown):
        response.headers["X-Pagination-Next"] = str(body.offset + body.limit)
    return [_selected(one, body.select) for one in page]


@router.post("/count")
async def count(body: AssistantSearch, who: Reader, services: Services) -> int:
    """How many assistants there are."""
    found = await services.langgraph.assistants.search(
        who, graph_id=body.graph_id, name=body.name, metadata=body.metadata or {}
    )
    return len(found)


@router.get("/{assistant_id}")
async def get(assistant_id: str, who: Reader, services: Services) -> dict[str, Any]:
    """An assistant, by its id or its graph's name."""
    return (await services.langgraph.assistants.resolve(who, assistant_id)).to_json()


@router.patch("/{assistant_id}")
async def update(assistant_id: str, body: AssistantPatch, who: Starter, services: Services) -> dict[str, Any]:
    """Add a version of an assistant, which becomes the latest."""
    return (await services.langgraph.assistants.update(who, assistant_id, body.model_dump())).to_json()


@router.delete("/{assistant_id}")
async def delete(assistant_id: str, who: Starter, services: Services) -> None:
    """Delete an assistant with all of its versions. Its threads are kept."""
    await services.langgraph.assistants.delete(who, assistant_id)


@router.post("/{assistant_id}/versions")
async def versions(assistant_id: str, body: VersionSearch, who: Reader, services: Services) -> list[dict[str, Any]]:
    """The versions of an assistant, newest first."""
    found = await services.langgraph.assistants.versions(
        who, assistant_id, metadata=body.metadata or {}, limit=body.limit, offset=body.offset
    )
    return [one.to_json() for one in found]


@router.post("/{assistant_id}/latest")
async def set_latest(assistant_id: str, body: LatestVersion, who: Starter, services: Services) -> dict[str, Any]:
    """Make a version the one that runs."""
    return (await services.langgraph.assistants.set_latest(who, assistant_id, body.version)).to_json()


@router.get("/{assistant_id}/graph")
async def graph(assistant_id: str, who: Reader, services: Services, xray: bool | int = Query(False)) -> dict[str, Any]:
    """The nodes and edges of an assistant's graph, with `xray` those of its subgraphs as well."""
    found = await services.langgraph.assistants.resolve(who, assistant_id)
    if not found.graph.is_graph:
        return {"nodes": [{"id": found.graph.dag_id, "type": "runnable", "data": {}}], "edges": []}
    drawn: dict[str, Any] = (await services.langgraph.assistants.shown(found.graph))["graph_xray" if xray else "graph"]
    return drawn


@router.get("/{assistant_id}/schemas")
async def schemas(assistant_id: str, who: Reader, services: Services) -> dict[str, Any]:
    """The JSON Schemas of what an assistant's graph takes, keeps and returns."""
    found = await services.langgraph.assistants.resolve(who, assistant_id)
    if found.graph.is_graph:
        return {"graph_id": found.graph.graph_id, **(await services.langgraph.assistants.shown(found.graph))["schemas"]}
    workflow = await services.catalog.get(found.graph.dag_id, who)
    empty = dict.fromkeys(("output_schema", "state_schema", "config_schema", "context_schema"))
    return {"graph_id": found.graph.graph_id, "input_schema": workflow.schema, **empty}


@router.get("/{assistant_id}/subgraphs")
async def subgraphs(assistant_id: str, who: Reader, services: Services, recurse: bool = Query(False)) -> dict[str, Any]:
    """The schemas of the subgraphs of an assistant's graph, by their nodes; with `recurse`, of those in them too."""
    found = await _subgraphs(services, who, assistant_id)
    return {name: one for name, one in found.items() if recurse or "|" not in name}


@router.get("/{assistant_id}/subgraphs/{namespace}")
async def subgraph(
    assistant_id: str, namespace: str, who: Reader, services: Services, recurse: bool = Query(False)
) -> dict[str, Any]:
    """The same for one subgraph."""
    found = await _subgraphs(services, who, assistant_id)
    inner = {
        name: one for name, one in found.items() if name == namespace or (recurse and name.startswith(f"{namespace}|"))
    }
    if namespace not in inner:
        raise NotFound(f"The graph has no subgraph {namespace!r}.")
    return inner


async def _subgraphs(services: Application, who: Principal, assistant_id: str) -> dict[str, Any]:
    assistants = services.langgraph.assistants
    shown = await assistants.shown((await assistants.resolve(who, assistant_id)).graph)
    return {name: {"graph_id": name, **found} for name, found in (shown.get("subgraphs") or {}).items()}


def _selected(one: dict[str, Any], select: list[str] | None) -> dict[str, Any]:
    return one if select is None else {name: one[name] for name in ("assistant_id", *select) if name in one}
