"""Streams task logs from Airflow, with the caller's own rights; no log is ever held in memory as a whole.

Airflow can return a log only from its beginning. To follow a log that grows, the service reads it again every one to
five seconds, skips the lines that the client already has, and passes on the rest. Each reading therefore costs Airflow
as much as the first, which is why a user may have only `READINGS_PER_USER` in progress.

What refuses the request is raised before the response begins. After that, an unreachable Airflow is waited for, for
about a minute; a client whose log breaks off repeats the request with `after`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from backend.clients.airflow import AirflowClient, AirflowRefused, AirflowUnavailable
from backend.core.problems import NotFound, TooManyRequests
from backend.core.roles import Principal
from backend.core.states import TERMINAL_RUN_STATES, TERMINAL_TASK_STATES
from backend.db.rows import Row
from backend.services.identity.authenticator import Authenticator
from backend.services.recording.airflow_json import task_state
from backend.services.runs.log_lines import TaskLines
from backend.services.runs.snapshot import NOT_FOUND
from backend.services.runs.status import Status, may_see, no_such_task
from backend.services.triggering.catalog import refusal, unreachable

HEARTBEAT = 15.0
"""Seconds without a line after which an empty page keeps the connection of a client that follows."""

PAUSE = 1.0
"""Seconds between two readings of a log that grows; up to five times as long while it does not."""

READINGS_PER_USER = 8
"""Readings from Airflow that one user may have in progress, so that a slow client delays only its own user."""

TURN_TIMEOUT = 10.0
"""Seconds to wait for one of them."""

_MAX_FAILURES = 12
"""Readings in a row that may fail before a log that is being sent breaks off: about a minute."""

# In any other state the try has finished: a task that is cleared or waits for a retry gets another try number.
_ACTIVE = frozenset({"scheduled", "queued", "running", "deferred", "restarting", "up_for_reschedule"})


@dataclass(frozen=True, slots=True)
class TaskLog:
    """The log of one try. `lines` yields pages of lines, each a JSON object; an empty page is a heartbeat."""

    try_number: int
    lines: AsyncGenerator[list[bytes]]


@dataclass(frozen=True, slots=True)
class _Try:
    who: Principal
    dag_id: str
    dag_run_id: str
    task_id: str
    map_index: int
    token: str | None
    """The token of calls to Airflow; None for the service account."""
    run: Row
    number: int = 1


class TaskLogs:
    """Reads task logs. The caller must be allowed to see the run here and its logs in Airflow."""

    def __init__(self, airflow: AirflowClient, status: Status, authenticator: Authenticator) -> None:
        self._airflow = airflow
        self._authenticator = authenticator
        self._status = status
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def open(
        self,
        who: Principal,
        dag_id: str,
        dag_run_id: str,
        task_id: str,
        *,
        map_index: int = -1,
        try_number: int | None = None,
        follow: bool = False,
        after: int = 0,
    ) -> TaskLog:
        """The log of a try, by default the latest, without its first `after` lines; with `follow` until the try ends.

        Raises `NotFound` for an unknown run, task, instance or try, `Forbidden`, `Unavailable` when Airflow is
        unreachable, and `TooManyRequests` when the user reads too many logs.
        """
        row = await self._status.row(who, dag_id, dag_run_id)
        token = who.token_for(own=who.owns(row["user_id"], row["triggered_by"]))
        target = _Try(who, dag_id, dag_run_id, task_id, map_index, token, row, try_number or 1)
        try:
            instance = await self._instance(target)
        except AirflowUnavailable as error:
            raise unreachable() from error
        tries, state = int(instance["try_number"]), instance["state"]
        if try_number is None and tries:
            target = replace(target, number=tries)
        if target.number > max(tries, 1):
            raise NotFound(f"The task {task_id!r} has no try {target.number}; its latest is {tries}.")
        will_start = follow and state not in TERMINAL_TASK_STATES and row["state"] not in TERMINAL_RUN_STATES
        if not tries and not will_start:
            raise NotFound(f"The task {task_id!r} has no log: it has not started{f' ({state})' if state else ''}.")
        lines = self._lines(target, after, follow=follow) if tries else self._lines_once_started(target, after)
        await anext(lines)  # raises what refuses the request, before the response begins
        return TaskLog(target.number, lines)

    async def _lines(self, target: _Try, after: int, *, follow: bool) -> AsyncGenerator[list[bytes]]:
        """Pages of lines, preceded by an empty one as soon as Airflow returns the log."""
        position, pause, sent_at = after, PAUSE, time.monotonic()
        started, failures, readings, final_readings = False, 0, 0, 0
        while True:
            known = position
            try:
                finished = not follow or await self._has_finished(target)
                async with (
                    self._turn(target.who),
                    self._airflow.task_log(
                        target.dag_id, target.dag_run_id, target.task_id, target.map_index, target.number,
                        token=target.token,
                    ) as pieces,
                ):  # fmt: skip
                    if not started:
                        started = True
                        yield []
                    task_lines, index = TaskLines(pieces), 0
                    async for lines in task_lines:
                        if new := lines[max(position - index, 0) :]:
                            position = index + len(lines)
                            yield new
                        index += len(lines)
            except AirflowRefused as refused:
                raise refusal(refused, f"Airflow has no try {target.number} of {target.task_id!r}.") from refused
            except AirflowUnavailable as error:
                failures += 1
                if not started or failures > _MAX_FAILURES:
                    raise unreachable() from error
            else:
                failures = 0
                readings += 1
                final_readings += finished
                # The last lines of a try are written after the state in which it ends.
                if finished and (not follow or readings == 1 or final_readings == 2):
                    if not position and task_lines.sources:
                        yield task_lines.sources
                    return
            now = time.monotonic()
            if position > known:
                pause, sent_at = PAUSE, now
            else:
                pause = min(pause * 1.5, 5 * PAUSE)
                if now - sent_at > HEARTBEAT:
                    sent_at = now
                    yield []
            await self._sleep(target, pause)

    async def _lines_once_started(self, target: _Try, after: int) -> AsyncGenerator[list[bytes]]:
        """The same for a try that has not started; ends without lines if it never starts."""
        yield []
        sent_at = time.monotonic()
        while True:
            await self._sleep(target, PAUSE)
            try:
                instance = await self._instance(target)
            except AirflowUnavailable:
                continue
            if instance["try_number"] >= target.number:
                break
            row = await self._status.row(target.who, target.dag_id, target.dag_run_id)
            if instance["state"] in TERMINAL_TASK_STATES or row["state"] in TERMINAL_RUN_STATES:
                return
            if time.monotonic() - sent_at > HEARTBEAT:
                sent_at = time.monotonic()
                yield []
        async for lines in self._lines(target, after, follow=True):
            yield lines

    @asynccontextmanager
    async def _turn(self, who: Principal) -> AsyncIterator[None]:
        turn = self._turns.setdefault(who.username, asyncio.Semaphore(READINGS_PER_USER))
        try:
            async with asyncio.timeout(TURN_TIMEOUT):
                await turn.acquire()
        except TimeoutError:
            detail = f"{READINGS_PER_USER} logs are being read for you; read them to their end, or try again."
            raise TooManyRequests(detail, retry_after=5) from None
        try:
            yield
        finally:
            turn.release()

    async def _has_finished(self, target: _Try) -> bool:
        instance = await self._instance(target)
        return instance["try_number"] != target.number or instance["state"] not in _ACTIVE

    async def _instance(self, target: _Try) -> dict[str, Any]:
        try:
            return await self._airflow.task_instance(
                target.dag_id, target.dag_run_id, target.task_id, target.map_index, token=target.token
            )
        except AirflowRefused as refused:
            if refused.status != 404:
                raise refusal(refused, "") from refused
            found = await self._airflow.task_instances([(target.dag_id, target.dag_run_id)])
            if not found:
                raise NotFound("Airflow no longer has this run or its logs.") from refused
            tasks = [task_state(task) for task in found]
            raise no_such_task(target.task_id, target.map_index, tasks) from refused

    async def _sleep(self, target: _Try, seconds: float) -> None:
        """Wait. Raises what ends the user's session, or takes the run from their sight, in the meantime."""
        who = await self._authenticator.recheck(target.who)
        if not may_see(who, target.run):
            raise NotFound(NOT_FOUND)
        await asyncio.sleep(seconds)
