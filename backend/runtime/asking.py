"""Stores what the agents of a try ask people, and finds the answers."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from langgraph.types import Durability
from sqlalchemy import Connection

from backend.core.asking.questions import shown_without
from backend.core.asking.terms import QuestionTerms
from backend.core.errors.input_error import InputError
from backend.core.events import NewEvent
from backend.core.redaction import hide
from backend.db import questions
from backend.db.engine import Database
from backend.db.outage import retry_until_available
from backend.db.questions import NewQuestion
from backend.observation.recording.recorder import Recorder
from backend.observation.recording.records import RowsWithEvents
from backend.observation.task_context import TaskContext
from backend.runtime.graphs.pauses import Answer


class Asking:
    """The questions of one try. `terms` say who may answer, and until when."""

    def __init__(
        self,
        recorder: Recorder,
        database: Database,
        task: TaskContext,
        terms: QuestionTerms,
        durability: Durability | None,
    ) -> None:
        self._recorder = recorder
        self._database = database
        self._task = task
        self._terms = terms
        self._durability = durability

    async def store(self, asked: Sequence[NewQuestion]) -> list[str]:
        """Store what is asked; returns why questions are closed that this try has asked before. Raises as `ask`."""
        hidden = self._recorder.hidden
        shown = [replace(one, asked=shown_without(one.asked, lambda part: hide(part, hidden))) for one in asked]

        def write(connection: Connection, execution_id: str) -> list[NewEvent]:
            return questions.ask(connection, execution_id, self._task.place(), shown, self._terms)

        self._recorder.put(RowsWithEvents(write))
        await self._recorder.flush()
        closed: list[str] = []
        for thread in {question.thread_id for question in asked}:
            pauses = {question.pause for question in asked if question.thread_id == thread}
            stored = await retry_until_available(partial(self._database.run, questions.known, thread, pauses))
            if pauses - stored.keys():
                raise ConnectionError("what the agents ask could not be stored in the visual_ai database")
            closed += [reason for reason in stored.values() if reason is not None]
        return closed

    def cannot_wait(self) -> Exception:
        """Why an agent that keeps no checkpoints can't wait for people."""
        if self._durability is None:
            detail = "is off, but the graph stopped to ask a person: without its states it can't go on"
            return InputError(detail, field="checkpoint")
        return ConnectionError("the database was away when the agents began, so they keep no states to go on from")

    async def answers(self, thread_id: str, pauses: Sequence[str]) -> dict[str, Answer]:
        """The answers that have been given to some of a thread's pauses, by the pauses' ids."""
        found = await retry_until_available(partial(self._database.run, questions.answers, thread_id, pauses))
        return {pause: Answer(row["answer"], row["decision"], row["answered_by"]) for pause, row in found.items()}
