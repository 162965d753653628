"""The operators park their task for questions, and look once more before they do."""

from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from types import SimpleNamespace
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk.exceptions import TaskAwaitingInput
from sqlalchemy import Connection, Engine, text

import visual_ai_questions
from backend.core.errors.input_error import InputError
from backend.core.settings import get_settings
from backend.db import questions
from backend.db.questions import Given
from backend.db.rows import Row
from tests.kit.documents.snippets import snippet
from tests.kit.graphs import asking
from tests.kit.servers.postgres import Postgres
from visual_ai_operators import LangGraphOperator

HERE = "tests.kit.graphs.asking"
Person = Callable[[], None]


@pytest.fixture
def asked_airflow(pg: Postgres, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Person]]:
    """What people do as soon as Airflow's request has been made, in turn."""
    monkeypatch.setenv("VISUAL_AI_DATABASE_URL", pg.worker_url)
    get_settings.cache_clear()
    asking.RAN.clear()
    people: list[Person] = []

    def upsert(**_: Any) -> None:
        people.pop(0)()

    monkeypatch.setattr(visual_ai_questions, "upsert_hitl_detail", upsert)
    yield people
    get_settings.cache_clear()


def context() -> Any:
    instance = SimpleNamespace(dag_id="dag", run_id="run", task_id="ask", map_index=-1, try_number=1, id="id")
    dag_run = SimpleNamespace(conf={}, run_type="manual", triggering_user_name=None)
    return {"ti": instance, "dag_run": dag_run, "params": {}}


def questions_of(connection: Connection) -> list[Row]:
    return questions.open_of_task(connection, "dag", "run", "ask", -1)


def answers(engine: Engine, value: Any) -> None:
    """A person answers all open questions."""
    with engine.begin() as connection:
        for row in questions_of(connection):
            assert questions.answer(connection, str(row["id"]), Given(value, None, "ulla", "api"))


def result(engine: Engine) -> Any:
    with engine.begin() as connection:
        return connection.execute(text("SELECT output_data FROM visual_ai.workflow_executions")).scalar_one()


def test_a_task_is_parked_and_goes_on(engine: Engine, asked_airflow: list[Person]) -> None:
    operator = LangGraphOperator(task_id="ask", graph=f"{HERE}:looping", input_data={"age": 0})
    asked_airflow.extend([lambda: None, lambda: None])
    with pytest.raises(TaskAwaitingInput) as parked:
        operator.execute(context())
    assert (parked.value.method_name, parked.value.timeout) == ("resume_answered", None)
    answers(engine, 42)
    with pytest.raises(TaskAwaitingInput):
        operator.resume_answered(context(), {"chosen_options": ["Answered"]})
    answers(engine, "Nora")
    output = operator.resume_answered(context(), {"chosen_options": ["Answered"]})["output"]
    assert output == {"age": 42, "name": "Nora"}
    assert result(engine)["output"] == output


def test_an_answer_that_is_quicker_than_airflow_is_taken_at_once(engine: Engine, asked_airflow: list[Person]) -> None:
    operator = LangGraphOperator(task_id="ask", graph=f"{HERE}:looping", input_data={"age": 0})
    asked_airflow.extend([lambda: answers(engine, 42), lambda: answers(engine, "Nora")])
    output = operator.execute(context())["output"]
    assert output == {"age": 42, "name": "Nora"}
    assert result(engine)["output"] == output


def test_woken_without_an_answer_a_task_is_parked_again(engine: Engine, asked_airflow: list[Person]) -> None:
    operator = LangGraphOperator(task_id="ask", graph=f"{HERE}:editing", input_data={"topic": "x"})
    asked_airflow.extend([lambda: None] * 3)
    for event in (None, {"chosen_options": ["Answered"]}, {"chosen_options": ["Approve"]}):
        with pytest.raises(TaskAwaitingInput):
            operator.execute(context()) if event is None else operator.resume_answered(context(), event)
    assert asking.RAN == ["write", "review"], "nothing was run again"


class Mailbox:
    """Keeps the mails that it receives, unless `refuses`."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.refuses = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802  # prescribed
        if self.refuses:
            self.refuses -= 1
            return "451 try again"
        self.mails.append(message_from_bytes(bytes(envelope.content or b""), policy=policy.default))  # type: ignore[arg-type]
        return "250 OK"


@pytest.fixture
def mailbox(free_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    box = Mailbox()
    server = Controller(box, hostname="127.0.0.1", port=free_tcp_port)
    server.start()
    extra = "disable_ssl=true&disable_tls=true&from_email=flow@example.org"
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", f"smtp://127.0.0.1:{free_tcp_port}?{extra}")
    yield box
    server.stop()


MAIL = SmtpNotifier(
    to="ann@example.org",
    subject="{{ question.subject }}",
    html_content='{{ questions | length }}: <a href="{{ question.url }}">{{ question.content.draft | e }}</a>',
)


def test_people_are_told_by_mail_once(engine: Engine, asked_airflow: list[Person], mailbox: Mailbox) -> None:
    terms = {"notifiers": [MAIL], "timeout": 60}
    given = {"topic": "<{{ ti.task_id }}>"}
    operator = LangGraphOperator(task_id="ask", graph=f"{HERE}:editing", input_data=given, questions=terms)
    mailbox.refuses = 1
    asked_airflow.extend([lambda: None] * 2)
    for event in (None, {"chosen_options": ["Answered"]}):
        with pytest.raises(TaskAwaitingInput):
            operator.execute(context()) if event is None else operator.resume_answered(context(), event)
    (mail,) = mailbox.mails
    with engine.begin() as connection:
        (row,) = questions_of(connection)
    html = mail.get_body(("html",))
    assert html is not None
    assert (mail["to"], mail["subject"]) == ("ann@example.org", "Review and edit this draft")
    link = f"http://localhost:8000/inbox/{row['id']}"
    assert f'1: <a href="{link}">A draft about &lt;{{{{ ti.task_id }}}}&gt;.</a>' in html.get_content()


def test_a_mail_that_can_not_be_sent_keeps_nobody_waiting(
    engine: Engine, asked_airflow: list[Person], mailbox: Mailbox
) -> None:
    operator = LangGraphOperator(
        task_id="ask", graph=f"{HERE}:editing", input_data={"topic": "x"}, questions={"notifiers": [MAIL]}
    )
    mailbox.refuses = 1_000
    asked_airflow.extend([lambda: None] * 2)
    with pytest.raises(TaskAwaitingInput):
        operator.execute(context())
    assert mailbox.mails == []
    mailbox.refuses = 0
    with pytest.raises(TaskAwaitingInput):  # the next time that the task looks, it is tried again
        operator.resume_answered(context(), {"chosen_options": ["Answered"]})
    assert len(mailbox.mails) == 1


def test_the_documented_notifier(engine: Engine, asked_airflow: list[Person], mailbox: Mailbox) -> None:
    names: dict[str, Any] = {}
    exec(snippet("question-mail"), names)  # noqa: S102  # it is ours
    operator = LangGraphOperator(
        task_id="ask", graph=f"{HERE}:editing", input_data={"topic": "x"}, questions=names["questions"]
    )
    asked_airflow.append(lambda: None)
    with pytest.raises(TaskAwaitingInput):
        operator.execute(context())
    assert mailbox.mails[0]["subject"] == "Review and edit this draft"


def test_only_airflows_notifiers_can_tell() -> None:
    with pytest.raises(InputError, match=r"questions\.notifiers: has to be Airflow notifiers, not str"):
        LangGraphOperator(task_id="ask", graph=f"{HERE}:editing", questions={"notifiers": ["ann@example.org"]})
