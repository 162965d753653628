"""A DAG for each graph of a project, without a DAG file.

There are the project whose `langgraph.json` `VISUAL_AI_LANGGRAPH_JSON` names, and those that were added with
environments of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Asset, Param, get_parsing_context

from backend.core.run_envelope import SYSTEM_KEY
from backend.core.settings import get_settings
from backend.runtime.langgraph_json import Project, read_project
from backend.runtime.projects.flow_settings import FlowSettings, dag_ids_of, flow_settings
from backend.runtime.projects.form import context_parameter, name_of_context, parameters
from backend.runtime.projects.library import SEPARATOR, installed
from backend.runtime.projects.manifest import GraphDescription, descriptions, installed_descriptions, publish
from visual_ai_operators import LangGraphOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

__all__ = ["GraphOperator", "graph_dags", "project_dags"]

log = logging.getLogger(__name__)

TASK_ID = "graph"
TAG = "langgraph"
CONFIGURABLE = "configurable"


class GraphOperator(LangGraphOperator):
    """Runs a graph on what the run's parameters say: its input and, in one of them, its context."""

    def __init__(self, *, context_name: str | None, takes_configurable: bool, **kwargs: Any) -> None:
        """`context_name` is the parameter with the graph's context, if it has one; `takes_configurable` says whether
        another one, `configurable`, is no field of the graph's input."""
        self.context_name = context_name
        self.takes_configurable = takes_configurable
        super().__init__(**kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the graph. Parameters that are null are left out, which is what null means in Airflow's form."""
        given = {**context["params"], **(context["dag_run"].conf or {})}
        known = {name: value for name, value in given.items() if value is not None and name != SYSTEM_KEY}
        self.context = known.pop(self.context_name, None) if self.context_name is not None else None
        self.configurable = known.pop(CONFIGURABLE, None) if self.takes_configurable else None
        self.input_data = known
        return super().execute(context)

    def _start_in_triggerer(self) -> None:
        """Never there from the start: the parameters are read in a worker, which hands the graph over."""


def graph_dags() -> dict[str, DAG]:
    """The DAGs by their ids; none without a `langgraph.json`. Raises `ValueError` that names what is wrong with it."""
    file = get_settings().langgraph_json
    if file is None:
        return {}
    project = read_project(Path(file))
    # A task parses the file for its own DAG alone, and needs no form.
    wanted = get_parsing_context().dag_id
    return _dags(project, None, descriptions(project.file, only_kept=wanted is not None), wanted)


def project_dags() -> dict[str, DAG]:
    """The DAGs of added projects by their ids. A project with something wrong has none, which the DAG processor's log
    says, as `projects check` does; the others have theirs."""
    wanted = get_parsing_context().dag_id
    found: dict[str, DAG] = {}
    for added in installed(get_settings().projects_dir).values():
        try:
            dags = _dags(added.project(), added.name, installed_descriptions(added), wanted)
            if taken := found.keys() & dags.keys():
                raise ValueError(f"there is another DAG {min(taken)!r}; use --name or a dag_id")
        except Exception as error:
            log.error("the project %s has no DAGs: %s", added.name, error)
        else:
            found |= dags
    return found


def _dags(
    project: Project, name: str | None, described: Mapping[str, GraphDescription], wanted: str | None
) -> dict[str, DAG]:
    """The DAGs of one project. It has a `name` if it was added."""
    settings = flow_settings(project)
    dag_ids = dag_ids_of(project, settings, name)
    if wanted is None:
        publish(dag_ids, described)
    return {
        dag_ids[key]: _dag(
            dag_ids[key],
            key if name is None else f"{name}{SEPARATOR}{key}",
            description,
            settings[key],
            project.about.get(key),
        )
        for key, description in described.items()
        if wanted in (None, dag_ids[key])
    }


def _dag(dag_id: str, reference: str, graph: GraphDescription, settings: FlowSettings, about: str | None) -> DAG:
    fields = parameters(graph.input_schema, settings.input)
    context = context_parameter(graph.context_schema, settings.context)
    context_name = name_of_context(fields) if context is not None else None
    if context is not None and context_name is not None:
        fields[context_name] = context
    takes_configurable = CONFIGURABLE not in fields
    if takes_configurable and (settings.configurable or graph.error is not None):
        fields[CONFIGURABLE] = {
            "type": ["null", "object"],
            "title": "Configurable",
            "default": settings.configurable or None,
        }
    schedule = settings.schedule
    with DAG(
        dag_id=dag_id,
        description=settings.description or about or _description(graph),
        schedule=[Asset(uri) for uri in schedule] if isinstance(schedule, tuple) else schedule,
        start_date=settings.start_date,
        catchup=settings.catchup,
        is_paused_upon_creation=settings.paused,
        max_active_runs=settings.max_active_runs,
        default_args={"owner": settings.owner, "retry_exponential_backoff": True},
        tags=[TAG, *settings.tags],
        params={name: _param(field) for name, field in fields.items()},
        doc_md=_documentation(graph),
    ) as dag:
        GraphOperator(
            task_id=TASK_ID,
            graph=reference,
            context_name=context_name,
            takes_configurable=takes_configurable,
            timeout=settings.timeout,
            deferrable=settings.deferrable,
            durability=settings.durability,
            budget=settings.budget,
            error_policy=settings.error_policy,
            questions=settings.questions,
            retries=settings.retries,
            retry_delay=timedelta(seconds=settings.retry_delay),
            **{key: value for key in ("pool", "queue") if (value := getattr(settings, key)) is not None},
        )
    return dag


def _param(field: dict[str, Any]) -> Param:
    schema = dict(field)
    return Param(schema.pop("default"), **schema)


def _description(graph: GraphDescription) -> str:
    return f"The graph {graph.name}" if graph.error is None else f"The graph {graph.name}, whose input isn't known"


def _documentation(graph: GraphDescription) -> str:
    if graph.error is not None:
        return f"`{graph.name}` couldn't be loaded to see what it takes:\n\n```\n{graph.error[:2000]}\n```"
    asking = dict.fromkeys([*graph.breakpoints, *graph.asks])
    stops = f"\n\nIt stops to ask people at {', '.join(asking)}." if asking else ""
    nodes = f"\n\nNodes: {', '.join(graph.nodes)}" if graph.nodes else ""
    return f"Runs `{graph.name}` of the project's `langgraph.json`.{nodes}{stops}"
