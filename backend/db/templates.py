"""Workflow templates. Versions are immutable, and at most one version of a template is active."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Select, Text, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from backend.core.roles import Dags
from backend.db.rows import Row, all_rows, first_row, one_row
from backend.db.tables import workflow_templates as templates

_LIGHT = [column for column in templates.c if column.name != "definition"]
_DESCRIPTION = templates.c.definition["description"].astext.label("description")


def create(
    connection: Connection, name: str, version: int, definition: Mapping[str, Any], *, user: str, active: bool
) -> bool:
    """Create a version; return False if it exists already."""
    values: dict[str, Any] = {
        "name": name,
        "version": version,
        "dag_id": definition["dag_id"],
        "definition": dict(definition),
        "created_by": user,
    }
    if active:
        values |= {"active": True, "activated_at": func.clock_timestamp(), "activated_by": user}
    else:
        values["active"] = False
    made = connection.execute(insert(templates).values(values).on_conflict_do_nothing().returning(templates.c.id))
    return made.first() is not None


def lock(connection: Connection, name: str) -> Row | None:
    """Lock a template until the transaction ends.

    Returns its `owner`, `latest_version` and `active_version` (None if it is retired), or None if it doesn't exist.
    """
    first = select(templates.c.created_by).where(templates.c.name == name, templates.c.version == 1).with_for_update()
    owner = connection.execute(first).first()
    if owner is None:
        return None
    active = func.max(templates.c.version).filter(templates.c.active)
    query = select(
        literal(owner.created_by, Text).label("owner"),
        func.max(templates.c.version).label("latest_version"),
        active.label("active_version"),
    ).where(templates.c.name == name)
    return one_row(connection.execute(query))


def activate(connection: Connection, name: str, version: int, *, user: str) -> bool:
    """Make a version the active one; return False if it doesn't exist. The template has to be locked."""
    known = select(templates.c.active).where(templates.c.name == name, templates.c.version == version)
    row = connection.execute(known).first()
    if row is None:
        return False
    if not row.active:
        retire(connection, name, user=user)
        connection.execute(
            update(templates)
            .where(templates.c.name == name, templates.c.version == version)
            .values(active=True, activated_at=func.clock_timestamp(), activated_by=user)
        )
    return True


def retire(connection: Connection, name: str, *, user: str) -> None:
    """Deactivate the active version. The template has to be locked."""
    connection.execute(
        update(templates)
        .where(templates.c.name == name, templates.c.active)
        .values(active=False, deactivated_at=func.clock_timestamp(), deactivated_by=user)
    )


def get(connection: Connection, name: str, version: int) -> Row | None:
    """One version with its definition."""
    query = select(templates, _DESCRIPTION).where(templates.c.name == name, templates.c.version == version)
    return first_row(connection.execute(query))


def get_template(connection: Connection, name: str) -> Row | None:
    """The active version, or the latest of a retired template, with its definition, `owner` and `latest_version`."""
    shown = _shown([*templates.c, _DESCRIPTION]).where(templates.c.name == name).subquery()
    return first_row(connection.execute(select(shown).where(shown.c.place == 1)))


def list_templates(
    connection: Connection,
    *,
    dags: Dags,
    dag_id: str | None,
    active: bool | None,
    q: str | None,
    after: str | None,
    limit: int,
) -> list[Row]:
    """What `get_template` returns, for each template of `dags` after the name `after`, by name, without definitions.

    `q` is searched for in names and descriptions, ignoring case.
    """
    names = _shown([*_LIGHT, _DESCRIPTION])
    if after is not None:
        names = names.where(templates.c.name > after)
    shown = names.subquery()
    query = select(shown).where(shown.c.place == 1).order_by(shown.c.name).limit(limit)
    if dags is not None:
        query = query.where(shown.c.dag_id.in_(sorted(dags)))
    if dag_id is not None:
        query = query.where(shown.c.dag_id == dag_id)
    if active is not None:
        query = query.where(shown.c.active == active)
    if q is not None:
        query = query.where(
            or_(shown.c.name.icontains(q, autoescape=True), shown.c.description.icontains(q, autoescape=True))
        )
    return all_rows(connection.execute(query))


def list_versions(connection: Connection, name: str, *, before: int | None, limit: int) -> list[Row]:
    """Versions below `before`, newest first and without their definitions."""
    query = select(*_LIGHT, _DESCRIPTION).where(templates.c.name == name)
    if before is not None:
        query = query.where(templates.c.version < before)
    return all_rows(connection.execute(query.order_by(templates.c.version.desc()).limit(limit)))


def _shown(columns: list[Any]) -> Select[Any]:
    """All versions with the `owner` and `latest_version` of their template; `place` is 1 for the one that is shown."""
    name = templates.c.name
    return select(
        *columns,
        func.first_value(templates.c.created_by).over(partition_by=name, order_by=templates.c.version).label("owner"),
        func.max(templates.c.version).over(partition_by=name).label("latest_version"),
        func.row_number()
        .over(partition_by=name, order_by=(templates.c.active.desc(), templates.c.version.desc()))
        .label("place"),
    )
