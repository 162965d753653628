"""`questions`, `answer` and `assign`: what runs wait for from people."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from backend.cli import formatting
from backend.cli.connection import Backend
from backend.cli.errors import SUCCESS
from backend.cli.formatting import safe
from backend.cli.session import say
from backend.cli.tables import print_table

_COLUMNS = ("ID", "RUN", "TASK", "KIND", "ASKED", "STATE", "QUESTION")


@dataclass(frozen=True, slots=True)
class ListQuestions:
    """Prints questions, oldest first."""

    query: dict[str, Any]
    as_json: bool

    async def __call__(self, backend: Backend) -> int:
        """Print them; as JSON, each page as soon as it arrives."""
        rows: list[tuple[str, ...]] = []
        async for one in backend.entries("/questions", "questions", self.query):
            if self.as_json:
                print(json.dumps(one))
            else:
                rows.append(_cells(one))
        if not self.as_json:
            print_table(_COLUMNS, rows, wrapped=(1, 6), nothing="No questions.")
        return SUCCESS


@dataclass(frozen=True, slots=True)
class AnswerQuestion:
    """Answers a question."""

    question_id: str
    body: dict[str, Any]
    as_json: bool

    async def __call__(self, backend: Backend) -> int:
        """Answer it."""
        answered = await backend.post(f"/questions/{quote(self.question_id, safe='')}/answer", json=self.body)
        if self.as_json:
            print(json.dumps(answered))
        else:
            say(f"Answered: {safe(answered['subject'])}")
        return SUCCESS


@dataclass(frozen=True, slots=True)
class AssignQuestion:
    """Hands a question on to others."""

    question_id: str
    assignees: list[str]
    as_json: bool

    async def __call__(self, backend: Backend) -> int:
        """Hand it on."""
        path = f"/questions/{quote(self.question_id, safe='')}/assign"
        assigned = await backend.post(path, json={"assignees": self.assignees})
        if self.as_json:
            print(json.dumps(assigned))
        else:
            say(f"{', '.join(map(safe, assigned['assignees']))} may answer now: {safe(assigned['subject'])}")
        return SUCCESS


def _cells(question: dict[str, Any]) -> tuple[str, ...]:
    cells = (
        question["question_id"], f"{question['dag_id']}/{question['dag_run_id']}", question["task_id"],
        question["kind"], formatting.moment(question["asked_at"]), question["state"], question["subject"],
    )  # fmt: skip
    return tuple(formatting.first_line(cell, 200) for cell in cells)
