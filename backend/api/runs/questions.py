"""`/questions`: what runs wait for from people, and their answers."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query

from backend.api.deps import Name, Reader, Services, Stopper
from backend.api.json_bodies import JsonRoute
from backend.api.schemas.questions import AnswerBody, AssignBody, QuestionList, QuestionOut
from backend.api.workflow_triggers import IdempotencyKey
from backend.core.roles import Principal
from backend.core.states import TERMINAL_RUN_STATES
from backend.db.rows import Row
from backend.services.questions import refusal

router = APIRouter(prefix="/questions", tags=["questions"], route_class=JsonRoute)


@router.get("")
async def list_questions(
    who: Reader,
    services: Services,
    state: Literal["open", "answered", "closed"] | None = "open",
    mine: bool = False,
    dag_id: Name = None,
    dag_run_id: Name = None,
    older_than: Annotated[float | None, Query(gt=0, le=366 * 86_400, description="Seconds since it was asked")] = None,
    order: Literal["oldest", "newest"] = "oldest",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> QuestionList:
    """Questions of the runs that you see, and those assigned to you. `mine`: only the latter."""
    page = await services.questions.list_page(
        who,
        state=state,
        mine=mine,
        dag_id=dag_id,
        dag_run_id=dag_run_id,
        older_than=older_than,
        newest_first=order == "newest",
        cursor=cursor,
        limit=limit,
    )
    return QuestionList(questions=[_out(who, row) for row in page.rows], next_cursor=page.next_cursor)


@router.get("/{question_id}")
async def get_question(question_id: UUID, who: Reader, services: Services) -> QuestionOut:
    """A question, with what the graph shows."""
    return _out(who, await services.questions.get(who, str(question_id)))


@router.post("/{question_id}/answer")
async def answer_question(
    question_id: UUID,
    body: AnswerBody,
    who: Stopper,
    services: Services,
    idempotency_key: IdempotencyKey = None,
) -> QuestionOut:
    """Answer a question, once and for all; the graph goes on as soon as all questions of its task are answered.

    A question that is no longer open is 409, and `detail` says what happened to it. With an `Idempotency-Key` you may
    repeat the request.
    """
    row = await services.questions.answer(
        who,
        str(question_id),
        decision=body.decision,
        answer=body.answer,
        given="answer" in body.model_fields_set,
        key=idempotency_key,
    )
    return _out(who, row)


@router.post("/{question_id}/assign")
async def assign_question(question_id: UUID, body: AssignBody, who: Stopper, services: Services) -> QuestionOut:
    """Hand a question on to other users, if you may answer it yourself. Its stream reports it once more.

    One that is no longer open is 409, and an unknown user 422.
    """
    return _out(who, await services.questions.assign(who, str(question_id), body.assignees))


def _out(who: Principal, row: Row) -> QuestionOut:
    ended = row["run_state"] in TERMINAL_RUN_STATES
    state: Literal["open", "answered", "closed"] = "open"
    if row["answered_at"] is not None:
        state = "answered"
    elif row["closed_at"] is not None or ended:
        state = "closed"
    reason = row["closed_reason"]
    if state == "closed" and reason is None:
        reason = f"the run has ended ({row['run_state']})"
    return QuestionOut(
        question_id=str(row["id"]),
        schema=row["answer_schema"],
        state=state,
        closed_reason=reason,
        refusal=refusal(who, row),
        item=row["item_index"],
        **{name: row[name] for name in _SHOWN},
    )


_SHOWN = (
    "dag_id", "dag_run_id", "task_id", "map_index", "agent", "node", "kind", "subject", "content", "asked_at",
    "expires_at", "assignees", "four_eyes", "answered_at", "answered_by", "answered_via", "decision", "answer",
)  # fmt: skip
