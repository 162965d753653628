"""Runs from templates: resolves the version that a request refers to, and applies it to the request."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from backend.core.problems import Conflict, FieldError, Invalid, NotFound
from backend.db import templates
from backend.db.engine import Database
from backend.runtime.team.arguments import TEAM_ARGUMENTS
from backend.services.triggering.request import TriggerRequest

FIELD = "/template"


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """A version of a template that a run is created from."""

    name: str
    version: int
    definition: dict[str, Any]

    def dag_id(self, request: TriggerRequest) -> str:
        """The DAG of the request's run. Raises `Invalid` when the request names another one."""
        dag_id: str = self.definition["dag_id"]
        if request.dag_id not in ("", dag_id):
            detail = f"is {request.dag_id!r}, but the template {self.name!r} is for {dag_id!r}; omit dag_id"
            raise _invalid("/dag_id", detail)
        return dag_id

    def apply(self, request: TriggerRequest) -> TriggerRequest:
        """The request, completed with the template's values where it has none of its own.

        Raises `Invalid` when it names another DAG, or agents although the template has its own.
        """
        dag_id = self.dag_id(request)
        team = {key: self.definition[key] for key in TEAM_ARGUMENTS if self.definition.get(key) is not None}
        for key in team:
            if key in request.input_data:
                raise _invalid(f"/input_data/{key}", f"comes from the template {self.name!r}; omit it")
        return replace(
            request,
            dag_id=dag_id,
            input_data={**_merged(self.definition.get("input_data") or {}, request.input_data), **team},
            model=self.definition.get("model") if request.model is None else request.model,
            budget=self.definition.get("budget") if request.budget is None else request.budget,
        )

    def attributed(self, fault: FieldError) -> FieldError:
        """A fault in a completed request, attributed to the template if the faulty value is the template's."""
        field = fault.pointer.split("/")[2] if fault.pointer.count("/") > 1 else ""
        if field not in TEAM_ARGUMENTS or self.definition.get(field) is None:
            return fault
        place = fault.pointer.removeprefix("/input_data")
        return FieldError(FIELD, f"{self.name}@{self.version} needs a new version: {place} {fault.detail}")

    def system_values(self) -> dict[str, Any]:
        """What the run records about the template."""
        return {"template": self.name, "template_version": self.version}


class TemplateReference:
    """A reference `name` or `name@version`. Its version is looked up once, even for a batch of requests."""

    def __init__(self, database: Database, reference: str) -> None:
        self._database = database
        self._name, _, self._version = reference.partition("@")
        self._lock = asyncio.Lock()
        self._resolved: TemplateVersion | None = None

    async def version(self) -> TemplateVersion:
        """The version. Raises `NotFound`, and `Conflict` if the template is retired."""
        async with self._lock:
            if self._resolved is None:
                self._resolved = await self._look_up()
            return self._resolved

    async def _look_up(self) -> TemplateVersion:
        row = await self._database.run_autocommit(templates.get_template, self._name)
        if row is None:
            detail = f"there is no template {self._name!r}; GET /templates lists them"
            raise NotFound(f"{FIELD}: {detail}", errors=[FieldError(FIELD, detail)])
        if not row["active"]:
            detail = f"the template {self._name!r} is retired; activate one of its versions first"
            raise Conflict(f"{FIELD}: {detail}", errors=[FieldError(FIELD, detail)])
        if self._version and int(self._version) != row["version"]:
            requested = await self._database.run_autocommit(templates.get, self._name, int(self._version))
            if requested is None:
                detail = f"{self._name!r} has no version {self._version}; the latest is {row['latest_version']}"
                raise NotFound(f"{FIELD}: {detail}", errors=[FieldError(FIELD, detail)])
            row = requested
        return TemplateVersion(row["name"], row["version"], row["definition"])


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` merged into `below`: objects key by key, everything else, including lists, as a whole."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _invalid(place: str, detail: str) -> Invalid:
    return Invalid(f"{place}: {detail}", errors=[FieldError(place, detail)])
