"""`/templates`: workflows that are data, made, versioned and run without a new DAG file."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from backend.api.deps import Author, Name, Reader, Services
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

router = APIRouter(prefix="/templates", tags=["templates"])

TemplateName = Annotated[str, Path(pattern=NAME)]
Version = Annotated[int, Path(ge=1, le=2**31 - 1)]
Limit = Annotated[int, Query(ge=1, le=200)]


@router.get("")
async def list_templates(
    _: Reader,
    services: Services,
    dag_id: Name = None,
    active: Annotated[bool | None, Query(description="`true`: without retired ones; `false`: those only")] = None,
    q: Annotated[
        str | None,
        Query(min_length=1, max_length=100, pattern=r"^[^\x00]*$", description="A part of the name or description"),
    ] = None,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(pattern=NAME)] = None,
) -> TemplateList:
    """Templates by name. Give `next_cursor` as `cursor` for the next page."""
    page = await services.templates.list_page(dag_id=dag_id, active=active, q=q, cursor=cursor, limit=limit)
    return TemplateList(
        templates=[TemplateSummary.model_validate(dict(row)) for row in page.rows],
        next_cursor=page.next_cursor,
    )


@router.post("", status_code=201)
async def create_template(body: TemplateBody, who: Author, services: Services, response: Response) -> TemplateOut:
    """Make a template; version 1 is active at once. Needs the role User or higher.

    The definition is checked as the operators check their arguments when a DAG is parsed, and against the DAG's
    parameters. Everybody can read it: a definition with a secret is refused.
    """
    row = await services.templates.create(who, body.name, body.definition.as_given())
    response.headers["Location"] = f"/templates/{body.name}/versions/1"
    return TemplateOut.model_validate(dict(row))


# Before the route of a template, which can't have that name.
@router.get("/schema")
async def get_schema(_: Reader) -> dict[str, Any]:
    """The JSON Schema of a definition, each key described, for editors."""
    return definition_schema()


@router.get("/{name}")
async def get_template(name: TemplateName, _: Reader, services: Services) -> TemplateOut:
    """The active version or, of a retired template, the latest."""
    return TemplateOut.model_validate(dict(await services.templates.get(name)))


@router.post("/{name}/retire")
async def retire_template(name: TemplateName, who: Author, services: Services) -> TemplateOut:
    """Let nobody start runs of it any more, of no version, until one is activated again. Runs that were started go on.

    A User may retire their own templates, Op and Admin all. Retiring a retired one changes nothing.
    """
    return TemplateOut.model_validate(dict(await services.templates.retire(who, name)))


@router.get("/{name}/versions")
async def list_versions(
    name: TemplateName,
    _: Reader,
    services: Services,
    limit: Limit = 50,
    cursor: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> VersionList:
    """A template's history, newest version first."""
    page = await services.templates.versions(name, cursor=cursor, limit=limit)
    return VersionList(
        versions=[VersionSummary.model_validate(dict(row)) for row in page.rows], next_cursor=page.next_cursor
    )


@router.post("/{name}/versions", status_code=201)
async def create_version(
    name: TemplateName, body: VersionBody, who: Author, services: Services, response: Response
) -> VersionOut:
    """Make the next version; the active one stays active unless `activate` says otherwise.

    Versions never change: this is how a template is edited. With `base_version` nobody's version is overlooked: 409
    when there is a later one. A User may do so with their own templates, Op and Admin with all.
    """
    row = await services.templates.add_version(
        who, name, body.definition.as_given(), base_version=body.base_version, activate=body.activate
    )
    response.headers["Location"] = f"/templates/{name}/versions/{row['version']}"
    return VersionOut.model_validate(dict(row))


@router.get("/{name}/versions/{version}")
async def get_version(name: TemplateName, version: Version, _: Reader, services: Services) -> VersionOut:
    """One version."""
    return VersionOut.model_validate(dict(await services.templates.version(name, version)))


@router.post("/{name}/versions/{version}/activate")
async def activate_version(name: TemplateName, version: Version, who: Author, services: Services) -> TemplateOut:
    """Make a version the one that the name stands for, an earlier one too, and also of a retired template.

    A User may do so with their own templates, Op and Admin with all.
    """
    return TemplateOut.model_validate(dict(await services.templates.activate(who, name, version)))
