"""LangGraph's crons: schedules whose runs are turns, each in a thread of its own or all in one."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from backend.core.problems import Invalid
from backend.core.roles import Principal
from backend.core.turns import TURN
from backend.db.schedules import Order, ScheduleFilter
from backend.services.langgraph.assistants import Assistants
from backend.services.langgraph.conversations import Conversations
from backend.services.langgraph.runs import RunRequest, check_request, given_input, turn_of
from backend.services.scheduling.schedules import Schedule, ScheduleRequest, Schedules

CRON = "cron"
"""The key of a schedule's `extra` that says what its client has asked for."""

ORDERS: Mapping[str, Order] = {
    "cron_id": "id",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "end_time": "end_date",
}
"""The names by which clients sort, and ours. Schedules are in the order of their making for any other."""


class Crons:
    """Makes, changes and finds crons, with the rights that their user has when each run is due."""

    def __init__(self, schedules: Schedules, assistants: Assistants, conversations: Conversations) -> None:
        self._schedules = schedules
        self._assistants = assistants
        self._conversations = conversations

    async def create(
        self,
        who: Principal,
        asked: RunRequest,
        *,
        thread_id: str | None,
        schedule: str,
        timezone: str | None,
        end_time: datetime | None,
        enabled: bool,
    ) -> dict[str, Any]:
        """Make a cron. Raises `NotFound` for an unknown assistant or thread, `Forbidden`, and `Invalid`."""
        wanted, target = await self._wanted(who, asked, thread_id, schedule, timezone, end_time, enabled)
        return cron_json(await self._schedules.create(who, wanted, **target))

    async def get(self, who: Principal, cron_id: str) -> dict[str, Any]:
        """A cron. Raises `NotFound`."""
        return cron_json(await self._schedules.get(who, cron_id))

    async def update(self, who: Principal, cron_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change a cron: fields of a run, `schedule`, `timezone`, `end_time` and `enabled`. Raises as `create`."""
        known = (await self._schedules.get(who, cron_id)).row
        kept = known["extra"].get(CRON) or {}
        asked = RunRequest(**{**kept["request"], **{key: changes[key] for key in _RUN_FIELDS if key in changes}})
        wanted, _ = await self._wanted(
            who,
            asked,
            kept.get("thread_id"),
            changes.get("schedule") or known["timetable"]["crons"][0],
            changes.get("timezone") or known["timezone"],
            changes["end_time"] if "end_time" in changes else known["end_date"],
            changes["enabled"] if changes.get("enabled") is not None else known["enabled"],
        )
        return cron_json(await self._schedules.update(who, cron_id, {**_fields(wanted)}))

    async def delete(self, who: Principal, cron_id: str) -> None:
        """Delete a cron. What its runs have said stays. Raises `NotFound` and `Forbidden`."""
        await self._schedules.get(who, cron_id)  # one that isn't shown isn't there
        await self._schedules.delete(who, cron_id)

    async def search(
        self, who: Principal, wanted: ScheduleFilter, *, sort_by: str | None, descending: bool, limit: int, offset: int
    ) -> list[dict[str, Any]]:
        """Crons that the user sees, in order."""
        order = ORDERS.get(sort_by or "", "created_at")
        found = await self._schedules.search(
            who, wanted, order_by=order, descending=descending, limit=limit, offset=offset
        )
        return [cron_json(one) for one in found]

    async def count(self, who: Principal, wanted: ScheduleFilter) -> int:
        """How many crons `search` would find."""
        return await self._schedules.count(who, wanted)

    async def filter(
        self,
        who: Principal,
        *,
        assistant_id: str | None,
        thread_id: str | None,
        enabled: bool | None,
        metadata: Mapping[str, Any] | None,
    ) -> ScheduleFilter:
        """Which schedules are crons of this kind. Raises `NotFound` for an unknown assistant."""
        cron: dict[str, Any] = {}
        if assistant_id is not None:
            cron["assistant_id"] = (await self._assistants.resolve(who, assistant_id)).id
        if thread_id is not None:
            cron["thread_id"] = thread_id
        return ScheduleFilter(kind="free", enabled=enabled, metadata=metadata or {}, extra={CRON: cron})

    async def _wanted(
        self,
        who: Principal,
        asked: RunRequest,
        thread_id: str | None,
        schedule: str,
        timezone: str | None,
        end_time: datetime | None,
        enabled: bool,
    ) -> tuple[ScheduleRequest, dict[str, str]]:
        check_request(asked)
        assistant = await self._assistants.resolve(who, asked.assistant_id)
        if thread_id is not None:
            await self._conversations.get(who, thread_id, to_change=True)
        turn = turn_of(assistant, asked, conversation=thread_id or "", turn_id="")
        cron = {"request": asdict(asked), "assistant_id": assistant.id, "thread_id": thread_id}
        wanted = ScheduleRequest(
            {"kind": "crons", "crons": [schedule]},
            place="/schedule",
            timezone=timezone or "UTC",
            end_date=end_time,
            enabled=enabled,
            input_data=given_input(asked),
            metadata=asked.metadata or {},
            extra={TURN: turn.to_json(), CRON: cron},
        )
        if assistant.template is not None:
            return wanted, {"template": assistant.template["name"]}
        return wanted, {"dag_id": assistant.graph.dag_id}


_RUN_FIELDS = (
    *("input", "config", "context", "metadata", "interrupt_before", "interrupt_after", "stream_mode"),
    *("stream_subgraphs", "durability", "delete_after"),
)


def _fields(wanted: ScheduleRequest) -> dict[str, Any]:
    names = ("timetable", "place", "timezone", "end_date", "enabled", "input_data", "metadata", "extra")
    return {name: getattr(wanted, name) for name in names}


def cron_json(schedule: Schedule) -> dict[str, Any]:
    """A schedule as clients know a cron."""
    row = schedule.row
    kept = row["extra"].get(CRON)
    if kept is None:
        raise Invalid("The schedule is no cron.")
    request = {key: value for key, value in kept["request"].items() if value not in (None, False)}
    return {
        "cron_id": str(row["id"]),
        "assistant_id": kept["assistant_id"],
        "thread_id": kept["thread_id"],
        "on_run_completed": "delete" if kept["request"].get("delete_after") else "keep",
        "end_time": row["end_date"],
        "schedule": row["timetable"]["crons"][0],
        "timezone": row["timezone"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "payload": {**request, "schedule": row["timetable"]["crons"][0]},
        "user_id": row["user_id"],
        "next_run_date": schedule.next_run_date,
        "metadata": row["metadata"],
        "enabled": row["enabled"],
    }
