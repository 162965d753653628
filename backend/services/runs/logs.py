"""Logs of tasks, handed on from Airflow as they are read: no log is ever held as a whole."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

from backend.clients.airflow import AirflowClient, AirflowRefused, AirflowUnavailable
from backend.core.problems import NotFound, TooManyRequests, Unauthorized
from backend.core.roles import Principal
from backend.core.states import TERMINAL_RUN_STATES, TERMINAL_TASK_STATES
from backend.services.recording.airflow_json import task_state
from backend.services.runs.log_lines import TaskLines
from backend.services.runs.status import Status, no_such_task
from backend.services.triggering.catalog import refusal, unreachable

HEARTBEAT = 15.0
"""After so many seconds without a line something else keeps a follower's connection."""

PAUSE = 1.0
"""So many seconds pass between two readings of a log that grows; up to five times as many when it doesn't."""

AT_ONCE = 8
"""So many logs are read from Airflow at once on behalf of one user: who reads slowly keeps only themselves waiting."""

TURN_TIMEOUT = 10.0
"""Seconds to wait for one's turn."""

_PATIENCE = 12
"""So many readings may fail in a row before a log that has begun breaks off: about a minute."""

# In any other state the try is over: a task that is cleared or waits to be tried again gets another number.
_ACTIVE = frozenset({"scheduled", "queued", "running", "deferred", "restarting", "up_for_reschedule"})


@dataclass(frozen=True, slots=True)
class TaskLog:
    """The log of one try. Its lines, which are JSON objects, come some at a time; none only say that the connection
    lives."""

    try_number: int
    lines: AsyncIterator[list[bytes]]


@dataclass(frozen=True, slots=True)
class _Try:
    who: Principal
    dag_id: str
    dag_run_id: str
    task_id: str
    map_index: int
    number: int = 1


class TaskLogs:
    """Reads logs from Airflow with the rights of whoever asks, who must also be allowed to see the run.

    Airflow gives a log only from its beginning. A follower is served by reading it again, every one to five seconds,
    and handing on what is new: each reading costs Airflow as much as the first.
    """

    def __init__(self, airflow: AirflowClient, status: Status) -> None:
        self._airflow = airflow
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
        """The lines behind the first `after` of a try's log, by default the latest try's; with `follow` until it ends.

        Raises `NotFound` for a run, task, instance or try that is not there, `Unavailable` when Airflow is out of
        reach, `TooManyRequests` when the user reads too many, `Forbidden`. Once that is past, an Airflow that goes away
        is waited for, about a minute.
        """
        row = await self._status.row(who, dag_id, dag_run_id)
        wanted = _Try(who, dag_id, dag_run_id, task_id, map_index, try_number or 1)
        try:
            instance = await self._instance(wanted)
        except AirflowUnavailable as error:
            raise unreachable() from error
        tries, state = int(instance["try_number"]), instance["state"]
        if try_number is None and tries:
            wanted = replace(wanted, number=tries)
        if wanted.number > max(tries, 1):
            raise NotFound(f"The task {task_id!r} has no try {wanted.number}; its latest is {tries}.")
        will_begin = follow and state not in TERMINAL_TASK_STATES and row["state"] not in TERMINAL_RUN_STATES
        if not tries and not will_begin:
            raise NotFound(f"The task {task_id!r} has no log: it has not begun{f' ({state})' if state else ''}.")
        lines = self._lines(wanted, after, follow=follow) if tries else self._lines_to_come(wanted, after)
        await anext(lines)  # what is to be refused, is before the answer begins
        return TaskLog(wanted.number, lines)

    async def _lines(self, wanted: _Try, after: int, *, follow: bool) -> AsyncIterator[list[bytes]]:
        """The lines, and in front of them none as soon as Airflow gives the log."""
        position, pause, told = after, PAUSE, time.monotonic()
        begun, failures, readings, last_readings = False, 0, 0, 0
        while True:
            known = position
            try:
                over = not follow or await self._is_over(wanted)
                async with (
                    self._turn(wanted.who),
                    self._airflow.task_log(
                        wanted.dag_id, wanted.dag_run_id, wanted.task_id, wanted.map_index, wanted.number,
                        token=wanted.who.airflow_token,
                    ) as pieces,
                ):  # fmt: skip
                    if not begun:
                        begun = True
                        yield []
                    task_lines, index = TaskLines(pieces), 0
                    async for lines in task_lines:
                        if fresh := lines[max(position - index, 0) :]:
                            position = index + len(lines)
                            yield fresh
                        index += len(lines)
            except AirflowRefused as refused:
                raise refusal(refused, f"Airflow has no try {wanted.number} of {wanted.task_id!r}.") from refused
            except AirflowUnavailable as error:
                failures += 1
                if not begun or failures > _PATIENCE:
                    raise unreachable() from error
            else:
                failures = 0
                readings += 1
                last_readings += over
                # A try's last lines are written after the state that says it is over.
                if over and (not follow or readings == 1 or last_readings == 2):
                    if not position and task_lines.sources:
                        yield task_lines.sources
                    return
            now = time.monotonic()
            if position > known:
                pause, told = PAUSE, now
            else:
                pause = min(pause * 1.5, 5 * PAUSE)
                if now - told > HEARTBEAT:
                    told = now
                    yield []
            await self._sleep(wanted, pause)

    async def _lines_to_come(self, wanted: _Try, after: int) -> AsyncIterator[list[bytes]]:
        """The same of a task that is yet to begin; nothing if it never does."""
        yield []
        told = time.monotonic()
        while True:
            await self._sleep(wanted, PAUSE)
            try:
                instance = await self._instance(wanted)
            except AirflowUnavailable:
                continue
            if instance["try_number"] >= wanted.number:
                break
            row = await self._status.row(wanted.who, wanted.dag_id, wanted.dag_run_id)
            if instance["state"] in TERMINAL_TASK_STATES or row["state"] in TERMINAL_RUN_STATES:
                return
            if time.monotonic() - told > HEARTBEAT:
                told = time.monotonic()
                yield []
        async for lines in self._lines(wanted, after, follow=True):
            yield lines

    @asynccontextmanager
    async def _turn(self, who: Principal) -> AsyncIterator[None]:
        turn = self._turns.setdefault(who.username, asyncio.Semaphore(AT_ONCE))
        try:
            async with asyncio.timeout(TURN_TIMEOUT):
                await turn.acquire()
        except TimeoutError:
            detail = f"{AT_ONCE} logs are being read for you; read them to their end, or try again."
            raise TooManyRequests(detail, retry_after=5) from None
        try:
            yield
        finally:
            turn.release()

    async def _is_over(self, wanted: _Try) -> bool:
        instance = await self._instance(wanted)
        return instance["try_number"] != wanted.number or instance["state"] not in _ACTIVE

    async def _instance(self, wanted: _Try) -> dict[str, Any]:
        try:
            return await self._airflow.task_instance(
                wanted.dag_id, wanted.dag_run_id, wanted.task_id, wanted.map_index, token=wanted.who.airflow_token
            )
        except AirflowRefused as refused:
            if refused.status != 404:
                raise refusal(refused, "") from refused
            found = await self._airflow.task_instances([(wanted.dag_id, wanted.dag_run_id)])
            if not found:
                raise NotFound("Airflow no longer has this run, and its logs neither.") from refused
            tasks = [task_state(task) for task in found]
            raise no_such_task(wanted.task_id, wanted.map_index, tasks) from refused

    @staticmethod
    async def _sleep(wanted: _Try, seconds: float) -> None:
        expires = wanted.who.expires_at
        if expires is not None and time.time() >= expires:
            raise Unauthorized("The token has expired; get a new one from POST /auth/token.")
        await asyncio.sleep(seconds)
