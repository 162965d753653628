"""Workflow templates: immutable versions, checked when they are created, of which one is active."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from backend.core.budget import parse_budget
from backend.core.errors.input_error import InputError
from backend.core.jsonable import dumps
from backend.core.large_values import apart
from backend.core.problems import Conflict, FieldError, Forbidden, Invalid, NotFound, field_path, pointer
from backend.core.redaction import find_secret
from backend.core.roles import Principal, Role, covers
from backend.core.run_envelope import SYSTEM_KEY
from backend.db import audit, templates
from backend.db.engine import Database
from backend.db.rows import Row
from backend.models.resolve import check_name
from backend.runtime.requested_team import check_team
from backend.runtime.team.arguments import TEAM_ARGUMENTS
from backend.services.triggering.catalog import Catalog

MAX_BYTES = 256 * 1024
"""The size limit of a definition as JSON. It becomes part of each run's conf, which Airflow stores in its database."""


@dataclass(frozen=True, slots=True)
class TemplatePage:
    """Templates or versions, and the cursor of the next page."""

    rows: list[Row]
    next_cursor: str | None


class Templates:
    """Reads templates for everyone who may read their DAG. A User may change their own templates, Op and Admin all."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self._database = database
        self._catalog = catalog

    async def list_page(
        self, who: Principal, *, dag_id: str | None, active: bool | None, q: str | None, cursor: str | None, limit: int
    ) -> TemplatePage:
        """Templates by name, without their definitions."""
        rows = await self._database.run(
            templates.list_templates,
            dags=who.rights.reads,
            dag_id=dag_id,
            active=active,
            q=q,
            after=cursor,
            limit=limit + 1,
        )
        return TemplatePage(rows[:limit], rows[limit - 1]["name"] if len(rows) > limit else None)

    async def get(self, who: Principal, name: str) -> Row:
        """A template's active version, or the latest if it is retired. Raises `NotFound`."""
        row = _found(await self._database.run(templates.get_template, name), name)
        return _readable(who, row, name)

    async def versions(self, who: Principal, name: str, *, cursor: int | None, limit: int) -> TemplatePage:
        """A template's versions, newest first, without their definitions. Raises `NotFound`."""
        await self.get(who, name)
        rows = await self._database.run(templates.list_versions, name, before=cursor, limit=limit + 1)
        return TemplatePage(rows[:limit], str(rows[limit - 1]["version"]) if len(rows) > limit else None)

    async def version(self, who: Principal, name: str, version: int) -> Row:
        """One version. Raises `NotFound`."""
        row = await self._database.run(templates.get, name, version)
        if row is None:
            await self.get(who, name)
            raise _no_version(name, version)
        return _readable(who, row, name)

    async def create(self, who: Principal, name: str, definition: dict[str, Any]) -> Row:
        """Create a template with an active first version. Raises `Invalid`, and `Conflict` when the name is taken,
        also by a retired template."""
        await self._check(who, definition)

        def create(connection: Connection) -> bool:
            created = templates.create(connection, name, 1, definition, user=who.username, active=True)
            if created:
                audit.record(connection, who, "template.create", name, dag_id=definition["dag_id"])
            return created

        if not await self._database.run(create):
            raise Conflict(
                f"/name: there already is a template {name!r}; create a new version of it or choose another name",
                errors=[FieldError("/name", "is already the name of a template")],
            )
        return await self.get(who, name)

    async def add_version(
        self,
        who: Principal,
        name: str,
        definition: dict[str, Any],
        *,
        base_version: int | None = None,
        activate: bool = False,
    ) -> Row:
        """Create the next version.

        Raises `NotFound`, `Forbidden`, `Invalid`, and `Conflict` when `base_version` is given and is no longer the
        latest, because someone else has created one.
        """
        # Checked here as well, so that a request that must fail does so before the slower checks.
        await self._database.run(_lock, who, name)
        await self._check(who, definition)

        def add(connection: Connection) -> Row:
            latest = _lock(connection, who, name)["latest_version"]
            if base_version not in (None, latest):
                detail = f"is {base_version}, but the latest is now {latest}; read it and try again"
                raise Conflict(f"/base_version: {detail}", errors=[FieldError("/base_version", detail)])
            templates.create(connection, name, latest + 1, definition, user=who.username, active=False)
            given = {"version": latest + 1, "activated": activate, "dag_id": definition["dag_id"]}
            audit.record(connection, who, "template.add_version", name, **given)
            if activate:
                templates.activate(connection, name, latest + 1, user=who.username)
            return _found(templates.get(connection, name, latest + 1), name)

        return await self._database.run(add)

    async def activate(self, who: Principal, name: str, version: int) -> Row:
        """Make a version the active one, also of a retired template. Raises `NotFound` and `Forbidden`."""

        def change(connection: Connection) -> Row:
            _lock(connection, who, name)
            if not templates.activate(connection, name, version, user=who.username):
                raise _no_version(name, version)
            audit.record(connection, who, "template.activate", name, version=version)
            return _found(templates.get_template(connection, name), name)

        return await self._database.run(change)

    async def retire(self, who: Principal, name: str) -> Row:
        """Permit no further runs until a version is activated again. Raises `NotFound` and `Forbidden`."""

        def change(connection: Connection) -> Row:
            version = _lock(connection, who, name)["active_version"]
            if version is not None:
                audit.record(connection, who, "template.retire", name, version=version)
            templates.retire(connection, name, user=who.username)
            return _found(templates.get_template(connection, name), name)

        return await self._database.run(change)

    async def _check(self, who: Principal, definition: dict[str, Any]) -> None:
        """Raises `Invalid` with pointers into `/definition`, and what the catalogue raises when it can't look up the
        DAG."""
        size = await apart(definition, lambda: len(dumps(definition).encode()))
        if size > MAX_BYTES:
            raise _invalid([_fault(f"has {size} bytes; the limit is {MAX_BYTES}")])
        if (place := find_secret(definition)) is not None:
            detail = (
                "looks like a secret or contains a picture, and everyone can read templates; keep keys in the "
                "environment or a connection, and upload pictures with POST /images"
            )
            raise _invalid([_fault(detail, *place)])
        try:
            _check_arguments(definition)
        except InputError as error:
            raise _invalid([_fault(error.message, *field_path(error.field))]) from None
        await self._check_for_dag(who, definition)

    async def _check_for_dag(self, who: Principal, definition: Mapping[str, Any]) -> None:
        dag_id = definition["dag_id"]
        try:
            workflow = await self._catalog.get(dag_id, who)
        except NotFound:
            raise _invalid([_fault(f"there is no workflow {dag_id!r} that you may see", "dag_id")]) from None
        team = {key: definition[key] for key in TEAM_ARGUMENTS if definition.get(key) is not None}
        refused = [
            _fault(f"is not a parameter of the workflow {dag_id!r}", key) for key in team if not workflow.takes(key)
        ]
        if refused:
            raise _invalid(refused)
        faults = workflow.faults({**(definition.get("input_data") or {}), **team}, partial=True)
        if faults:
            raise _invalid([_in_definition(fault, team) for fault in faults])


def _check_arguments(definition: Mapping[str, Any]) -> None:
    """Raises `InputError` naming the key, as the operators do."""
    given = definition.get("input_data") or {}
    for key in (SYSTEM_KEY, *TEAM_ARGUMENTS):
        if key in given:
            detail = "is reserved for the system" if key == SYSTEM_KEY else f"is a key of the definition itself: {key}"
            raise InputError(detail, field=f"input_data.{key}")
    if definition.get("model") is not None:
        check_name(definition["model"])
    parse_budget(definition.get("budget"))
    if definition.get("agents") is not None:
        check_team(definition, kept=True)
        return
    for key in TEAM_ARGUMENTS:
        if definition.get(key) is not None:
            raise InputError("applies to the template's agents, but it has none", field=key)


def _lock(connection: Connection, who: Principal, name: str) -> Row:
    """Lock a template until the transaction ends. Raises `NotFound` and `Forbidden`."""
    row = _found(templates.lock(connection, name), name)
    _readable(who, _found(templates.get_template(connection, name), name), name)
    if row["owner"] != who.username and who.role < Role.OP:
        raise Forbidden("The role User may change its own templates only; Op and Admin all.")
    return row


def _readable(who: Principal, row: Row, name: str) -> Row:
    if not covers(who.rights.reads, row["dag_id"]):
        raise NotFound(f"There is no template {name!r}.")
    return row


def _found(row: Row | None, name: str) -> Row:
    if row is None:
        raise NotFound(f"There is no template {name!r}.")
    return row


def _no_version(name: str, version: int) -> NotFound:
    return NotFound(f"The template {name!r} has no version {version}.")


def _in_definition(fault: FieldError, team: Mapping[str, Any]) -> FieldError:
    """A fault of a run's input, with a pointer to its place in the definition."""
    place = fault.pointer.removeprefix("/input_data")
    within = place.split("/")[1] if place else ""
    return FieldError(f"/definition{place}" if within in team else f"/definition/input_data{place}", fault.detail)


def _fault(detail: str, *path: str | int) -> FieldError:
    return FieldError(pointer("definition", *path), detail)


def _invalid(faults: list[FieldError]) -> Invalid:
    return Invalid(f"{faults[0].pointer}: {faults[0].detail}", errors=faults)
