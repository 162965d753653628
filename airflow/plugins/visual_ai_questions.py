"""Parks a task whose agents wait for people, in Airflow's state `awaiting_input`, and takes what wakes it.

Airflow 3.3 keeps one request per task instance. A second one in the same try clears the first one's response, but keeps
its subject, body and options (`execution_api/routes/hitl.py`). So these are the same for all questions, and say where
the questions stand. Three things wake a task: our backend once all questions are answered, a person in Airflow's list
of required actions, and the scheduler when the time is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseNotifier
from airflow.sdk.exceptions import TaskAwaitingInput
from airflow.sdk.execution_time.hitl import upsert_hitl_detail
from tenacity import Retrying, stop_after_attempt, wait_random_exponential

from backend.core.errors.input_error import InputError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from backend.runtime.waiting import TaskQuestions

__all__ = ["OPTIONS", "SUBJECT", "notifiers_of", "park", "take_answer"]

SUBJECT = "An agent waits for an answer"
APPROVE, REJECT, ANSWERED = "Approve", "Reject", "Answered"
OPTIONS = [APPROVE, REJECT, ANSWERED]


def notifiers_of(terms: Mapping[str, Any] | None) -> tuple[BaseNotifier, ...]:
    """The notifiers in an operator's `questions`. Raises `InputError`."""
    given = (terms or {}).get("notifiers", ())
    found = tuple(given) if isinstance(given, list | tuple) else (given,)
    for one in found:
        if not isinstance(one, BaseNotifier):
            raise InputError(f"has to be Airflow notifiers, not {type(one).__name__}", field="questions.notifiers")
    return found


def park(questions: TaskQuestions, context: Context, notifiers: Sequence[BaseNotifier], log: Any) -> None:
    """Park the task until its questions are answered. Returns if none is open any more. `notifiers` tell of new ones.

    Raises Airflow's `TaskAwaitingInput`, upon which the task holds no worker, pool slot or trigger.
    """
    instance: Any = context["ti"]
    if not questions.any_open():
        return
    if notifiers:
        _tell(questions, context, notifiers, log)
    upsert_hitl_detail(ti_id=instance.id, options=OPTIONS, subject=SUBJECT, body=_body(context), params={})
    # After that request, which clears an earlier response: whoever answers from now on wakes the task.
    waiting = questions.waiting()
    if waiting is None:
        return
    timeout = None if waiting.timeout is None else timedelta(seconds=waiting.timeout)
    raise TaskAwaitingInput(method_name="resume_answered", timeout=timeout)


def _tell(questions: TaskQuestions, context: Context, notifiers: Sequence[BaseNotifier], log: Any) -> None:
    untold = questions.untold()
    if not untold:
        return
    given: Any = {**context, "questions": untold, "question": untold[0]}
    failed = False
    for notifier in notifiers:
        attempts = Retrying(
            stop=stop_after_attempt(3), wait=wait_random_exponential(multiplier=0.3, max=2), reraise=True
        )
        try:
            # Airflow renders templates in place, where a later attempt would render what people and models wrote.
            attempts(lambda one=notifier: copy(one)(given))
        except Exception as error:  # a message that can't be sent mustn't keep anybody from answering
            failed = True
            log.warning("%s could not tell of the questions: %s", type(notifier).__name__, error)
    if not failed:
        questions.told()


def take_answer(questions: TaskQuestions, event: Mapping[str, Any], log: Any) -> None:
    """Take what woke the task. Raises `UnansweredError` if nobody answered in time and that fails the task."""
    if event.get("error_type") == "timeout":
        questions.expire()
        return
    chosen = (event.get("chosen_options") or [None])[0]
    if chosen not in (APPROVE, REJECT):
        return
    user = event.get("responded_by_user") or {}
    refused = questions.decide(chosen.lower(), user.get("name"))
    if refused is not None:
        log.warning("%s in Airflow's required actions doesn't count: %s", chosen, refused)


def _body(context: Context) -> str:
    from backend.core.settings import get_settings

    instance: Any = context["ti"]
    place = f"{quote(instance.dag_id, safe='')}/{quote(instance.run_id, safe='')}"
    page = f"{get_settings().public_url.rstrip('/')}/workflow-status/{place}"
    return (
        f"The questions of this task, and the way to answer them, are at {page}. "
        f"A single question that only asks for approval can be answered here: {APPROVE} or {REJECT}. "
        f"{ANSWERED} has the task look whether its questions are answered."
    )
