"""LangGraph's assistants: graphs with a config of their own, in versions; and the graphs themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, text

from backend.core.jsonable import dumps
from backend.db.rows import Row, all_rows, first_row, one_row

_COLUMNS = (
    "id::text, version, graph_id, name, description, config, context, metadata, created_by, created_at, updated_at"
)
_INSERT = text(
    f"""
    INSERT INTO visual_ai.assistants (
        id, version, latest, graph_id, name, description, config, context, metadata, created_by, created_at)
    VALUES (CAST(:id AS uuid), :version, true, :graph_id, :name, :description, CAST(:config AS jsonb),
        CAST(:context AS jsonb), CAST(:metadata AS jsonb), :created_by, coalesce(:created_at, clock_timestamp()))
    RETURNING {_COLUMNS}
    """  # noqa: S608  # constant columns
)
_DEMOTE = text("UPDATE visual_ai.assistants SET latest = false WHERE id = CAST(:id AS uuid) AND latest")
_PROMOTE = text("UPDATE visual_ai.assistants SET latest = true WHERE id = CAST(:id AS uuid) AND version = :version")
_GET = text(
    f"""
    SELECT {_COLUMNS} FROM visual_ai.assistants
    WHERE id = CAST(:id AS uuid) AND CASE WHEN CAST(:version AS integer) IS NULL THEN latest ELSE version = :version END
    """  # noqa: S608  # constant columns
)
_NEXT = text("SELECT coalesce(max(version), 0) + 1 FROM visual_ai.assistants WHERE id = CAST(:id AS uuid)")
_VERSIONS = text(
    f"""
    SELECT {_COLUMNS} FROM visual_ai.assistants
    WHERE id = CAST(:id AS uuid) AND metadata @> CAST(:metadata AS jsonb)
    ORDER BY version DESC LIMIT :limit OFFSET :offset
    """  # noqa: S608  # constant columns
)
_ALL = text(f"SELECT {_COLUMNS} FROM visual_ai.assistants WHERE latest ORDER BY created_at DESC LIMIT :limit")  # noqa: S608  # constant columns
_DELETE = text("DELETE FROM visual_ai.assistants WHERE id = CAST(:id AS uuid)")
_GRAPHS = text("SELECT dag_id, graph_id, updated_at FROM visual_ai.graphs ORDER BY dag_id")
_SHOWN = text("SELECT shown FROM visual_ai.graphs WHERE dag_id = :dag_id")
_KEEP_GRAPH = text(
    """
    INSERT INTO visual_ai.graphs (dag_id, graph_id, shown) VALUES (:dag_id, :graph_id, CAST(:shown AS jsonb))
    ON CONFLICT (dag_id) DO UPDATE SET
        graph_id = excluded.graph_id, shown = excluded.shown, updated_at = clock_timestamp()
    WHERE (graphs.graph_id, graphs.shown) IS DISTINCT FROM (excluded.graph_id, excluded.shown)
    """
)


@dataclass(frozen=True, slots=True)
class NewAssistant:
    """A version of an assistant."""

    id: str
    graph_id: str
    name: str
    created_by: str
    description: str | None = None
    config: Mapping[str, Any] | None = None
    context: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] | None = None
    created_at: Any = None


def lock(connection: Connection, assistant_id: str) -> None:
    """Let nobody else change an assistant, or make it, until the transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"assistant {assistant_id}", 0))))


def insert(connection: Connection, new: NewAssistant) -> Row:
    """Add an assistant, or a version of one, which becomes the latest."""
    lock(connection, new.id)
    version = connection.execute(_NEXT, {"id": new.id}).scalar_one()
    connection.execute(_DEMOTE, {"id": new.id})
    values = {
        "id": new.id,
        "version": version,
        "graph_id": new.graph_id,
        "name": new.name,
        "description": new.description,
        "config": dumps(dict(new.config or {})),
        "context": dumps(dict(new.context or {})),
        "metadata": dumps(dict(new.metadata or {})),
        "created_by": new.created_by,
        "created_at": new.created_at,
    }
    return one_row(connection.execute(_INSERT, values))


def get(connection: Connection, assistant_id: str, version: int | None = None) -> Row | None:
    """A version of an assistant, or the latest."""
    return first_row(connection.execute(_GET, {"id": assistant_id, "version": version}))


def set_latest(connection: Connection, assistant_id: str, version: int) -> Row | None:
    """Make a version the latest; None if there is no such version."""
    lock(connection, assistant_id)
    if get(connection, assistant_id, version) is None:
        return None
    connection.execute(_DEMOTE, {"id": assistant_id})
    connection.execute(_PROMOTE, {"id": assistant_id, "version": version})
    return get(connection, assistant_id)


def versions(
    connection: Connection, assistant_id: str, *, metadata: Mapping[str, Any], limit: int, offset: int
) -> list[Row]:
    """The versions of an assistant, newest first."""
    values = {"id": assistant_id, "metadata": dumps(dict(metadata)), "limit": limit, "offset": offset}
    return all_rows(connection.execute(_VERSIONS, values))


def latest(connection: Connection, limit: int) -> list[Row]:
    """The latest versions of all assistants, newest first."""
    return all_rows(connection.execute(_ALL, {"limit": limit}))


def delete(connection: Connection, assistant_id: str) -> bool:
    """Delete an assistant with its versions; returns whether there was one."""
    return connection.execute(_DELETE, {"id": assistant_id}).rowcount > 0


def graphs(connection: Connection) -> list[Row]:
    """The graphs that have DAGs of their own, without what is shown of them, which may be large."""
    return all_rows(connection.execute(_GRAPHS))


def shown(connection: Connection, dag_id: str) -> Mapping[str, Any]:
    """What is shown of a DAG's graph: its drawing, its schemas and its subgraphs; nothing of a DAG that is none."""
    found: Mapping[str, Any] | None = connection.execute(_SHOWN, {"dag_id": dag_id}).scalar()
    return found or {}


def keep_graphs(connection: Connection, found: Sequence[Mapping[str, Any]]) -> None:
    """Record what graphs are: for each its `dag_id`, `graph_id` and what is `shown` of it."""
    for one in found:
        connection.execute(_KEEP_GRAPH, {**one, "shown": dumps(one["shown"])})
