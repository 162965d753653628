"""Questions that agents ask people, and their answers. An answer is given once and then stands."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Text,
    and_,
    any_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert

from backend.core.asking.questions import Asked
from backend.core.asking.terms import QuestionTerms
from backend.core.events import NewEvent
from backend.core.roles import Visible
from backend.db import notification_causes
from backend.db.rows import Row, all_rows, first_row
from backend.db.runs import events
from backend.db.runs.run_payload import EXCERPT_CHARACTERS, WHOLE_BYTES
from backend.db.runs.traces import Place
from backend.db.runs.visible import visible_to
from backend.db.tables import questions
from backend.db.tables import workflow_executions as executions

MAX_NODE = 250
"""Characters of a node's name, which leads through its subgraphs."""

OPEN = and_(questions.c.answered_at.is_(None), questions.c.closed_at.is_(None))


@dataclass(frozen=True, slots=True)
class NewQuestion:
    """A pause of a graph that waits for a person: its LangGraph thread, what tells it from others, and what it asks.

    `item` is the index of a batch's input.
    """

    thread_id: str
    pause: str
    agent: str
    node: str | None
    asked: Asked
    item: int | None = None


def ask(
    connection: Connection, execution_id: str, place: Place, asked: Sequence[NewQuestion], terms: QuestionTerms
) -> list[NewEvent]:
    """Store the questions that are new, and return the events that report them.

    One that is open or answered stays what it is; one that was closed in an earlier try is asked again.
    """
    found: list[NewEvent] = []
    for one in asked:
        asking = insert(questions).values(
            execution_id=execution_id,
            task_id=place.task_id,
            map_index=place.map_index,
            try_number=place.try_number,
            agent=one.agent,
            node=one.node[:MAX_NODE] if one.node is not None else None,
            thread_id=one.thread_id,
            pause=one.pause,
            kind=one.asked.kind,
            subject=one.asked.subject,
            content=one.asked.content,
            answer_schema=one.asked.schema,
            expires_at=_after(terms.timeout),
            assignees=list(terms.assignees),
            four_eyes=terms.four_eyes,
            item_index=one.item,
        )
        again = asking.on_conflict_do_update(
            index_elements=["thread_id", "pause"],
            set_={
                "expires_at": asking.excluded.expires_at,
                "assignees": asking.excluded.assignees,
                "try_number": asking.excluded.try_number,
                "closed_at": None,
                "closed_reason": None,
                "notified_at": None,
            },
            where=and_(
                questions.c.closed_at.is_not(None),
                questions.c.answered_at.is_(None),
                questions.c.try_number < asking.excluded.try_number,
            ),
        )
        made = connection.execute(again.returning(questions))
        if (row := first_row(made)) is not None:
            notification_causes.asked(connection, row)
            found.append(NewEvent("question", question_payload(row)))
    return found


def question_payload(row: Row) -> dict[str, Any]:
    """The data of a `question` event."""
    payload = {name: row[name] for name in ("task_id", "map_index", "agent", "node", "kind", "subject")}
    payload = {"question_id": str(row["id"]), **payload, "assignees": row["assignees"]}
    if row["answer_schema"] is not None:
        payload["schema"] = row["answer_schema"]
    if row["expires_at"] is not None:
        payload["expires_at"] = row["expires_at"]
    if row["item_index"] is not None:
        payload["item"] = row["item_index"]
    return payload


def answers(connection: Connection, thread_id: str, pauses: Collection[str]) -> dict[str, Row]:
    """The questions of a thread that have been answered, by their pause."""
    query = select(questions).where(
        questions.c.thread_id == thread_id, questions.c.pause.in_(pauses), questions.c.answered_at.is_not(None)
    )
    return {row["pause"]: row for row in all_rows(connection.execute(query))}


def known(connection: Connection, thread_id: str, pauses: Collection[str]) -> dict[str, str | None]:
    """Those of a thread's pauses that have become questions, each with why it was closed, if it was."""
    query = select(questions.c.pause, questions.c.closed_reason).where(
        questions.c.thread_id == thread_id, questions.c.pause.in_(pauses)
    )
    return {row.pause: row.closed_reason for row in connection.execute(query)}


def lock_run(connection: Connection, dag_id: str, dag_run_id: str) -> None:
    """Lock a run's row. Whoever changes a question and the run's timeline locks them in this order, run first."""
    query = select(executions.c.id).where(executions.c.dag_id == dag_id, executions.c.dag_run_id == dag_run_id)
    connection.execute(query.with_for_update(key_share=True))


def open_of_task(
    connection: Connection,
    dag_id: str,
    dag_run_id: str,
    task_id: str,
    map_index: int,
    *,
    limit: int | None = None,
    lock: bool = False,
    late: bool = False,
    untold: bool = False,
) -> list[Row]:
    """A task's open questions, oldest first; with `lock`, after the run's row, nobody else can answer them. `late`:
    those whose time is over. `untold`: those that the operator's notifiers haven't told of.

    Each item of a batch may have asked, so whoever doesn't need them all gives a `limit`.
    """
    if lock:
        lock_run(connection, dag_id, dag_run_id)
    query = select(questions).where(_of_task(dag_id, dag_run_id, task_id, map_index), OPEN)
    if late:
        query = query.where(questions.c.expires_at <= func.clock_timestamp())
    if untold:
        query = query.where(questions.c.notified_at.is_(None))
    query = query.order_by(questions.c.asked_at, questions.c.id).limit(limit)
    return all_rows(connection.execute(query.with_for_update(of=questions) if lock else query))


def _of_task(dag_id: str, dag_run_id: str, task_id: str, map_index: int) -> ColumnElement[bool]:
    run = select(executions.c.id).where(executions.c.dag_id == dag_id, executions.c.dag_run_id == dag_run_id)
    return and_(
        questions.c.execution_id == run.scalar_subquery(),
        questions.c.task_id == task_id,
        questions.c.map_index == map_index,
    )


def open_of_run(connection: Connection, execution_id: str, limit: int) -> list[Row]:
    """A run's open questions, oldest first."""
    query = select(questions).where(questions.c.execution_id == execution_id, OPEN)
    return all_rows(connection.execute(query.order_by(questions.c.asked_at, questions.c.id).limit(limit)))


def rules_of_task(connection: Connection, execution_id: str, task_id: str, map_index: int) -> list[Row]:
    """Who may answer what a task has asked: each different `assignees` and `four_eyes`."""
    query = (
        select(questions.c.assignees, questions.c.four_eyes)
        .where(
            questions.c.execution_id == execution_id,
            questions.c.task_id == task_id,
            questions.c.map_index == map_index,
        )
        .distinct()
    )
    return all_rows(connection.execute(query))


@dataclass(frozen=True, slots=True)
class Given:
    """An answer: `value` is what the graph receives. `by` is None if nobody answered in time."""

    value: Any
    decision: str | None
    by: str | None
    via: str
    key: str | None = None


def answer(connection: Connection, question_id: str, given: Given) -> bool:
    """Answer an open question, and append the event that reports it; returns whether it was still open."""
    row = first_row(
        connection.execute(
            update(questions)
            .where(questions.c.id == question_id, OPEN)
            .values(
                answered_at=func.clock_timestamp(),
                answer=given.value,
                decision=given.decision,
                answered_by=given.by,
                answered_via=given.via,
                idempotency_key=given.key,
            )
            .returning(questions.c.execution_id)
        )
    )
    if row is None:
        return False
    payload = {"question_id": question_id, "by": given.by, "decision": given.decision}
    events.append(connection, str(row["execution_id"]), [NewEvent("answer", payload)])
    return True


def notified(connection: Connection, dag_id: str, dag_run_id: str, task_id: str, map_index: int) -> None:
    """The operator's notifiers have told of the task's open questions."""
    told = update(questions).where(_of_task(dag_id, dag_run_id, task_id, map_index), OPEN)
    connection.execute(told.where(questions.c.notified_at.is_(None)).values(notified_at=func.clock_timestamp()))


def close(connection: Connection, question_ids: Collection[str], reason: str) -> None:
    """Nobody waits for an answer to these questions any more."""
    connection.execute(
        update(questions)
        .where(questions.c.id.in_(question_ids), OPEN)
        .values(closed_at=func.clock_timestamp(), closed_reason=reason)
    )


def assign(connection: Connection, question_id: str, assignees: Sequence[str]) -> bool:
    """Give an open question to others, and append the event that reports it; returns whether it was still open."""
    return _hand_on(connection, question_id, {"assignees": list(assignees)})


def escalate(connection: Connection, question_id: str, assignees: Sequence[str], timeout: float | None) -> None:
    """Give an open question to others, with a new time limit in seconds."""
    _hand_on(
        connection, question_id, {"assignees": list(assignees), "expires_at": _after(timeout), "notified_at": None}
    )


def _hand_on(connection: Connection, question_id: str, values: Mapping[str, Any]) -> bool:
    changed = update(questions).where(questions.c.id == question_id, OPEN).values(**values).returning(questions)
    row = first_row(connection.execute(changed))
    if row is None:
        return False
    notification_causes.asked(connection, row)
    events.append(connection, str(row["execution_id"]), [NewEvent("question", question_payload(row))])
    return True


_WAKE = text(
    """
    SELECT e.dag_id, e.dag_run_id, q.task_id, q.map_index, array_agg(q.id::text) AS ids
    FROM visual_ai.questions q JOIN visual_ai.workflow_executions e ON e.id = q.execution_id
    WHERE q.answered_at IS NOT NULL AND q.woken_at IS NULL
      AND q.parked_at < clock_timestamp() - make_interval(secs => :parked)
      AND q.closed_at IS NULL
      AND e.state IN ('queued', 'running', 'awaiting_input')
      AND NOT EXISTS (
        SELECT FROM visual_ai.questions o
        WHERE o.execution_id = q.execution_id AND o.task_id = q.task_id AND o.map_index = q.map_index
          AND o.answered_at IS NULL AND o.closed_at IS NULL)
    GROUP BY e.dag_id, e.dag_run_id, q.execution_id, q.task_id, q.map_index
    ORDER BY min(q.answered_at) LIMIT :limit
    """
)


def to_wake(connection: Connection, *, parked: float, limit: int = 100) -> list[Row]:
    """Tasks all of whose questions are answered, which Airflow has not been asked to go on with: `dag_id, dag_run_id,
    task_id, map_index` and the questions' `ids`. Only those that were parked for `parked` seconds."""
    return all_rows(connection.execute(_WAKE, {"parked": parked, "limit": limit}))


def park(connection: Connection, dag_id: str, dag_run_id: str, task_id: str, map_index: int) -> list[datetime | None]:
    """The task is being parked, now or once more, for its open questions; returns until when each of them waits."""
    parked = update(questions).where(_of_task(dag_id, dag_run_id, task_id, map_index), OPEN)
    parked = parked.values(parked_at=func.clock_timestamp(), woken_at=None).returning(questions.c.expires_at)
    return list(connection.execute(parked).scalars())


def woken(connection: Connection, question_ids: Collection[str]) -> None:
    connection.execute(
        update(questions)
        # An array: a batch may have more questions than a statement may have parameters.
        .where(questions.c.id == any_(cast(list(question_ids), ARRAY(questions.c.id.type))))
        .where(questions.c.woken_at.is_(None))
        .values(woken_at=func.clock_timestamp())
    )


def _cut(content: Any, size: Any) -> Any:
    excerpt = func.left(cast(content, Text), EXCERPT_CHARACTERS)
    return func.jsonb_build_object("truncated", True, "bytes", size, "excerpt", excerpt)


def _after(seconds: float | None) -> Any:
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds) if seconds else None


_RUN = (executions.c.dag_id, executions.c.dag_run_id, executions.c.user_id, executions.c.triggered_by)


def get(connection: Connection, question_id: str, *, lock: bool = False) -> Row | None:
    """A question with the `dag_id`, `dag_run_id`, `user_id`, `triggered_by` and `run_state` of its run; with `lock`,
    after the run's row, nobody else can answer it."""
    query = (
        select(questions, *_RUN, executions.c.state.label("run_state"))
        .join(executions, executions.c.id == questions.c.execution_id)
        .where(questions.c.id == question_id)
    )
    found = first_row(connection.execute(query))
    if found is None or not lock:
        return found
    lock_run(connection, found["dag_id"], found["dag_run_id"])
    return first_row(connection.execute(query.with_for_update(of=questions)))


def list_page(
    connection: Connection,
    visible: Visible,
    *,
    state: str | None,
    mine: str | None,
    dag_id: str | None,
    dag_run_id: str | None,
    asked_before: datetime | None,
    newest_first: bool,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[Row]:
    """At most `limit` questions that the user sees. `mine`: those assigned to this user.

    Of a large content there is an excerpt.
    """
    assigned = questions.c.assignees.op("@>")(cast([visible.username], ARRAY(Text)))
    size = func.octet_length(cast(questions.c.content, Text))
    content = case((size > WHOLE_BYTES, _cut(questions.c.content, size)), else_=questions.c.content)
    columns = [column for column in questions.c if column.name != "content"]
    query = (
        select(*columns, content.label("content"), *_RUN, executions.c.state.label("run_state"))
        .join(executions, executions.c.id == questions.c.execution_id)
        .where(or_(assigned, and_(literal(True), *visible_to(visible))))
        .order_by(
            *(column.desc() if newest_first else column.asc() for column in (questions.c.asked_at, questions.c.id))
        )
        .limit(limit)
    )
    conditions: Mapping[str, Any] = {
        "open": and_(OPEN, executions.c.state.in_(("queued", "running", "awaiting_input"))),
        "answered": questions.c.answered_at.is_not(None),
        "closed": and_(
            questions.c.answered_at.is_(None),
            or_(questions.c.closed_at.is_not(None), executions.c.state.in_(("success", "failed", "cancelled"))),
        ),
    }
    if state is not None:
        query = query.where(conditions[state])
    if mine is not None:
        query = query.where(questions.c.assignees.op("@>")(cast([mine], ARRAY(Text))))
    if dag_id is not None:
        query = query.where(executions.c.dag_id == dag_id)
    if dag_run_id is not None:
        query = query.where(executions.c.dag_run_id == dag_run_id)
    if asked_before is not None:
        query = query.where(questions.c.asked_at < asked_before)
    if after is not None:
        place = tuple_(literal(after[0]), literal(after[1], questions.c.id.type))
        here = tuple_(questions.c.asked_at, questions.c.id)
        query = query.where(here < place if newest_first else here > place)
    return all_rows(connection.execute(query))
