"""What a worker does before a task is parked for its questions, and after it was woken. Synchronous and short.

The order keeps an answer from being missed, whenever it comes: Airflow's request is made first, which clears an earlier
answer; then it is looked up whether anything is still open; only then the task is parked. Whoever answers writes the
answer first and wakes Airflow then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection

from backend.core.asking.questions import AnswerError, Asked, decides, resume_value
from backend.core.asking.terms import QuestionTerms
from backend.core.errors.input_error import InputError
from backend.core.settings import Settings
from backend.core.states import TaskState
from backend.db import questions
from backend.db.engine import run_in, task_engine
from backend.db.questions import Given
from backend.db.rows import Row
from backend.db.runs import observations
from backend.db.runs.announcements import Announcer
from backend.db.runs.executions import RunState
from backend.observation.task_context import TaskContext

T = TypeVar("T")

TOLD = 100
"""Questions that a message may list."""

AT_A_TIME = 500
"""Questions with what they show, of which each may have megabytes, that are read at once."""


class UnansweredError(TimeoutError):
    """Nobody answered a question in time. A retry asks again."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that waits. Its first question expires in `timeout` seconds; None: none does."""

    timeout: float | None


class TaskQuestions:
    """The questions of one task instance."""

    def __init__(self, settings: Settings, task: TaskContext, terms: QuestionTerms) -> None:
        self._settings = settings
        self._task = task
        self._terms = terms

    def any_open(self) -> bool:
        """Whether a question of the task is open."""
        return bool(self._run(lambda connection: self._open(connection, limit=1)))

    def untold(self) -> list[dict[str, Any]]:
        """The open questions that the operator's notifiers haven't told of, as their templates see them: the first
        `TOLD` of them."""
        names = ("subject", "kind", "content", "agent", "node", "task_id", "assignees", "expires_at")
        return [
            {"question_id": str(row["id"]), "url": self._settings.question_link(str(row["id"]))}
            | {name: row[name] for name in names}
            for row in self._run(lambda connection: self._open(connection, untold=True, limit=TOLD))
        ]

    def told(self) -> None:
        """The operator's notifiers have told of the open questions."""
        self._run(lambda connection: questions.notified(connection, *self._task_key))

    def waiting(self) -> Waiting | None:
        """What the task waits for, for which it is parked now; None if all of its questions are answered."""

        def look(connection: Connection) -> Waiting | None:
            task = self._task
            questions.lock_run(connection, task.dag_id, task.dag_run_id)
            parked = questions.park(connection, *self._task_key)
            if not parked:
                return None
            self._record(connection, "awaiting_input")
            ends = [end for end in parked if end is not None]
            left = (min(ends) - datetime.now(UTC)).total_seconds() if ends else None
            return Waiting(None if left is None else max(left, 0.0))

        return self._run(look)

    def decide(self, decision: str, by: str | None) -> str | None:
        """Take an approval or rejection from Airflow's required actions.

        Returns why it doesn't count, if it doesn't: the task then goes on waiting.
        """

        def take(connection: Connection) -> str | None:
            found = self._open(connection, lock=True, limit=2)
            if not found:
                return None  # it was answered elsewhere at the same time
            if len(found) > 1:
                return "several questions are open, and it is not clear which one it answers"
            (row,) = found
            asked = Asked(row["kind"], row["subject"], row["content"], row["answer_schema"])
            if not decides(asked):
                return "the question asks for more than to approve or reject"
            if by is None or not self._may_answer(connection, row, by):
                return f"{by or 'nobody'} may not answer this question"
            value = resume_value(asked, decision=decision, answer=None, given=False)
            questions.answer(connection, str(row["id"]), Given(value, decision, by, "airflow"))
            return None

        return self._run(take)

    def expire(self) -> None:
        """Do what the terms say about questions that nobody answered in time. One of a batch fails only its item.

        Raises `UnansweredError`, and `InputError` for a default answer that the question doesn't take.
        """

        def expired(connection: Connection) -> str | None:
            failing: str | None = None
            while late := self._open(connection, lock=True, late=True, limit=AT_A_TIME):
                for row in late:
                    self._expire(connection, row)
                    if failing is None and row["item_index"] is None and self._fails(row):
                        failing = row["subject"]
            return failing

        unanswered = self._run(expired)
        if unanswered is not None:
            raise UnansweredError(f"nobody answered in time: {unanswered}")

    def _fails(self, row: Row) -> bool:
        terms = self._terms
        escalated = terms.on_timeout == "escalate" and set(row["assignees"]) == set(terms.escalate_to)
        return terms.on_timeout == "fail" or escalated

    def _expire(self, connection: Connection, row: Row) -> None:
        terms, question_id = self._terms, str(row["id"])
        if self._fails(row):
            questions.close(connection, [question_id], "nobody answered in time")
        elif terms.on_timeout == "escalate":
            questions.escalate(connection, question_id, terms.escalate_to, terms.timeout)
        else:
            asked = Asked(row["kind"], row["subject"], row["content"], row["answer_schema"])
            decision = terms.default if terms.default in ("approve", "reject") and asked.kind != "question" else None
            try:
                value = resume_value(asked, decision=decision, answer=terms.default, given=decision is None)
            except AnswerError as error:
                raise InputError(f"is no answer to {row['subject']!r}: {error}", field="questions.default") from None
            questions.answer(connection, question_id, Given(value, decision, None, "timeout"))

    def _may_answer(self, connection: Connection, row: Row, by: str) -> bool:
        whole = questions.get(connection, str(row["id"]))
        own = whole is not None and by in (whole["user_id"], whole["triggered_by"])
        return not (row["four_eyes"] and own) and (not row["assignees"] or by in row["assignees"])

    @property
    def _task_key(self) -> tuple[str, str, str, int]:
        task = self._task
        return task.dag_id, task.dag_run_id, task.task_id, task.map_index

    def _open(self, connection: Connection, **more: Any) -> list[Row]:
        return questions.open_of_task(connection, *self._task_key, **more)

    def _record(self, connection: Connection, state: str) -> None:
        task = self._task
        run = RunState(task.dag_id, task.dag_run_id, "running")
        observations.observe(connection, run, [TaskState(task.task_id, task.map_index, task.try_number, state)])

    def _run(self, work: Callable[[Connection], T]) -> T:
        redis = self._settings.redis_address
        announcer = Announcer(redis) if redis else None
        try:
            return run_in(task_engine(self._settings.database_url), announcer, work)
        finally:
            if announcer is not None:
                announcer.close()
