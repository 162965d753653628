"""`/workflows/{dag_id}/schedule` and `/templates/{name}/schedule`: schedules without a DAG file."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from backend.api.deps import Reader, Services, Starter
from backend.api.json_bodies import JsonRoute
from backend.api.schemas.schedules import FiringOut, ScheduleBody, ScheduleOut
from backend.api.schemas.templates import NAME
from backend.core.scheduling.dag_ids import dag_of_schedule
from backend.services.scheduling.schedules import Schedule

router = APIRouter(tags=["schedules"], route_class=JsonRoute)

DagId = Annotated[str, Path(min_length=1, max_length=250, pattern=r"^[^\x00]*$")]
TemplateName = Annotated[str, Path(pattern=NAME)]


@router.get("/workflows/{dag_id}/schedule")
async def get_workflow_schedule(dag_id: DagId, who: Reader, services: Services) -> ScheduleOut:
    """The workflow's schedule, when it is due next, and what came of the latest times."""
    return _out(await services.schedules.of(who, "workflow", dag_id))


@router.put("/workflows/{dag_id}/schedule")
async def put_workflow_schedule(dag_id: DagId, body: ScheduleBody, who: Starter, services: Services) -> ScheduleOut:
    """Set the workflow's schedule, in addition to the one that its DAG file may have. Needs the role User or higher.

    The runs are yours from now on: your rights, preferences, budget and limits apply, as if you triggered them.
    `input_data` is checked like a trigger's. A request that changes only `enabled` leaves the runs whose they were.
    """
    return _out(await services.schedules.set(who, "workflow", dag_id, body.request()))


@router.delete("/workflows/{dag_id}/schedule", status_code=204)
async def delete_workflow_schedule(dag_id: DagId, who: Starter, services: Services) -> Response:
    """Delete the workflow's schedule. Runs that it has started go on."""
    await services.schedules.delete_of(who, "workflow", dag_id)
    return Response(status_code=204)


@router.get("/templates/{name}/schedule")
async def get_template_schedule(name: TemplateName, who: Reader, services: Services) -> ScheduleOut:
    """The template's schedule, when it is due next, and what came of the latest times."""
    return _out(await services.schedules.of(who, "template", name))


@router.put("/templates/{name}/schedule")
async def put_template_schedule(
    name: TemplateName, body: ScheduleBody, who: Starter, services: Services
) -> ScheduleOut:
    """Set the template's schedule. Each run is one of the version that is active then. Needs the role User or higher.

    The rules are those of a workflow's schedule.
    """
    return _out(await services.schedules.set(who, "template", name, body.request()))


@router.delete("/templates/{name}/schedule", status_code=204)
async def delete_template_schedule(name: TemplateName, who: Starter, services: Services) -> Response:
    """Delete the template's schedule. Runs that it has started go on."""
    await services.schedules.delete_of(who, "template", name)
    return Response(status_code=204)


def _out(schedule: Schedule) -> ScheduleOut:
    row, whole = schedule.row, schedule.whole
    names = ("dag_id", "template", "timezone", "start_date", "end_date", "catchup", "enabled", "user_id")
    times = ("created_at", "updated_at", "stopped_at", "stopped_reason")
    firings = [
        FiringOut(
            due=one["logical_date"],
            **{name: one[name] for name in ("assets", "requested_at", "outcome", "dag_id", "dag_run_id")},
            detail=one["detail"] if whole else None,
        )
        for one in schedule.firings
    ]
    last = next((one for one in firings if one.outcome is not None), None)
    given: dict[str, Any] = {name: row[name] if whole else None for name in ("input_data", "model", "budget")}
    return ScheduleOut(
        id=str(row["id"]),
        timetable=_timetable(row["timetable"]),
        **{name: row[name] for name in (*names, *times)},
        **given,
        next_run_date=schedule.next_run_date,
        last_error=last.detail if last is not None and last.outcome in ("failed", "postponed") else None,
        latest=firings,
        airflow_dag_id=dag_of_schedule(str(row["id"])),
    )


def _timetable(data: dict[str, Any]) -> Any:
    """The timetable as a client may send it, with the assets' URIs."""
    if "assets" in data:
        return {**data, "assets": [asset["uri"] for asset in data["assets"]]}
    return data
