"""What a project's graphs take and do, found out by importing them: `python -m backend.runtime.projects.describe FILE`.

This runs in a process of its own, because it executes the project's code: an import may fail, hang, print, or leave
things behind. The description is printed as the last line of the output, in JSON.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from backend.runtime.langgraph_json import read_project
from backend.runtime.projects.flow_settings import FlowSettings, flow_settings

MARK = "graphs: "
"""What the line with the description begins with; the project's own code may print, too."""


async def describe(file: Path) -> dict[str, Any]:
    """For each graph of a project: `input_schema`, `context_schema`, `nodes`, `breakpoints` and what is `shown` of it.

    Of one that can't be loaded, the `error`.
    """
    project = read_project(file)
    settings = flow_settings(project)
    return {name: await _described(name, file, settings[name]) for name in project.graphs}


async def _described(name: str, file: Path, settings: FlowSettings) -> dict[str, Any]:
    from backend.runtime.graphs.factory_arguments import Surroundings
    from backend.runtime.graphs.load import load_graph

    try:
        async with AsyncExitStack() as resources:
            around = Surroundings({"configurable": dict(settings.configurable)}, settings.context or None, None, None)
            graph = await load_graph(
                name, around=around, project_file=str(file), resources=resources, saver=None, name=name
            )
            breakpoints = [*graph.interrupt_before_nodes, *graph.interrupt_after_nodes]
            return {
                "input_schema": _schema(graph.get_input_jsonschema, _input_type(graph)),
                "context_schema": _schema(graph.get_context_jsonschema, graph.context_schema),
                "nodes": [node for node in graph.nodes if not node.startswith("__")],
                "breakpoints": sorted(set(map(str, breakpoints))),
                "shown": _shown(graph),
                "error": None,
            }
    except Exception as error:  # whatever the project's code raises says why its graph can't be run
        return {"error": f"{type(error).__name__}: {error}"}


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
        "input_schema": _schema(graph.get_input_jsonschema, _input_type(graph)),
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


def _input_type(graph: Any) -> Any:
    return getattr(getattr(graph, "builder", None), "input_schema", None)


def _schema(made: Callable[[], Any], kind: Any) -> Mapping[str, Any] | None:
    """The JSON Schema of a type, from LangGraph or else field by field; None if there is no type.

    Pydantic refuses `typing.TypedDict` before Python 3.12, and a whole state for one field whose type it doesn't know.
    """
    try:
        schema = made()
        json.dumps(schema)
    except Exception:  # pydantic raises errors of many kinds
        return _by_fields(kind)
    return schema if isinstance(schema, Mapping) else None


def _by_fields(kind: Any) -> Mapping[str, Any] | None:
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


if __name__ == "__main__":
    sys.stdout.write(f"\n{MARK}{json.dumps(asyncio.run(describe(Path(sys.argv[1]))))}\n")
