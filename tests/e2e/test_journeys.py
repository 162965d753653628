"""User journeys on the web page, in a real browser, on the whole stack."""

import json
import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.kit.openai.server import OpenAIServer
from tests.kit.processes.browser import CHROMIUM, Scheme, Visitor, chromium
from tests.kit.processes.stack import RunningStack
from tests.kit.runs import trigger

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

expect.set_options(timeout=30_000)

WORDS = " ".join(f"word{number}" for number in range(60))
QUESTION = "Question"

Visit = Callable[..., Visitor]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def visit(stack: RunningStack, browser: Browser) -> Iterator[Visit]:
    """Opens pages for visitors, each with separate cookies; fails if any page reported an error."""
    visitors: list[Visitor] = []

    def open_one(scheme: Scheme = "light") -> Visitor:
        visitors.append(Visitor(browser, stack.frontend_url, scheme=scheme))
        return visitors[-1]

    yield open_one
    complaints = [complaint for visitor in visitors for complaint in visitor.complaints]
    for visitor in visitors:
        visitor.context.close()
    assert complaints == []


@pytest.fixture
def admin(visit: Visit, stack: RunningStack) -> Visitor:
    visitor = visit()
    visitor.sign_in(stack.username, stack.password)
    return visitor


@pytest.fixture(scope="module")
def viewer(stack: RunningStack) -> tuple[str, str]:
    """The name and password of a user with the role Viewer."""
    name, password = "reader", "reads-and-nothing-else"
    given = {"username": name, "password": password, "role": "Viewer", "email": "reader@example.com"}
    given |= {"firstname": "R", "lastname": "Eader"}
    options = [word for option, value in given.items() for word in (f"--{option}", value)]
    made = stack.command("airflow", "users", "create", *options)
    assert made.returncode == 0, made.stderr
    return name, password


def test_a_picture_is_run_watched_and_found_in_the_dashboard(admin: Visitor, openai_server: OpenAIServer) -> None:
    openai_server.script(content=WORDS, token_delay=0.05)
    page = admin.page
    page.goto("/run/visual_ai_workflow")
    page.get_by_label(QUESTION).fill("What is the total?")
    page.get_by_role("button", name="Use example").click()
    expect(page.get_by_label("Picture URL")).to_have_value("sample://invoice")
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url("**/runs/visual_ai_workflow/**")
    run_id = page.url.partition("?")[0].rpartition("/")[2]

    page.get_by_role("tab", name="Agents").click()
    words = page.get_by_role("log", name=re.compile("^Output of")).first
    expect(words).to_contain_text("word3")
    assert "word59" not in words.inner_text(), "the output streamed in"
    expect(words).to_contain_text("word59")
    admin.wait_for_state("Success")
    graph = page.get_by_label("Graph of the run's tasks")
    expect(graph.get_by_role("button", name="analyse_image: Success. Show its log.")).to_be_visible()
    expect(graph).to_contain_text("load_image")
    page.get_by_role("tab", name="Result").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("word0 word1")
    page.get_by_role("tab", name="Picture").click()
    expect(page.get_by_role("img", name="The picture with the recognised text")).to_be_visible()

    page.get_by_role("link", name="Dashboard").click()
    workflows = page.get_by_role("region", name=re.compile("workflow", re.IGNORECASE))
    workflows.get_by_role("link", name="visual_ai_workflow", exact=True).first.click()
    page.wait_for_url("**/runs?**")
    expect(page.get_by_role("link", name=re.compile(run_id)).first).to_be_visible()


def test_a_failed_run_is_explained_and_retried(admin: Visitor, openai_server: OpenAIServer) -> None:
    openai_server.script("auth")
    page = admin.page
    run_id = admin.start("multi_agent_workflow", Text="Three boats lay at the pier.", **{QUESTION: "How many?"})
    admin.wait_for_state("Failed")
    page.get_by_role("tab", name="Errors").click()
    errors = page.get_by_role("list", name="Errors, oldest first")
    expect(errors).to_contain_text("auth")
    expect(errors).to_contain_text("Gave up")
    page.get_by_role("button", name="Retry", exact=True).click()
    page.get_by_role("button", name="Retry the run").click()
    admin.wait_for_state("Success")
    assert run_id in page.url
    # A later visitor sees the first attempt as well: its end isn't the end of the log.
    page.goto(f"/runs/multi_agent_workflow/{run_id}?tab=timeline")
    expect(page.get_by_role("img", name=re.compile("^run_agents, try 1: Failed"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("^run_agents, try 2: Success"))).to_be_visible()


def test_events_missed_offline_are_caught_up(admin: Visitor, openai_server: OpenAIServer) -> None:
    openai_server.script(content=WORDS, token_delay=0.15)
    page = admin.page
    admin.start("multi_agent_workflow", Text="Three boats lay at the pier.", **{QUESTION: "How many?"})
    page.get_by_role("tab", name="Agents").click()
    words = page.get_by_role("log", name=re.compile("^Output of")).first
    expect(words).to_contain_text("word3")
    admin.context.set_offline(True)
    connection = page.get_by_role("status", name="Connection")
    expect(connection).to_contain_text("Offline")
    page.wait_for_timeout(2_000)  # events are missed here
    admin.context.set_offline(False)
    expect(words).to_contain_text("word59")
    assert words.inner_text().split() == WORDS.split(), "nothing is missing or repeated"
    admin.wait_for_state("Success")
    page.reload()
    page.get_by_role("tab", name="Agents").click()
    expect(page.get_by_role("log", name=re.compile("^Output of")).first).to_contain_text("word59")


def test_a_template_is_edited_and_run(admin: Visitor, backend: httpx.Client) -> None:
    definition = {
        "dag_id": "multi_agent_workflow",
        "input_data": {"text": "Three boats lay at the pier."},
        "agents": [{"name": "reader", "type": "text"}],
    }
    backend.post("/templates", json={"name": "harbour", "definition": definition}).raise_for_status()
    page = admin.page
    page.goto("/saved")
    page.get_by_role("link", name="harbour", exact=True).first.click()
    page.get_by_role("link", name="New version").click()
    editor = page.get_by_role("textbox", name="Definition")
    editor.click()
    page.keyboard.press("Control+A")
    edited = {**definition, "agents": [{"name": "lookout", "type": "nonsense"}]}
    page.keyboard.insert_text(json.dumps(edited))
    page.get_by_label("Use it for new runs immediately").check()
    save = page.get_by_role("button", name="Create version 2")
    with page.expect_response("**/templates/harbour/versions") as refused:
        save.click()
    assert refused.value.status == httpx.codes.UNPROCESSABLE_ENTITY
    expect(editor).to_contain_text("nonsense")  # nothing is lost
    expect(save).to_be_enabled()
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(json.dumps({**definition, "agents": [{"name": "lookout", "type": "text"}]}))
    with page.expect_response("**/templates/harbour/versions") as created:
        save.click()
    assert created.value.status == httpx.codes.CREATED
    page.wait_for_url(lambda url: url.partition("?")[0].endswith("/saved/harbour"))
    page.get_by_role("link", name="Run", exact=True).click()
    page.wait_for_url("**/run/multi_agent_workflow**")
    page.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_url("**/runs/multi_agent_workflow/**")
    run_id = page.url.partition("?")[0].rpartition("/")[2]
    admin.wait_for_state("Success")
    expect(page.get_by_label("Graph of the run's tasks")).to_contain_text("lookout")
    status = backend.get(f"/workflow-status/multi_agent_workflow/{run_id}").json()
    assert (status["template_name"], status["template_version"]) == ("harbour", 2)


def test_a_workflow_is_scheduled_and_paused(admin: Visitor, backend: httpx.Client) -> None:
    page = admin.page
    page.goto("/run/visual_ai_workflow")
    section = page.get_by_role("region", name="Schedule")
    section.get_by_role("button", name="Set a schedule").click()
    form = page.get_by_role("dialog", name="Schedule of visual_ai_workflow")
    form.get_by_label(QUESTION).fill("What is the total?")
    form.get_by_role("button", name="Use example").click()
    form.get_by_label("Cron expressions").fill("0 0 30 2 *")
    form.get_by_label("Time zone").fill("Europe/Berlin")
    form.get_by_role("button", name="Save").click()
    expect(form).to_contain_text("there is no such date in any year")
    form.get_by_label("Cron expressions").fill("0 6 * * 1-5")
    form.get_by_role("button", name="Save").click()
    expect(section).to_contain_text("Due 0 6 * * 1-5 (Europe/Berlin)")
    expect(section).to_contain_text("Next run")
    known = backend.get("/workflows/visual_ai_workflow/schedule").raise_for_status().json()
    assert known["input_data"] == {"query": "What is the total?", "image_url": "sample://invoice"}
    section.get_by_role("button", name="Pause").click()
    expect(section).to_contain_text("Paused")
    section.get_by_role("button", name="Delete").click()
    expect(section).to_contain_text("No schedule is set")


def test_a_viewer_can_read_but_not_change(visit: Visit, viewer: tuple[str, str], backend: httpx.Client) -> None:
    accepted = trigger(backend, "multi_agent_workflow", {"text": "Two boats lay at the pier."})
    visitor = visit()
    visitor.sign_in(*viewer)
    page = visitor.page
    page.goto("/run/visual_ai_workflow")
    expect(page.get_by_text("The role Viewer is read-only").first).to_be_visible()
    run = page.get_by_role("button", name="Run", exact=True)
    assert run.count() == 0 or run.is_disabled()
    page.goto(f"/runs/multi_agent_workflow/{accepted['dag_run_id']}")
    page.get_by_role("status", name="State of the run").wait_for()
    for name in ("Cancel", "Retry", "Run again"):
        assert page.get_by_role("button", name=name, exact=True).count() == 0
    # The API rejects what the page doesn't offer.
    answer = page.request.post("/workflows/trigger", data={"dag_id": "visual_ai_workflow", "input_data": {}})
    assert answer.status == httpx.codes.FORBIDDEN


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible(visit: Visit, stack: RunningStack, scheme: Scheme) -> None:
    visitor = visit(scheme)
    page = visitor.page
    axe = Axe()

    def check() -> None:
        page.get_by_role("heading", level=1).first.wait_for()
        expect(page.locator("[aria-busy=true]")).to_have_count(0)
        found = axe.run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == [], page.url

    page.goto("/sign-in")
    check()
    visitor.sign_in(stack.username, stack.password)
    check()
    for path in PAGES:
        page.goto(path)
        check()
    visitor.start("multi_agent_workflow", Text="Two boats lay at the pier.")
    visitor.wait_for_state("Success")
    for tab in ("Agents", "Timeline", "Errors", "Result", "Input"):
        page.get_by_role("tab", name=tab).click()
        check()


PAGES = (
    "/run",
    "/run/visual_ai_workflow",
    "/inbox",
    "/inbox?show=answered",
    "/dashboard",
    "/dashboard?view=agents",
    "/dashboard?view=errors",
    "/dashboard?view=health",
    "/saved",
    "/new-template",
    "/settings",
)
