"""Questions that agents ask people: who sees them, who may answer, and waking the tasks that wait for the answers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from backend.clients.airflow import AirflowClient, AirflowRefused, AirflowUnavailable
from backend.core.asking.questions import AnswerError, Asked, resume_value
from backend.core.problems import Conflict, FieldError, Forbidden, Invalid, NotFound, pointer
from backend.core.roles import Principal, Role
from backend.core.states import TERMINAL_RUN_STATES
from backend.db import audit, questions
from backend.db.engine import Database
from backend.db.questions import Given
from backend.db.rows import Row
from backend.services.background import in_background
from backend.services.identity.accounts import Accounts
from backend.services.runs.page_cursor import decode_cursor, encode_cursor

log = logging.getLogger(__name__)

WAKES_TASK = "Answered"
"""The option of Airflow's request that stands for our answers, as `visual_ai_questions.py` names it."""

INTERVAL = 1.0
"""Seconds between two looks for tasks that could not be woken yet, or were answered in another backend."""

PARKED = 5.0
"""Seconds for which a task stays parked at least. A scheduler that queues it again before it has heard of the exit of
the process that parked it takes that exit for the end of the task, and fails it (Airflow 3.3)."""


@dataclass(frozen=True, slots=True)
class QuestionPage:
    """Questions in order, and the cursor of the next page."""

    rows: list[Row]
    next_cursor: str | None


class Questions:
    """Reads and answers questions. Whoever may stop a run may answer its questions, and whoever they are assigned to;
    if they are assigned to somebody, nobody else below Admin. With `four_eyes`, never those whose run it is."""

    def __init__(self, airflow: AirflowClient, database: Database, accounts: Accounts) -> None:
        self._airflow = airflow
        self._database = database
        self._accounts = accounts
        self._answered = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Wake tasks whose questions have been answered, until the context ends."""
        async with in_background(self._wake_tasks()):
            yield

    async def list_page(
        self,
        who: Principal,
        *,
        state: str | None,
        mine: bool,
        dag_id: str | None,
        dag_run_id: str | None,
        older_than: float | None,
        newest_first: bool,
        cursor: str | None,
        limit: int,
    ) -> QuestionPage:
        """Questions of the runs that the user sees, and those assigned to them."""
        rows = await self._database.run(
            questions.list_page,
            who.visible,
            state=state,
            mine=who.username if mine else None,
            dag_id=dag_id,
            dag_run_id=dag_run_id,
            asked_before=datetime.now(UTC) - timedelta(seconds=older_than) if older_than else None,
            newest_first=newest_first,
            after=decode_cursor(cursor) if cursor else None,
            limit=limit + 1,
        )
        shown = rows[:limit]
        more = len(rows) > limit
        return QuestionPage(shown, encode_cursor(shown[-1]["asked_at"], str(shown[-1]["id"])) if more else None)

    async def get(self, who: Principal, question_id: str) -> Row:
        """A question. Raises `NotFound`, also for one that the user must not see."""
        return _seen(who, await self._database.run(questions.get, question_id))

    async def answer(
        self, who: Principal, question_id: str, *, decision: str | None, answer: Any, given: bool, key: str | None
    ) -> Row:
        """Answer a question, once and for all; its task is woken soon after, whatever Airflow is doing now.

        The same `key` of the same user with the same answer may be repeated. Raises `NotFound`, `Forbidden`, `Conflict`
        saying what happened to a question that is no longer open, and `Invalid` naming the part of an answer that the
        question doesn't take.
        """

        def take(connection: Connection) -> Row:
            row = _seen(who, questions.get(connection, question_id, lock=True))
            _check_right(who, row)
            asked = Asked(row["kind"], row["subject"], row["content"], row["answer_schema"])
            value = _checked(asked, decision, answer, given)
            if row["answered_at"] is not None:
                same = key is not None and (row["idempotency_key"], row["answered_by"]) == (key, who.username)
                if same and (row["answer"], row["decision"]) == (value, decision):
                    return row
            _check_open(row)
            if not questions.answer(connection, question_id, Given(value, decision, who.username, "api", key)):
                raise AssertionError("the question is locked and open")
            audit.record(connection, who, "question.answer", question_id, decision=decision)
            answered = questions.get(connection, question_id)
            assert answered is not None  # noqa: S101  # it is locked
            return answered

        row = await self._database.run(take)
        self._answered.set()
        return row

    async def resume(self, who: Principal, values: Mapping[str, Any], also: Callable[[Connection], None]) -> None:
        """Answer questions, by their ids, with the values that their graphs are to get, whatever the questions say of
        the form. `also` runs in the same transaction. Raises as `answer` does, and changes nothing then."""

        def take(connection: Connection) -> None:
            for question_id, value in sorted(values.items()):
                row = _seen(who, questions.get(connection, question_id, lock=True))
                _check_right(who, row)
                _check_open(row)
                decision = "approve" if row["kind"] == "breakpoint" else None
                if not questions.answer(connection, question_id, Given(value, decision, who.username, "api", None)):
                    raise AssertionError("the question is locked and open")
                audit.record(connection, who, "question.answer", question_id)
            also(connection)

        await self._database.run(take)
        self._answered.set()

    async def assign(self, who: Principal, question_id: str, assignees: Sequence[str]) -> Row:
        """Hand a question on to others, who alone may answer it then, beside Admins. Whoever may answer it may do so.

        Raises `NotFound`, `Forbidden`, `Conflict` if it is no longer open, and `Invalid` naming an unknown user.
        """
        _check_right(who, await self.get(who, question_id))
        names = list(dict.fromkeys(assignees))
        for index, name in enumerate(assignees):
            if await self._accounts.get(name) is None:
                detail = f"Airflow has no active user {name!r}"
                path = pointer("assignees", index)
                raise Invalid(f"{path}: {detail}", errors=[FieldError(path, detail)])

        def change(connection: Connection) -> Row:
            row = _seen(who, questions.get(connection, question_id, lock=True))
            _check_right(who, row)
            _check_open(row)
            own = [name for name in names if name in (row["user_id"], row["triggered_by"])]
            if row["four_eyes"] and own == names:
                detail = "somebody else than the run's user has to answer this question"
                raise Invalid(f"/assignees: {detail}", errors=[FieldError("/assignees", detail)])
            if not questions.assign(connection, question_id, names):
                raise AssertionError("the question is locked and open")
            audit.record(connection, who, "question.assign", question_id, assignees=", ".join(names))
            return {**row, "assignees": names}

        return await self._database.run(change)

    async def _wake_tasks(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await self._answered.wait()
            self._answered.clear()
            try:
                for task in await self._database.run(questions.to_wake, parked=PARKED):
                    await self._wake(task)
            except (SQLAlchemyError, OSError) as error:
                log.warning("answered tasks could not be woken: %s", type(error).__name__)

    async def _wake(self, task: Row) -> None:
        """Have Airflow go on with a task. If it can't now, that is tried again."""
        place = (task["dag_id"], task["dag_run_id"], task["task_id"], task["map_index"])
        try:
            await self._airflow.respond(*place, chosen=WAKES_TASK)
        except AirflowRefused as refused:
            # 409: somebody has woken it in Airflow. 404: it was cleared, and its next try asks for nothing. Both look
            # here for their answers.
            if refused.status not in (404, 409):
                log.warning("Airflow refuses to go on with a task that is answered: %s", refused.detail)
                return
        except AirflowUnavailable:
            return
        await self._database.run(questions.woken, task["ids"])


def _seen(who: Principal, row: Row | None) -> Row:
    if row is None or not (
        who.username in row["assignees"] or who.may_see(row["dag_id"], row["user_id"], row["triggered_by"])
    ):
        raise NotFound("There is no such question.")
    return row


def _check_right(who: Principal, row: Row) -> None:
    if (why := refusal(who, row)) is not None:
        raise Forbidden(why)


def refusal(who: Principal, row: Row) -> str | None:
    """Why this user may not answer the question; None if they may."""
    if who.service_token is not None and "stop" not in who.service_token.scopes:
        return f"The service token {who.service_token.name!r} doesn't have the scope 'stop', which answers need."
    own = who.owns(row["user_id"], row["triggered_by"])
    if row["four_eyes"] and own:
        return "Somebody else has to answer this question: the run is yours."
    if who.username in row["assignees"]:
        return None
    may = who.may_stop(row["dag_id"], row["user_id"], row["triggered_by"])
    if row["assignees"] and who.role < Role.ADMIN:
        return f"This question is for {', '.join(row['assignees'])}."
    return None if may else "A User may answer the questions of their own runs; Op and Admin those of all."


def _check_open(row: Row) -> None:
    if row["answered_at"] is not None:
        by = f"{row['answered_by']} has" if row["answered_by"] else "The time was over, and the default has"
        raise Conflict(f"{by} answered this question at {row['answered_at'].isoformat()}.")
    if row["closed_at"] is not None:
        raise Conflict(f"Nobody waits for this answer any more: {row['closed_reason']}.")
    if row["run_state"] in TERMINAL_RUN_STATES:
        raise Conflict(f"Nobody waits for this answer any more: the run has ended ({row['run_state']}).")


def _checked(asked: Asked, decision: str | None, answer: Any, given: bool) -> Any:
    try:
        return resume_value(asked, decision=decision, answer=answer, given=given)
    except AnswerError as error:
        place = pointer(*error.path) if error.path else ""
        raise Invalid(f"{place}: {error}" if place else str(error), errors=[FieldError(place, str(error))]) from None
