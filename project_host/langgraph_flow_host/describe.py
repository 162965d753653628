"""What a project's graphs take and do, found out by importing them."""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import CodeType
from typing import Any, get_type_hints

from langgraph.store.memory import InMemoryStore
from pydantic import TypeAdapter

from langgraph_flow_host.errors import ProjectError
from langgraph_flow_host.graphs import Around, Project, make, read


def describe(project: Path, configured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """For each graph: `input_schema`, `context_schema`, `nodes`, `breakpoints`, `asks` and `shown`, or the `error`.

    `configured` are the `configurable` and `context` that each graph is made with.
    """
    read_project = read(project)
    return {
        name: asyncio.run(_described(name, read_project, configured.get(name) or {})) for name in read_project.places
    }


async def _described(name: str, project: Project, given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        async with AsyncExitStack() as resources:
            config = {"configurable": dict(given.get("configurable") or {})}
            context = given.get("context") or None
            around = Around(config, context, InMemoryStore(), None, reading=context is None)
            graph = await make(project.places[name], project.folder, around, resources, None, name)
            return description(graph)
    except ProjectError as error:
        return {"error": str(error)}
    except Exception as error:  # whatever the project's code raises says why its graph can't be run
        return {"error": f"{type(error).__name__}: {error}"}


def description(graph: Any) -> dict[str, Any]:
    """What a graph takes and does."""
    nodes = {key: node for key, node in graph.nodes.items() if not key.startswith("__")}
    breakpoints = {*graph.interrupt_before_nodes, *graph.interrupt_after_nodes}
    input_type = getattr(getattr(graph, "builder", None), "input_schema", None)
    return {
        "input_schema": _schema(graph.get_input_jsonschema, input_type),
        "context_schema": _schema(graph.get_context_jsonschema, graph.context_schema),
        "nodes": [*nodes],
        "breakpoints": sorted(map(str, breakpoints)),
        "asks": [key for key, node in nodes.items() if _asks(node)],
        "shown": _shown(graph),
        "error": None,
    }


def _shown(graph: Any) -> dict[str, Any]:
    """The graph as clients of LangGraph's protocol see it: its drawing, its schemas, and those of its subgraphs."""
    return {
        "graph": _drawn(graph, xray=False),
        "graph_xray": _drawn(graph, xray=True),
        "schemas": _schemas(graph),
        "subgraphs": {name: _schemas(inner) for name, inner in _subgraphs(graph)},
    }


def _drawn(graph: Any, *, xray: bool) -> dict[str, Any]:
    try:
        drawn: dict[str, Any] = json.loads(json.dumps(graph.get_graph(xray=xray).to_json(), default=str))
    except Exception:  # a graph may lead anywhere
        names = [name for name in graph.nodes if not name.startswith("__")]
        return {"nodes": [{"id": name, "type": "runnable", "data": {"name": name}} for name in names], "edges": []}
    return drawn


def _schemas(graph: Any) -> dict[str, Any]:
    builder = getattr(graph, "builder", None)
    return {
        "input_schema": _schema(graph.get_input_jsonschema, getattr(builder, "input_schema", None)),
        "output_schema": _schema(graph.get_output_jsonschema, getattr(builder, "output_schema", None)),
        "state_schema": _by_fields(getattr(builder, "state_schema", None)),
        "config_schema": _schema(lambda: graph.config_schema().model_json_schema(), None),
        "context_schema": _schema(graph.get_context_jsonschema, graph.context_schema),
    }


def _subgraphs(graph: Any) -> list[tuple[str, Any]]:
    try:
        return list(graph.get_subgraphs(recurse=True))
    except Exception:  # as above
        return []


def _asks(node: Any) -> bool:
    """Whether a node's own function names `interrupt`. What it calls isn't looked through."""
    bound = getattr(node, "bound", node)
    functions = [getattr(bound, "func", None), getattr(bound, "afunc", None), *_steps(bound)]
    codes = [getattr(one, "__code__", None) for one in functions]
    return any(isinstance(code, CodeType) and "interrupt" in code.co_names for code in codes)


def _steps(bound: Any) -> list[Any]:
    return [
        function
        for step in getattr(bound, "steps", ())
        for function in (getattr(step, "func", None), getattr(step, "afunc", None))
    ]


def _schema(made: Callable[[], Any], kind: Any) -> Any:
    try:
        schema = made()
        json.dumps(schema)
    except Exception:  # pydantic raises errors of many kinds
        return _by_fields(kind)
    return schema if isinstance(schema, Mapping) else None


def _by_fields(kind: Any) -> Any:
    try:
        fields = get_type_hints(kind)
    except (TypeError, NameError, AttributeError):
        return None
    properties, definitions = {}, {}
    for name, hint in fields.items():
        try:
            schema = TypeAdapter(hint).json_schema()
            json.dumps(schema)
        except Exception:  # as above: this field may be anything
            schema = {}
        definitions.update(schema.pop("$defs", {}))
        properties[name] = schema
    return {"type": "object", "properties": properties, "$defs": definitions}
