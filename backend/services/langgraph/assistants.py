"""Assistants: what a client may run. There is one for each workflow and template, and others that people make."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from backend.core.problems import Conflict, FieldError, Forbidden, Invalid, NotFound
from backend.core.roles import NO_DAGS, Principal, Role, covers
from backend.db.conversations import assistants
from backend.db.conversations.assistants import NewAssistant
from backend.db.engine import Database
from backend.db.rows import Row
from backend.services.templates import Templates
from backend.services.triggering.catalog import Catalog

NAMESPACE = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")
"""In which LangGraph's server names the assistants that stand for graphs."""

MOST = 1_000
"""Assistants that are looked through."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A workflow as a client's graph: `graph_id` is its name there. `is_graph` says whether it is one, which has
    states, and not just any DAG."""

    dag_id: str
    graph_id: str
    is_graph: bool
    since: Any = None

    @property
    def assistant_id(self) -> str:
        """The id of the assistant that stands for it."""
        return str(uuid.uuid5(NAMESPACE, self.graph_id))


@dataclass(frozen=True, slots=True)
class Assistant:
    """A graph with what it is run with: what somebody has made of it, or a `template` of its workflow."""

    id: str
    graph: Graph
    row: Row | None = None
    template: Row | None = None

    @property
    def reference(self) -> str | None:
        """The template's version that is run."""
        return None if self.template is None else f"{self.template['name']}@{self.template['version']}"

    def to_json(self) -> dict[str, Any]:
        """The assistant as clients know it."""
        row = self.row or _of_template(self.template)
        since = self.graph.since
        return {
            "assistant_id": self.id,
            "graph_id": self.graph.graph_id,
            "name": row.get("name") or self.graph.graph_id,
            "description": row.get("description"),
            "config": row.get("config") or {},
            "context": row.get("context") or {},
            "metadata": row.get("metadata") or {"created_by": "system"},
            "version": row.get("version") or 1,
            "created_at": row.get("created_at") or since,
            "updated_at": row.get("updated_at") or since,
        }


class Assistants:
    """Finds assistants with the caller's rights, and keeps those that people make."""

    def __init__(self, database: Database, catalog: Catalog, templates: Templates) -> None:
        self._database = database
        self._catalog = catalog
        self._templates = templates

    async def graphs(self, who: Principal, *, every: bool = False) -> list[Graph]:
        """The graphs that the caller may see; with `every`, DAGs that are no graphs as well."""
        rows = await self._database.run_autocommit(assistants.graphs)
        names = [row["graph_id"] for row in rows]
        found = {
            row["dag_id"]: Graph(
                row["dag_id"],
                row["graph_id"] if names.count(row["graph_id"]) == 1 else row["dag_id"],
                True,
                row["updated_at"],
            )
            for row in rows
            if covers(who.rights.reads, row["dag_id"]) or covers(who.rights.starts, row["dag_id"])
        }
        if every:
            known = {workflow.dag_id for workflow in await self._catalog.list_all(who)}
            found = {dag_id: graph for dag_id, graph in found.items() if dag_id in known}
            found.update({dag_id: Graph(dag_id, dag_id, False) for dag_id in sorted(known - found.keys())})
        return list(found.values())

    async def resolve(self, who: Principal, name: str, version: int | None = None) -> Assistant:
        """The assistant of this id, or that of a graph, DAG or template of this name. Raises `NotFound`."""
        key = _uuid(name)
        graphs = await self.graphs(who)
        for graph in graphs:
            if name in (graph.graph_id, graph.dag_id) or key == graph.assistant_id:
                return Assistant(graph.assistant_id, graph)
        if key is None:
            return await self._named(who, name, graphs)
        if uuid.UUID(key).version == 5:
            # Perhaps a workflow's or a template's own, which anybody can work out: an assistant that somebody has made
            # with the same id doesn't take its place.
            for graph in await self.graphs(who, every=True):
                if key == graph.assistant_id:
                    return Assistant(key, graph)
            for template in await self._listed_templates(who):
                if key == template_assistant(template["name"]):
                    return await self._of_template(who, await self._templates.get(who, template["name"]), graphs)
        row = await self._database.run_autocommit(assistants.get, key, version)
        if row is None:
            raise NotFound(f"There is no assistant {name}.")
        own = next((one for one in graphs if row["graph_id"] in (one.graph_id, one.dag_id)), None)
        return Assistant(key, own or await self._dag(who, row["graph_id"]), row)

    async def _named(self, who: Principal, name: str, graphs: list[Graph]) -> Assistant:
        try:
            graph = await self._dag(who, name)
        except NotFound as unknown:
            try:
                template = await self._templates.get(who, name)
            except NotFound:
                raise unknown from None
            return await self._of_template(who, template, graphs)
        return Assistant(graph.assistant_id, graph)

    async def _of_template(self, who: Principal, template: Row, graphs: list[Graph]) -> Assistant:
        own = next((one for one in graphs if one.dag_id == template["dag_id"]), None)
        graph = own or await self._dag(who, template["dag_id"])
        return Assistant(template_assistant(template["name"]), graph, template=template)

    async def _listed_templates(self, who: Principal) -> list[Row]:
        page = await self._templates.list_page(who, dag_id=None, active=None, q=None, cursor=None, limit=MOST)
        return page.rows

    async def _dag(self, who: Principal, name: str) -> Graph:
        try:
            workflow = await self._catalog.get(name, who)
        except (NotFound, Forbidden):
            raise NotFound(f"There is no assistant or graph {name!r}.") from None
        return Graph(workflow.dag_id, workflow.dag_id, False)

    async def shown(self, graph: Graph) -> Mapping[str, Any]:
        """What is shown of a graph; nothing of a DAG that is none."""
        return await self._database.run_autocommit(assistants.shown, graph.dag_id) if graph.is_graph else {}

    async def search(
        self, who: Principal, *, graph_id: str | None, name: str | None, metadata: Mapping[str, Any]
    ) -> list[Assistant]:
        """All assistants that match, newest first, then those of graphs, then those of templates."""
        graphs = {graph.graph_id: graph for graph in await self.graphs(who, every=graph_id is None)}
        rows = await self._database.run_autocommit(assistants.latest, MOST)
        found = [Assistant(row["id"], graphs[row["graph_id"]], row) for row in rows if row["graph_id"] in graphs]
        found += [Assistant(graph.assistant_id, graph) for graph in graphs.values()]
        by_dag = {graph.dag_id: graph for graph in graphs.values()}
        found += [
            Assistant(template_assistant(row["name"]), by_dag[row["dag_id"]], template=row)
            for row in await self._listed_templates(who)
            if row["active"] and row["dag_id"] in by_dag
        ]
        return [
            one
            for one in found
            if graph_id in (None, one.graph.graph_id, one.graph.dag_id)
            and (name is None or name.lower() in one.to_json()["name"].lower())
            and _contains(one.to_json()["metadata"], metadata)
        ]

    async def create(
        self, who: Principal, *, assistant_id: str | None, graph_id: str, if_exists: str, values: Mapping[str, Any]
    ) -> Assistant:
        """Make an assistant. Raises `NotFound` for an unknown graph, `Forbidden`, and `Conflict` if there is one with
        this id unless `if_exists` is `do_nothing`."""
        _check_author(who)
        base = await self._base(who, graph_id)
        key = assistant_id or str(uuid.uuid4())

        def write(connection: Connection) -> Row | None:
            assistants.lock(connection, key)
            if assistants.get(connection, key) is not None:
                return None
            name = values.get("name") or base.graph.graph_id
            new = NewAssistant(key, base.graph.graph_id, name, who.username, **_stored(values))
            return assistants.insert(connection, new)

        row = await self._database.run(write)
        if row is not None:
            return Assistant(key, base.graph, row)
        if if_exists == "do_nothing":
            return await self.resolve(who, key)
        raise Conflict(f"There is an assistant {key} already.")

    async def update(self, who: Principal, name: str, values: Mapping[str, Any]) -> Assistant:
        """Add a version of an assistant, with what is given in place of what it had. Raises as `create`, and
        `Conflict` for an assistant that stands for a graph."""
        known = await self._own(who, name)
        assert known.row is not None  # noqa: S101  # it is somebody's own
        graph = known.graph
        if values.get("graph_id") is not None:
            graph = (await self._base(who, values["graph_id"])).graph
        row = known.row
        merged = {key: values[key] if values.get(key) is not None else row[key] for key in _FIELDS}
        merged["metadata"] = {**row["metadata"], **(values.get("metadata") or {})}
        label = values.get("name") or row["name"]
        new = NewAssistant(known.id, graph.graph_id, label, who.username, created_at=row["created_at"], **merged)
        return Assistant(known.id, graph, await self._database.run(assistants.insert, new))

    async def set_latest(self, who: Principal, name: str, version: int) -> Assistant:
        """Make a version the latest. Raises as `update`, and `NotFound` for an unknown version."""
        known = await self.resolve(who, name)
        if known.template is not None:
            await self._templates.activate(who, known.template["name"], version)
            return await self.resolve(who, known.id)
        known = await self._own(who, name)
        row = await self._database.run(assistants.set_latest, known.id, version)
        if row is None:
            raise NotFound(f"The assistant has no version {version}.")
        return await self.resolve(who, known.id)

    async def versions(
        self, who: Principal, name: str, *, metadata: Mapping[str, Any], limit: int, offset: int
    ) -> list[Assistant]:
        """The versions of an assistant, newest first. Raises `NotFound`."""
        known = await self.resolve(who, name)
        if known.template is not None:
            page = await self._templates.versions(who, known.template["name"], cursor=None, limit=offset + limit)
            found = [Assistant(known.id, known.graph, template={**known.template, **row}) for row in page.rows[offset:]]
            return [one for one in found if _contains(one.to_json()["metadata"], metadata)]
        if known.row is None:
            return [known][offset : offset + limit]
        rows = await self._database.run(assistants.versions, known.id, metadata=metadata, limit=limit, offset=offset)
        return [Assistant(known.id, known.graph, row) for row in rows]

    async def delete(self, who: Principal, name: str) -> None:
        """Delete an assistant. Raises as `update`."""
        known = await self._own(who, name)
        await self._database.run(assistants.delete, known.id)

    async def _base(self, who: Principal, graph_id: str) -> Assistant:
        base = await self.resolve(who, graph_id)
        if base.template is not None:
            detail = f"{graph_id!r} is a template; an assistant is made of a graph or of another workflow"
            raise Invalid(f"/graph_id: {detail}", errors=[FieldError("/graph_id", detail)])
        return base

    async def _own(self, who: Principal, name: str) -> Assistant:
        _check_author(who)
        known = await self.resolve(who, name)
        if known.template is not None:
            raise Conflict(f"{known.template['name']!r} is a template: change it there, at /templates.")
        if known.row is None:
            raise Conflict(f"{known.graph.graph_id!r} stands for a graph as it is; create an assistant of it instead.")
        if known.row["created_by"] != who.username and who.role < Role.OP:
            raise Forbidden("A User may change their own assistants; Op and Admin all.")
        return known


_FIELDS = ("description", "config", "context", "metadata")


def template_assistant(name: str) -> str:
    """The id of the assistant that stands for a template."""
    return str(uuid.uuid5(NAMESPACE, f"template {name}"))


def _of_template(template: Row | None) -> Row:
    if template is None:
        return {}
    return {
        "name": template["name"],
        "description": template["description"],
        "metadata": {"created_by": template["created_by"], "template": template["name"]},
        "version": template["version"],
        "created_at": template["created_at"],
        "updated_at": template["activated_at"] or template["created_at"],
    }


def _stored(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: values.get(key) for key in _FIELDS}


def _check_author(who: Principal) -> None:
    if who.rights.starts == NO_DAGS:
        raise Forbidden("The role Viewer may not change assistants; the role User or higher is needed.")


def _contains(whole: Mapping[str, Any], part: Mapping[str, Any]) -> bool:
    return all(key in whole and whole[key] == value for key, value in part.items())


def _uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def checked_id(text: str, what: str) -> str:
    """A UUID in its usual form. Raises `Invalid`."""
    found = _uuid(text)
    if found is None:
        detail = f"the id of {what} has to be a UUID"
        raise Invalid(detail, errors=[FieldError("", detail)])
    return found
