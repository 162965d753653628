"""`/templates`: workflows that are data: created, versioned and run without a new DAG file."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from backend.api.deps import Author, Name, Reader, Services
from backend.api.json_bodies import JsonRoute
from backend.api.schemas.templates import (
    NAME,
    TemplateBody,
    TemplateList,
    TemplateOut,
    TemplateSummary,
    VersionBody,
    VersionList,
    VersionOut,
    VersionSummary,
    definition_schema,
)

router = APIRouter(prefix="/templates", tags=["templates"], route_class=JsonRoute)

TemplateName = Annotated[str, Path(pattern=NAME)]
Version = Annotated[int, Path(ge=1, le=2**31 - 1)]
Limit = Annotated[int, Query(ge=1, le=200)]


@router.get("")
async def list_templates(
    who: Reader,
    services: Services,
    dag_id: Name = None,
    active: Annotated[bool | None, Query(description="`true`: without retired templates; `false`: only those")] = None,
    q: Annotated[
        str | None,
        Query(min_length=1, max_length=100, pattern=r"^[^\x00]*$", description="Part of the name or description"),
    ] = None,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(pattern=NAME)] = None,
) -> TemplateList:
    """Templates by name. Pass `next_cursor` as `cursor` for the next page."""
    page = await services.templates.list_page(who, dag_id=dag_id, active=active, q=q, cursor=cursor, limit=limit)
    return TemplateList(
        templates=[TemplateSummary.model_validate(dict(row)) for row in page.rows],
        next_cursor=page.next_cursor,
    )


@router.post("", status_code=201)
async def create_template(body: TemplateBody, who: Author, services: Services, response: Response) -> TemplateOut:
    """Create a template; its version 1 is active at once. Needs the role User or higher.

    The definition is checked like the operators' arguments when a DAG is parsed, and against the DAG's parameters.
    Everyone can read it, so a definition that contains a secret is refused.
    """
    row = await services.templates.create(who, body.name, body.definition.as_given())
    response.headers["Location"] = f"/templates/{body.name}/versions/1"
    return TemplateOut.model_validate(dict(row))


# Before the route of a single template, which can't have that name.
@router.get("/schema")
async def get_schema(_: Reader) -> dict[str, Any]:
    """The JSON Schema of a definition, with a description of each key, for editors."""
    return definition_schema()


@router.get("/{name}")
async def get_template(name: TemplateName, who: Reader, services: Services) -> TemplateOut:
    """The template's active version, or the latest if it is retired."""
    return TemplateOut.model_validate(dict(await services.templates.get(who, name)))


@router.post("/{name}/retire")
async def retire_template(name: TemplateName, who: Author, services: Services) -> TemplateOut:
    """Permit no new runs of any version until one is activated again. Runs in progress continue.

    A User may retire their own templates, Op and Admin all. Retiring a retired template changes nothing.
    """
    return TemplateOut.model_validate(dict(await services.templates.retire(who, name)))


@router.get("/{name}/versions")
async def list_versions(
    name: TemplateName,
    who: Reader,
    services: Services,
    limit: Limit = 50,
    cursor: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> VersionList:
    """A template's versions, newest first."""
    page = await services.templates.versions(who, name, cursor=cursor, limit=limit)
    return VersionList(
        versions=[VersionSummary.model_validate(dict(row)) for row in page.rows], next_cursor=page.next_cursor
    )


@router.post("/{name}/versions", status_code=201)
async def create_version(
    name: TemplateName, body: VersionBody, who: Author, services: Services, response: Response
) -> VersionOut:
    """Create the next version. The active version stays active, unless `activate` is true.

    Versions never change: this is how a template is edited. With `base_version` the request fails with 409 if someone
    else has created a later version. A User may change their own templates, Op and Admin all.
    """
    row = await services.templates.add_version(
        who, name, body.definition.as_given(), base_version=body.base_version, activate=body.activate
    )
    response.headers["Location"] = f"/templates/{name}/versions/{row['version']}"
    return VersionOut.model_validate(dict(row))


@router.get("/{name}/versions/{version}")
async def get_version(name: TemplateName, version: Version, who: Reader, services: Services) -> VersionOut:
    """One version."""
    return VersionOut.model_validate(dict(await services.templates.version(who, name, version)))


@router.post("/{name}/versions/{version}/activate")
async def activate_version(name: TemplateName, version: Version, who: Author, services: Services) -> TemplateOut:
    """Make a version the active one. It may be an earlier version, or belong to a retired template.

    A User may change their own templates, Op and Admin all.
    """
    return TemplateOut.model_validate(dict(await services.templates.activate(who, name, version)))
