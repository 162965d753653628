"""The commands `projects …`."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from backend.runtime.langgraph_json import Project
    from backend.runtime.projects.installation import Added
    from backend.runtime.projects.library import InstalledProject
    from backend.runtime.projects.manifest import GraphDescription

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Name = Annotated[str, typer.Argument(help="The project's name, as `projects list` shows it.", metavar="NAME")]


@app.callback()
def projects() -> None:
    """LangGraph projects: what of them runs here, and how."""


@app.command()
def add(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, or the https:// address of a Git repository, with #branch if need be.", metavar="SOURCE"
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Default: the folder's or repository's name.", metavar="NAME")
    ] = None,
    as_json: Json = False,
) -> None:
    """Add a LangGraph project, with an environment of its own. Its graphs get DAGs at Airflow's next look.

    Exit code 1 if a graph can't be loaded, 2 if the project can't be added.
    """
    from backend.runtime.projects import installation

    with _reporting():
        added = installation.add(_folder(), source, name)
        _have_dags_parsed()
        _show_added(added, as_json=as_json)


@app.command()
def update(
    name: Name,
    rollback: Annotated[bool, typer.Option("--rollback", help="Use the version before the present one.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch a project again and use its new version from the next run on. Exit codes as for `add`."""
    from backend.runtime.projects import installation

    with _reporting():
        change = installation.roll_back if rollback else installation.update
        changed = change(_folder(), name)
        _have_dags_parsed()
        _show_added(changed, as_json=as_json)


@app.command("list")
def list_projects(as_json: Json = False) -> None:
    """The projects that were added, their graphs and versions."""
    import json

    from backend.runtime.projects.library import installed

    with _reporting():
        found = installed(_folder()).values()
        rows = [_row(project) for project in found]
    if as_json:
        typer.echo(json.dumps(rows))
    for row in [] if as_json else rows:
        former = f", before it {row['former']}" if row["former"] else ""
        typer.echo(f"{row['name']}: {', '.join(row['graphs'])}")
        typer.echo(f"  version   {row['version']} of {row['added_at']}{former}\n  source    {row['source']}")


@app.command()
def remove(name: Name) -> None:
    """Remove a project, its environment and its DAGs. What is recorded of its runs stays."""
    from backend.runtime.projects import installation

    with _reporting():
        installation.remove(_folder(), name)
    _have_dags_parsed()
    typer.echo(f"{name} is removed")


@app.command()
def check(
    place: Annotated[
        str | None,
        typer.Argument(
            help="A langgraph.json, its folder, or the name of an added project. Default: VISUAL_AI_LANGGRAPH_JSON.",
            metavar="PLACE",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Import each graph of a project, and say which DAG it gets, what it takes, and what won't work.

    Exit code 1 if a graph can't be loaded, 2 if the project can't be read.
    """
    from backend.core.errors.input_error import InputError
    from backend.core.settings import get_settings
    from backend.runtime.langgraph_json import read_project
    from backend.runtime.projects.installation import describe
    from backend.runtime.projects.library import installed
    from backend.runtime.projects.manifest import descriptions, installed_descriptions

    with _reporting():
        named = place if place is not None else get_settings().langgraph_json
        if named is None:
            raise InputError("is missing: name a langgraph.json, or set VISUAL_AI_LANGGRAPH_JSON", field="PLACE")
        if not Path(named).exists() and (added := installed(_folder()).get(named)) is not None:
            describe(added)
            _show(added.project(), installed_descriptions(added), added.name, as_json=as_json)
            return
        file = Path(named)
        project = read_project(file / "langgraph.json" if file.is_dir() else file)
        _show(project, descriptions(project.file, fresh=True), None, as_json=as_json)


def _folder() -> Path:
    """The folder of projects: the settings', or that of this checkout's stack."""
    from backend.core.errors.input_error import InputError
    from backend.core.settings import get_settings
    from backend.deployment.layout import Layout, StackError

    if (named := get_settings().projects_dir) is not None:
        return Path(named)
    try:
        return Layout.find().projects
    except StackError:
        raise InputError("isn't set; it names the folder of projects", field="VISUAL_AI_PROJECTS_DIR") from None


def _have_dags_parsed() -> None:
    """Have Airflow look at the projects now: its DAG processor takes a file that has changed before all others. Where
    the file can't be touched, it comes to it by itself."""
    folder = os.environ.get("AIRFLOW__CORE__DAGS_FOLDER") or Path(__file__).parents[2] / "airflow" / "dags"
    with suppress(OSError):
        os.utime(Path(folder) / "project_dags.py")


@contextmanager
def _reporting() -> Iterator[None]:
    """Print what is wrong with the input, and exit with 2."""
    from backend.core.errors.input_error import InputError
    from backend.doctor.cli import read_keys

    read_keys()
    try:
        yield
    except InputError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def _show_added(added: "Added", *, as_json: bool) -> None:
    from backend.runtime.projects.manifest import installed_descriptions

    project = added.project
    if not as_json:
        what = f"version {project.record.version}" if added.changed else f"{project.record.version} already"
        typer.echo(f"{project.name} is at {what}, in {project.folder}")
        for remark in added.remarks:
            typer.echo(f"  note      {remark}")
    _show(project.project(), installed_descriptions(project), project.name, as_json=as_json)


def _show(project: "Project", graphs: Mapping[str, "GraphDescription"], name: str | None, *, as_json: bool) -> None:
    """Print the graphs of a project; exits with 1 if one can't be loaded."""
    import json

    from backend.runtime.langgraph_json import ignored_keys, missing_variables
    from backend.runtime.projects.flow_settings import dag_ids_of, flow_settings

    settings = flow_settings(project)
    dag_ids = dag_ids_of(project, settings, name)
    if as_json:
        typer.echo(json.dumps([{**asdict(graph), "dag_id": dag_ids[graph.name]} for graph in graphs.values()]))
    else:
        for graph in graphs.values():
            configurable = ", ".join(settings[graph.name].configurable)
            typer.echo("\n".join(_lines(graph, dag_ids[graph.name], configurable)))
        notes = [note for note in ignored_keys(project) if name is None or "'pip_config_file'" not in note]
        if isinstance(project.env, str) and not (file := project.folder / project.env).is_file():
            notes.append(missing_variables(project, file))
        for note in notes:
            typer.echo(note)
    if any(graph.error is not None for graph in graphs.values()):
        raise typer.Exit(1)


def _row(project: "InstalledProject") -> dict[str, Any]:
    record = project.record
    return {
        "name": project.name,
        "graphs": [f"{project.name}/{graph}" for graph in project.project().graphs],
        "version": record.version,
        "former": record.former["version"] if record.former else None,
        "added_at": record.added_at,
        "source": record.source,
    }


def _lines(graph: "GraphDescription", dag_id: str, configurable: str) -> list[str]:
    """A graph for people; what it has none of is left out."""
    facts = {
        "input": _fields(graph.input_schema),
        "context": _fields(graph.context_schema),
        "configurable": configurable,
        "nodes": ", ".join(graph.nodes),
        "stops at": ", ".join(graph.breakpoints),
        "asks in": ", ".join(graph.asks),
        "problem": graph.error or "",
    }
    return [f"{graph.name}: the DAG {dag_id}", *(f"  {name:9} {fact}" for name, fact in facts.items() if fact)]


def _fields(schema: Mapping[str, Any] | None) -> str:
    return ", ".join((schema or {}).get("properties") or {})
