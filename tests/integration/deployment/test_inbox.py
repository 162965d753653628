"""The inbox in Chromium, as `make up` serves it, in front of a real backend: read and answered, also by two people."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, expect
from sqlalchemy import Engine, create_engine

from backend.core.asking.questions import asked
from backend.core.asking.terms import QuestionTerms
from backend.core.jsonable import dumps
from backend.core.states import TaskState
from backend.db import questions
from backend.db.questions import NewQuestion
from backend.db.runs import events
from backend.db.runs.traces import Place
from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.processes.backend import BackendProcess, environment
from tests.kit.processes.browser import CHROMIUM, Scheme, Visitor, chromium
from tests.kit.recorded_runs import RecordedRun
from tests.kit.servers.airflow import AirflowServer
from tests.kit.servers.postgres import Postgres
from tests.kit.serving import pages

pytestmark = [
    pytest.mark.timeout(600),  # the first run builds the pages
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

DAG = "visual_ai_workflow"
PHONE: ViewportSize = {"width": 390, "height": 844}
DRAFT = "The delivery is late, and we are sorry. " * 30
CALL = {
    "action_requests": [{"name": "send_email", "args": {"to": "ann@example.org", "copies": 1.0}}],
    "review_configs": [{"action_name": "send_email", "allowed_decisions": ["approve", "edit", "reject"]}],
}
BOOKING = {"type": "object", "properties": {"seats": {"type": "integer", "title": "Seats"}}, "required": ["seats"]}

Ids = dict[str, str]


@pytest.fixture
def asked_of_people(pg: Postgres, database_url: str) -> Iterator[Ids]:
    """Questions of a run of ulla's, by what they are."""
    backend, worker = (create_engine(url, json_serializer=dumps) for url in (database_url, pg.worker_url))
    run = RecordedRun(backend, DAG)
    run.is_now("running", TaskState("ask", -1, 1, "awaiting_input"))
    run.agent("ask", "writer", "awaiting_input")
    yield {
        "draft": _ask(worker, run, "draft", {"task": "Review and edit this draft", "draft": DRAFT}),
        "call": _ask(worker, run, "call", CALL, timeout=7_200),
        "booking": _ask(worker, run, "booking", "How many seats?", schema=BOOKING),
        "picture": _ask(worker, run, "picture", {"question": "Which total?", "image_url": "sample://invoice"}),
        "ottos": _ask(worker, run, "ottos", "Is it sealed?", assignees=("otto",)),
    }
    backend.dispose()
    worker.dispose()


def _ask(worker: Engine, run: RecordedRun, pause: str, content: Any, *, schema: Any = None, **terms: Any) -> str:
    place = Place(DAG, run.dag_run_id, "ask", -1, 1, "writer", "graph")
    new = NewQuestion("thread", pause, "writer", "review", asked(content, schema, "review"))
    with worker.begin() as connection:
        told = questions.ask(connection, run.id, place, [new], QuestionTerms(**terms))
        events.append(connection, run.id, told)
        (question,) = (event.payload["question_id"] for event in told)
        questions.park(connection, DAG, run.dag_run_id, "ask", -1)
    return str(question)


@pytest.fixture
def url(pg: Postgres, asked_of_people: Ids) -> Iterator[str]:
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    airflow.add_run(DAG, "run", "running", {"ask": "awaiting_input"}, triggering_user_name="ulla")
    with (
        AirflowServer(airflow) as server,
        BackendProcess(environment(pg.backend_url, server.url)) as backend,
        pages(backend.url) as address,
    ):
        yield address


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def answer_field(page: Page) -> Any:
    return page.get_by_role("textbox", name="Answer", exact=True)


def test_an_inbox_is_worked_through_by_keyboard(url: str, browser: Browser, asked_of_people: Ids) -> None:
    ulla, otto = (Visitor(browser, url) for _ in range(2))
    ulla.sign_in("ulla", PASSWORD, to="/inbox")
    otto.sign_in("otto", PASSWORD, to="/inbox?show=mine")
    page = ulla.page
    expect(page.get_by_role("link", name=re.compile("^Inbox"))).to_contain_text("5")
    expect(page.get_by_role("table", name="Questions").get_by_role("link")).to_have_count(5)
    expect(otto.page.get_by_role("table", name="Questions").get_by_role("link")).to_have_text(["Is it sealed?"])

    for key in ("j", "ArrowDown", "k", "Enter"):
        page.keyboard.press(key)
    page.wait_for_url(f"**/inbox/{asked_of_people['draft']}**")
    expect(page.get_by_role("heading", name="Review and edit this draft")).to_be_focused()
    page.get_by_role("button", name="Begin with the text above").click()
    answer_field(page).press("End")
    page.keyboard.type("jku?")  # letters, not shortcuts
    expect(answer_field(page)).to_have_value(re.compile("jku\\?"))
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("status").filter(has_text="ulla answered")).to_be_focused()

    page.keyboard.press("j")
    page.wait_for_url(f"**/inbox/{asked_of_people['call']}**")
    expect(page.get_by_role("heading", name="Approve send_email?")).to_be_focused()
    page.get_by_role("radio", name="Approve").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Edit")).to_be_checked()
    page.get_by_role("textbox", name="to").fill("bob@example.org")
    # Somebody else is quicker: nothing that was entered is lost, and the page says what happened.
    other = otto.page.request.post(
        f"/questions/{asked_of_people['call']}/answer",
        data={"decision": "reject"},
        headers={"Origin": url, "Sec-Fetch-Site": "same-origin"},
    )
    assert other.ok, other.text()
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("otto has answered this question at")
    expect(page.get_by_role("status").filter(has_text="otto rejected")).to_be_visible()
    expect(page.get_by_role("textbox", name="to")).to_have_value("bob@example.org")

    page.get_by_role("heading", level=1).focus()
    page.keyboard.press("u")
    page.wait_for_url("**/inbox")
    links = page.get_by_role("table", name="Questions").get_by_role("link")
    expect(links).to_have_text(["How many seats?", "Which total?", "Is it sealed?"])
    links.last.click()
    expect(page.get_by_text("This question is for otto.")).to_be_visible()
    assert answer_field(page).count() == 0
    assert ulla.complaints + otto.complaints == []


def test_questions_are_answered_where_their_run_is_watched(url: str, browser: Browser, asked_of_people: Ids) -> None:
    ulla, otto = (Visitor(browser, url) for _ in range(2))
    ulla.sign_in("ulla", PASSWORD, to=f"/runs/{DAG}/run")
    page = ulla.page
    graph = page.get_by_label("Graph of the run's tasks")
    graph.get_by_role("button", name="Answer its 5 questions").click()
    expect(page.get_by_role("button", name="Review and edit this draft")).to_be_focused()
    answer_field(page).fill("Mine.")
    otto.sign_in("otto", PASSWORD, to=f"/inbox/{asked_of_people['draft']}")
    answer_field(otto.page).fill("Otto's.")
    otto.page.get_by_role("button", name="Hand on").click()
    dialog = otto.page.get_by_role("dialog")
    dialog.get_by_role("combobox", name="To").fill("nobody-there")
    dialog.get_by_role("button", name="Hand on").click()
    expect(dialog).to_contain_text("Airflow has no active user 'nobody-there'")
    dialog.get_by_role("button", name="Cancel").click()
    otto.page.get_by_role("button", name="Answer", exact=True).click()
    expect(otto.page.get_by_role("status").filter(has_text="otto answered")).to_be_visible()
    # The stream tells whoever is typing at the moment.
    expect(page.get_by_role("alert")).to_contain_text("Someone else was first")
    expect(answer_field(page)).to_have_value("Mine.")
    expect(graph.get_by_role("button", name="Answer its 4 questions")).to_be_visible()

    page.get_by_role("button", name="How many seats?").click()
    page.get_by_role("textbox", name="Seats").fill("12")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("status").filter(has_text="ulla answered")).to_contain_text('"seats": 12')
    assert ulla.complaints + otto.complaints == []


def test_every_question_is_accessible_and_fits_a_phone(url: str, browser: Browser, asked_of_people: Ids) -> None:
    schemes: tuple[Scheme, ...] = ("light", "dark")
    for scheme in schemes:
        visitor = Visitor(browser, url, scheme=scheme)
        visitor.sign_in("otto", PASSWORD, to="/inbox")
        page = visitor.page
        page.set_viewport_size(PHONE)
        for path in ("/inbox", *(f"/inbox/{one}" for one in asked_of_people.values()), f"/runs/{DAG}/run"):
            page.goto(path)
            page.get_by_role("heading", level=1).first.wait_for()
            expect(page.locator("[aria-busy=true]")).to_have_count(0)
            found = Axe().run(page).response["violations"]
            assert [(one["id"], one["nodes"][0]["html"]) for one in found] == [], f"{path}, {scheme}"
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
        page.goto(f"/inbox/{asked_of_people['picture']}")
        picture = page.get_by_role("img", name="Picture 1 of the question")
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        button = page.get_by_role("button", name="Next question").bounding_box()
        assert button is not None
        assert button["height"] >= 40
        assert visitor.complaints == []
