"""Starts the runs that schedules are due for.

Airflow decides when a schedule is due, and runs the one task of its DAG, which adds a row to `schedule_firings` and
waits for the outcome. Any replica of the backend claims it and triggers the run as whoever set the schedule would: with
the rights that they have now, their preferences, budget and limits. The firing is the idempotency key, so it leads to
one run, however often it is asked for and whichever process dies in between.

A schedule whose user may no longer do that is stopped, and says why.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backend.core.audit import Entry
from backend.core.problems import Conflict, Problem, TooManyRequests, Unauthorized, Unavailable
from backend.core.roles import Principal, covers
from backend.core.scheduling.dag_ids import SCHEDULE
from backend.db import audit, schedules
from backend.db.engine import Database
from backend.db.rows import Row
from backend.db.schedules import Outcome
from backend.services.background import in_background
from backend.services.identity.accounts import Accounts
from backend.services.identity.service_tokens import ServiceTokens
from backend.services.triggering.request import TriggerRequest
from backend.services.triggering.trigger import Started, Triggers

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
IDLE_POLL_SECONDS = 1.0
AT_ONCE = 8
LEASE = timedelta(seconds=60)
"""When another replica takes over a firing whose process died."""

KEPT = timedelta(days=90)
CLEAN_UP_SECONDS = 600.0


class NoLongerPermitted(Exception):
    """The schedule's user may no longer start its runs; the message says why."""


@dataclass(frozen=True, slots=True)
class _Result:
    outcome: Outcome
    detail: str | None = None
    run: Started | None = None


class Firings:
    """Takes firings, in one process."""

    def __init__(
        self, database: Database, triggers: Triggers, accounts: Accounts, service_tokens: ServiceTokens
    ) -> None:
        self._database = database
        self._triggers = triggers
        self._accounts = accounts
        self._service_tokens = service_tokens
        self._cleaned_up_at = time.monotonic()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take firings until the context ends."""
        async with in_background(self._work()):
            yield

    async def _work(self) -> None:
        while True:
            taken = 0
            try:
                taken = await self.take()
                await self._clean_up()
            except (SQLAlchemyError, OSError) as error:
                log.warning("the runs of schedules have to wait for the database: %s", type(error).__name__)
            except Exception:
                log.exception("the firings of schedules could not be read")
            await asyncio.sleep(POLL_SECONDS if taken else IDLE_POLL_SECONDS)

    async def take(self) -> int:
        """Start the runs that were asked for; returns how many firings there were."""
        claimed = await self._database.run(schedules.claim, limit=AT_ONCE, lease=LEASE)
        await asyncio.gather(*(self._settle(firing) for firing in claimed))
        return len(claimed)

    async def _settle(self, firing: Row) -> None:
        row = await self._database.run(schedules.get, str(firing["schedule_id"]))
        if row is None:  # deleted, and its firings with it
            return
        try:
            result = await self._fire(row, firing)
        except (SQLAlchemyError, OSError) as error:
            log.warning("a firing of schedule %s is taken again later: %s", row["id"], type(error).__name__)
            return
        except Exception:
            log.exception("a run of schedule %s could not be started", row["id"])
            result = _Result("failed", "Something went wrong here; the backend's log has the details.")
        run = result.run
        await self._database.run(
            schedules.settle,
            firing,
            result.outcome,
            result.detail,
            dag_id=run.dag_id if run is not None else None,
            dag_run_id=run.dag_run_id if run is not None else None,
        )

    async def _fire(self, row: Row, firing: Row) -> _Result:
        if not row["enabled"]:
            return _Result("skipped", row["stopped_reason"] or "The schedule is paused.")
        try:
            who = await self._principal(row)
            return _Result("started", run=await self._trigger(who, row, firing))
        except NoLongerPermitted as error:
            await self._database.run(_stop, row, str(error))
            return _Result("failed", f"The schedule was stopped. {error}")
        except (TooManyRequests, Unavailable) as problem:
            return _Result("postponed", problem.detail)
        except Problem as problem:
            return _Result("failed", problem.detail)

    async def _principal(self, row: Row) -> Principal:
        """The schedule's user, with the rights that they have now. Raises `NoLongerPermitted`."""
        if row["service_token"] is not None:
            try:
                who = await self._service_tokens.holder(row["service_token"])
            except Unauthorized as problem:
                raise NoLongerPermitted(f"It was set with a service token. {problem.detail}") from problem
        else:
            account = await self._accounts.get(row["user_id"])
            if account is None or account.mark != row["account"]:
                raise NoLongerPermitted(f"The account {row['user_id']!r}, whose runs these are, is gone or not active.")
            who = Principal(account.username, account.rights, account=account.mark)
        if not covers(who.rights.starts, row["dag_id"]):
            raise NoLongerPermitted(f"{who.username!r}, whose runs these are, may no longer trigger the workflow.")
        return who

    async def _trigger(self, who: Principal, row: Row, firing: Row) -> Started:
        request = TriggerRequest(
            row["dag_id"] if row["template"] is None else "",
            row["input_data"],
            model=row["model"],
            budget=row["budget"],
            template=row["template"],
            logical_date=firing["logical_date"],
            schedule=str(row["id"]),
        )
        key = f"schedule:{row['id']}:{firing['firing']}"
        due = firing["logical_date"].isoformat() if firing["logical_date"] is not None else None
        about: dict[str, Any] = {"id": str(row["id"]), "due": due, "assets": list(firing["assets"]) or None}
        carried = {**row["extra"], SCHEDULE: {name: value for name, value in about.items() if value is not None}}

        async def start(request: TriggerRequest) -> Started:
            async def source() -> tuple[TriggerRequest, dict[str, Any]]:
                return request, dict(carried)

            return await self._triggers.trigger(who, request, key, source=source)

        try:
            return await start(request)
        except Conflict:
            if request.logical_date is None:
                raise
            # A DAG has one run for each logical date, and another schedule, or somebody, may have made that already.
            return await start(replace(request, logical_date=None))

    async def _clean_up(self) -> None:
        if time.monotonic() >= self._cleaned_up_at + CLEAN_UP_SECONDS:
            self._cleaned_up_at = time.monotonic()
            await self._database.run(schedules.prune, after=KEPT, limit=10_000)


def _stop(connection: Connection, row: Row, reason: str) -> None:
    if schedules.stop(connection, str(row["id"]), reason, user_id=row["user_id"]):
        name = row["template"] or row["dag_id"]
        details = {"id": str(row["id"]), "reason": reason}
        audit.add(connection, [Entry("schedule.stop", "refused", row["user_id"], object=name, details=details)])
