"""Schedules: of workflows and templates, one each, and free ones, of which a workflow may have any number.

A schedule is a row. When its runs are due is decided by Airflow, in a DAG that is made of the row
(`airflow/plugins/visual_ai_schedules.py`); the runs are started by `firings.py`, as triggers of whoever set it. Setting
one is therefore checked like a trigger, and permitted to those who may trigger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from backend.core.errors.input_error import InputError
from backend.core.jsonable import dumps
from backend.core.problems import Conflict, FieldError, Forbidden, Invalid, NotFound
from backend.core.roles import Principal, covers
from backend.core.scheduling.dag_ids import SCHEDULE
from backend.db import audit, schedules, templates
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.schedules import Kind, Order, ScheduleFilter
from backend.models.resolve import check_name
from backend.services.scheduling.assets import Assets
from backend.services.scheduling.reparse import Reparse
from backend.services.scheduling.timetables import Timetable, check_span, check_timetable, check_zone
from backend.services.triggering.request import TriggerRequest
from backend.services.triggering.trigger import Triggers

MAX_BYTES = 256 * 1024
"""The size limit of a schedule's input as JSON: it is sent anew with every run."""

MAX_PER_USER = 500
"""Schedules of one user. Each is a DAG in Airflow, and all are in one file."""

LATEST = 10
"""Firings that are shown with a schedule."""

RESERVED = frozenset({"execution_id", "user_id", "triggered_by", "idempotency_key", "template", SCHEDULE})
"""Keys of a run's signed part that a schedule's `extra` can't set."""

_TIMING = ("timetable", "timezone", "start_date", "end_date", "catchup")
_CONTENT = (*_TIMING, "input_data", "model", "budget", "metadata", "extra")


@dataclass(frozen=True, slots=True)
class ScheduleRequest:
    """What a schedule is to be. `place` is where the timetable stands in the client's request, as a JSON pointer.

    `metadata` is the client's own. `extra` goes into the signed part of each run's conf.
    """

    timetable: Mapping[str, Any]
    place: str = "/timetable"
    timezone: str = "UTC"
    start_date: datetime | None = None
    end_date: datetime | None = None
    catchup: bool = False
    enabled: bool = True
    input_data: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    budget: dict[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule, when it is due next, and its latest firings. `whole` says whether the user sees its input."""

    row: Row
    next_run_date: datetime | None
    firings: Sequence[Row]
    whole: bool


class Schedules:
    """Sets, shows and deletes schedules. A user changes their own; who may stop everyone's runs of a DAG, all of it."""

    def __init__(self, database: Database, triggers: Triggers, assets: Assets, reparse: Reparse) -> None:
        self._database = database
        self._triggers = triggers
        self._assets = assets
        self._reparse = reparse

    # Of a workflow, and of a template

    async def of(self, who: Principal, kind: Kind, name: str) -> Schedule:
        """The schedule of a workflow or a template. Raises `NotFound`."""
        await self._check_readable(who, kind, name)
        return await self._view(who, _found(await self._database.run(schedules.find_one, kind, name), kind, name))

    async def set(self, who: Principal, kind: Kind, name: str, wanted: ScheduleRequest) -> Schedule:
        """Set the schedule of a workflow or a template: its runs are from now on for `who`.

        A request that changes nothing but `enabled` leaves it whose it was. Raises what `create` raises.
        """
        await self._check_readable(who, kind, name, starting=True)
        row = await self._database.run(schedules.find_one, kind, name)
        if row is not None:
            return await self._change(who, row, wanted)
        dag_id, template = ("", name) if kind == "template" else (name, None)
        return await self._add(who, kind, dag_id, template, wanted)

    async def delete_of(self, who: Principal, kind: Kind, name: str) -> None:
        """Delete the schedule of a workflow or a template. Raises `NotFound` and `Forbidden`."""
        await self._check_readable(who, kind, name, starting=True)
        row = _found(await self._database.run(schedules.find_one, kind, name), kind, name)
        await self.delete(who, str(row["id"]))

    # Free ones

    async def create(
        self, who: Principal, wanted: ScheduleRequest, *, dag_id: str = "", template: str | None = None
    ) -> Schedule:
        """Create one more schedule of a workflow or a template (`name` or `name@version`).

        Raises what a trigger of it would raise, and `Invalid` that names the field of what else is wrong.
        """
        return await self._add(who, "free", dag_id, template, wanted)

    async def get(self, who: Principal, schedule_id: str) -> Schedule:
        """A schedule that the user may see whole. Raises `NotFound`."""
        return await self._view(who, _visible(who, await self._database.run(schedules.get, schedule_id)))

    async def update(self, who: Principal, schedule_id: str, changes: Mapping[str, Any]) -> Schedule:
        """Change fields of `ScheduleRequest`. Raises `NotFound`, `Forbidden` and what `create` raises."""
        row = _visible(who, await self._database.run(schedules.get, schedule_id))
        return await self._change(who, row, ScheduleRequest(**{**_request_fields(row), **changes}))

    async def delete(self, who: Principal, schedule_id: str) -> None:
        """Delete a schedule. Raises `NotFound` and `Forbidden`."""

        def delete(connection: Connection) -> None:
            row = schedules.lock(connection, schedule_id)
            if row is None:
                raise NotFound("There is no such schedule.")
            _check_may_change(who, row)
            schedules.remove(connection, schedule_id)
            owner = row["user_id"] if row["user_id"] != who.username else None
            audit.record(connection, who, "schedule.delete", _name(row), id=schedule_id, owner=owner)

        await self._database.run(delete)
        self._reparse.soon()

    async def search(
        self,
        who: Principal,
        wanted: ScheduleFilter,
        *,
        order_by: Order = "created_at",
        descending: bool = True,
        limit: int = 10,
        offset: int = 0,
    ) -> list[Schedule]:
        """The schedules that fit, of those that the user may see whole, without their firings."""
        rows = await self._database.run(
            schedules.search,
            wanted,
            who.visible,
            order_by=order_by,
            descending=descending,
            limit=limit,
            offset=offset,
        )
        return [Schedule(row, next_run_date(row), (), True) for row in rows]

    async def count(self, who: Principal, wanted: ScheduleFilter) -> int:
        """How many schedules `search` would find."""
        return await self._database.run(schedules.count, wanted, who.visible)

    # What they share

    async def _check_readable(self, who: Principal, kind: Kind, name: str, *, starting: bool = False) -> None:
        """Whether the user may know the workflow or template. Raises `NotFound` and, if they may not start it,
        `Forbidden`."""
        dag_id: str | None = name
        if kind == "template":
            template = await self._database.run(templates.get_template, name)
            dag_id = template["dag_id"] if template is not None else None
        if dag_id is not None and starting and covers(who.rights.starts, dag_id):
            return
        if dag_id is None or not covers(who.rights.reads, dag_id):
            raise NotFound(f"There is no {kind} {name!r}.")
        if starting:
            raise Forbidden(f"You may not trigger the workflow {dag_id!r}.")

    async def _view(self, who: Principal, row: Row) -> Schedule:
        latest = await self._database.run(schedules.latest, str(row["id"]), limit=LATEST)
        return Schedule(row, next_run_date(row), latest, who.may_see(row["dag_id"], row["user_id"], None))

    async def _add(
        self, who: Principal, kind: Kind, dag_id: str, template: str | None, wanted: ScheduleRequest
    ) -> Schedule:
        values = await self._checked(who, wanted, None)
        dag_id = await self._check_target(who, dag_id, template, wanted)
        values |= {"kind": kind, "dag_id": dag_id, "template": template, "enabled": wanted.enabled, **_owner(who)}

        def add(connection: Connection) -> Row:
            mine = schedules.count(connection, ScheduleFilter(user_id=who.username), who.visible)
            if mine >= MAX_PER_USER:
                raise Conflict(f"You have {mine} schedules, and may have {MAX_PER_USER}; delete one first.")
            row = schedules.add(connection, values)
            self._record(connection, who, row)
            return row

        try:
            row = await self._database.run(add)
        except IntegrityError as error:
            raise Conflict("Someone else has set a schedule at this moment; read it and try again.") from error
        self._reparse.soon()
        return await self._view(who, row)

    async def _change(self, who: Principal, row: Row, wanted: ScheduleRequest) -> Schedule:
        _check_may_change(who, row)
        values = await self._checked(who, wanted, row)
        same = all(values[name] == row[name] for name in _CONTENT)
        values |= {"enabled": wanted.enabled, "stopped_at": None, "stopped_reason": None}
        if not (same and row["enabled"] >= wanted.enabled):
            values["dag_id"] = await self._check_target(who, row["dag_id"], row["template"], wanted)
        if not same:
            values |= _owner(who)

        def change(connection: Connection) -> Row:
            now = schedules.lock(connection, str(row["id"]))
            if now is None or now["updated_at"] != row["updated_at"]:
                raise Conflict("Someone else changed this schedule first; read it and try again.")
            changed = schedules.change(connection, str(row["id"]), values)
            self._record(connection, who, changed)
            return changed

        changed = await self._database.run(change)
        self._reparse.soon()
        return await self._view(who, changed)

    @staticmethod
    def _record(connection: Connection, who: Principal, row: Row) -> None:
        owner = row["user_id"] if row["user_id"] != who.username else None
        given = {"id": str(row["id"]), "timetable": row["timetable"], "enabled": row["enabled"], "owner": owner}
        audit.record(connection, who, "schedule.set", _name(row), **given)

    async def _checked(self, who: Principal, wanted: ScheduleRequest, row: Row | None) -> dict[str, Any]:
        """The columns of what is wanted. Raises `Invalid`."""
        now = datetime.now(UTC)
        check_zone(wanted.timezone)
        timetable = check_timetable(wanted.timetable, wanted.place)
        if "assets" in timetable:
            known = row["timetable"].get("assets", []) if row is not None else []
            timetable["assets"] = await self._assets.find(who, timetable["assets"], known, wanted.place)
        if clashing := sorted(RESERVED & wanted.extra.keys()):
            raise ValueError(f"a schedule's extra can't have {clashing}")
        size = len(dumps(wanted.input_data).encode())
        if size > MAX_BYTES:
            detail = f"has {size} bytes; a schedule's may have {MAX_BYTES}: upload pictures with POST /images"
            raise Invalid(f"/input_data: {detail}", errors=[FieldError("/input_data", detail)])
        if wanted.model is not None:
            try:
                check_name(wanted.model)
            except InputError as error:
                raise Invalid(f"/model: {error.message}", errors=[FieldError("/model", error.message)]) from None
        values: dict[str, Any] = {
            "timetable": timetable,
            "timezone": wanted.timezone,
            "start_date": wanted.start_date,
            "end_date": wanted.end_date,
            "catchup": wanted.catchup,
            "input_data": wanted.input_data,
            "model": wanted.model,
            "budget": wanted.budget,
            "metadata": dict(wanted.metadata),
            "extra": dict(wanted.extra),
        }
        goes_on = row is not None and row["enabled"] and all(values[name] == row[name] for name in _TIMING)
        if row is not None and (goes_on or not wanted.enabled):
            return values | {"starts_from": row["starts_from"]}
        if wanted.catchup:
            starts_from = wanted.start_date or (row["created_at"] if row is not None else now)
        else:
            starts_from = max(wanted.start_date or now, now)
        forecast = Timetable(timetable, wanted.timezone, starts_from, wanted.end_date)
        if wanted.enabled:
            check_span(forecast, catchup=wanted.catchup, now=now)
        return values | {"starts_from": starts_from}

    async def _check_target(self, who: Principal, dag_id: str, template: str | None, wanted: ScheduleRequest) -> str:
        """The DAG of the runs, after the checks of a trigger."""
        request = TriggerRequest(
            dag_id if template is None else "",
            wanted.input_data,
            model=wanted.model,
            budget=wanted.budget,
            template=template,
        )
        return await self._triggers.check(who, request)


def next_run_date(row: Row) -> datetime | None:
    """When a schedule is due next, by its timetable; None if it isn't enabled, or only assets decide."""
    if not row["enabled"]:
        return None
    timetable = Timetable(row["timetable"], row["timezone"], row["starts_from"], row["end_date"])
    return timetable.next(datetime.now(UTC))


def _request_fields(row: Row) -> dict[str, Any]:
    fields = {name: row[name] for name in (*_CONTENT, "enabled")}
    timetable = dict(fields["timetable"])
    if "assets" in timetable:
        timetable["assets"] = [asset["uri"] for asset in timetable["assets"]]
    if "dates" in timetable:
        timetable["dates"] = [datetime.fromisoformat(one) for one in timetable["dates"]]
    return {**fields, "timetable": timetable}


def _owner(who: Principal) -> dict[str, Any]:
    token = who.service_token
    return {"user_id": who.username, "account": who.account, "service_token": token.prefix if token else None}


def _name(row: Row) -> str:
    return str(row["template"] or row["dag_id"])


def _check_may_change(who: Principal, row: Row) -> None:
    if row["user_id"] != who.username and not covers(who.rights.stops, row["dag_id"]):
        raise Forbidden(
            f"This schedule is {row['user_id']}'s; only they, and who may stop everyone's runs, can change it."
        )


def _visible(who: Principal, row: Row | None) -> Row:
    if row is None or not who.may_see(row["dag_id"], row["user_id"], None):
        raise NotFound("There is no such schedule.")
    return row


def _found(row: Row | None, kind: Kind, name: str) -> Row:
    if row is None:
        raise NotFound(f"The {kind} {name!r} has no schedule; PUT one.")
    return row
