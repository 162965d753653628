"""The command `projects check`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from backend.runtime.projects.manifest import GraphDescription

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def projects() -> None:
    """LangGraph projects: what of them runs here, and how."""


@app.command()
def check(
    place: Annotated[
        Path | None,
        typer.Argument(help="A langgraph.json or its folder. Default: VISUAL_AI_LANGGRAPH_JSON.", metavar="PLACE"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Import each graph of a project, and say which DAG it gets, what it takes, and what won't work.

    Exit code 1 if a graph can't be loaded, 2 if the project can't be read.
    """
    import json

    from backend.core.errors.input_error import InputError
    from backend.core.settings import get_settings
    from backend.runtime.langgraph_json import ignored_keys, read_project
    from backend.runtime.projects.flow_settings import dag_ids_of, flow_settings
    from backend.runtime.projects.manifest import descriptions

    try:
        file = place or (Path(named) if (named := get_settings().langgraph_json) is not None else None)
        if file is None:
            raise InputError("is missing: name a langgraph.json, or set VISUAL_AI_LANGGRAPH_JSON", field="PLACE")
        project = read_project(file / "langgraph.json" if file.is_dir() else file)
        dag_ids = dag_ids_of(project, flow_settings(project))
        graphs = descriptions(project.file, fresh=True)
    except InputError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None

    if as_json:
        typer.echo(json.dumps([{**asdict(graph), "dag_id": dag_ids[graph.name]} for graph in graphs.values()]))
    else:
        for graph in graphs.values():
            typer.echo("\n".join(_lines(graph, dag_ids[graph.name])))
        for note in ignored_keys(project):
            typer.echo(note)
    if any(graph.error is not None for graph in graphs.values()):
        raise typer.Exit(1)


def _lines(graph: "GraphDescription", dag_id: str) -> list[str]:
    """A graph for people; what it has none of is left out."""
    facts = {
        "input": _fields(graph.input_schema),
        "context": _fields(graph.context_schema),
        "nodes": ", ".join(graph.nodes),
        "stops at": ", ".join(graph.breakpoints),
        "problem": graph.error or "",
    }
    return [f"{graph.name}: the DAG {dag_id}", *(f"  {name:9} {fact}" for name, fact in facts.items() if fact)]


def _fields(schema: Mapping[str, Any] | None) -> str:
    return ", ".join((schema or {}).get("properties") or {})
