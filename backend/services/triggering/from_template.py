"""Runs from templates: which version a request means, and what it makes of the request."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from backend.core.errors.input_error import InputError
from backend.core.problems import Conflict, FieldError, Invalid, NotFound, field_path, pointer
from backend.db import templates
from backend.db.engine import Database
from backend.runtime.requested_team import plan_agents
from backend.runtime.team.arguments import TEAM_ARGUMENTS
from backend.services.triggering.catalog import Workflow
from backend.services.triggering.request import TriggerRequest

FIELD = "/template"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A version of a template, of which a run is made."""

    name: str
    version: int
    definition: dict[str, Any]

    def apply(self, request: TriggerRequest) -> TriggerRequest:
        """The request with what the template says where it says nothing itself.

        Raises `Invalid` when it names another DAG or brings agents where the template does.
        """
        dag_id = self.definition["dag_id"]
        if request.dag_id not in ("", dag_id):
            detail = f"is {request.dag_id!r}, but the template {self.name!r} is for {dag_id!r}; leave dag_id out"
            raise _invalid("/dag_id", detail)
        team = {key: self.definition[key] for key in TEAM_ARGUMENTS if self.definition.get(key) is not None}
        for key in team:
            if key in request.input_data:
                raise _invalid(f"/input_data/{key}", f"comes from the template {self.name!r}; leave it out")
        return replace(
            request,
            dag_id=dag_id,
            input_data={**_merged(self.definition.get("input_data") or {}, request.input_data), **team},
            model=self.definition.get("model") if request.model is None else request.model,
            budget=self.definition.get("budget") if request.budget is None else request.budget,
        )

    def faults(self, workflow: Workflow, request: TriggerRequest) -> list[FieldError]:
        """What in an applied request breaks the DAG's schema or is missing for the template's agents."""
        found = [self._own(fault) for fault in workflow.faults(request.input_data)]
        if found or self.definition.get("agents") is None:
            return found
        try:
            plan_agents({**workflow.defaults(), **request.input_data})
        except InputError as error:
            return [self._own(FieldError(pointer("input_data", *field_path(error.field)), error.message))]
        return []

    def system_values(self) -> dict[str, Any]:
        """What the run records of it."""
        return {"template": self.name, "template_version": self.version}

    def _own(self, fault: FieldError) -> FieldError:
        """A fault of what the sender did not send is the template's."""
        field = fault.pointer.split("/")[2] if fault.pointer.count("/") > 1 else ""
        if field not in TEAM_ARGUMENTS or self.definition.get(field) is None:
            return fault
        place = fault.pointer.removeprefix("/input_data")
        return FieldError(FIELD, f"{self.name}@{self.version} needs a new version: {place} {fault.detail}")


class Choice:
    """The version that a reference means, `name` or `name@version`; looked up once, for all who share it."""

    def __init__(self, database: Database, reference: str) -> None:
        self._database = database
        self._name, _, self._version = reference.partition("@")
        self._lock = asyncio.Lock()
        self._chosen: Chosen | None = None

    async def version(self) -> Chosen:
        """The version. Raises `NotFound`, and `Conflict` for a retired template."""
        async with self._lock:
            if self._chosen is None:
                self._chosen = await self._look_up()
            return self._chosen

    async def _look_up(self) -> Chosen:
        row = await self._database.run_autocommit(templates.get_template, self._name)
        if row is None:
            detail = f"there is no template {self._name!r}; GET /templates lists them"
            raise NotFound(f"{FIELD}: {detail}", errors=[FieldError(FIELD, detail)])
        if not row["active"]:
            detail = f"the template {self._name!r} is retired; activate one of its versions first"
            raise Conflict(f"{FIELD}: {detail}", errors=[FieldError(FIELD, detail)])
        if self._version and int(self._version) != row["version"]:
            wanted = await self._database.run_autocommit(templates.get, self._name, int(self._version))
            if wanted is None:
                detail = f"{self._name!r} has no version {self._version}; the latest is {row['latest_version']}"
                raise NotFound(f"{FIELD}: {detail}", errors=[FieldError(FIELD, detail)])
            row = wanted
        return Chosen(row["name"], row["version"], row["definition"])


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The one laid over the other: objects key by key, anything else, lists too, as a whole."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _invalid(place: str, detail: str) -> Invalid:
    return Invalid(f"{place}: {detail}", errors=[FieldError(place, detail)])
