"""LangGraph's client for JavaScript and its React hooks, from npm and in Chromium, against the whole stack.

The page is `frontend/clients/chat.tsx`. It is served under the address of the product's own pages, as a front end
behind the same gateway would be.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from backend.stack.frontend import Frontend
from tests.kit.processes.browser import CHROMIUM, chromium
from tests.kit.processes.stack import RunningStack, wait_until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

ROOT = Path(__file__).parents[3]
HOOKS = {
    "modes": {"hook": "modes"},
    "protocol": {"hook": "protocol"},
    "protocol over a WebSocket": {"hook": "protocol", "transport": "websocket"},
}
SEND = "(text) => void chat.stream.submit({ messages: [{ type: 'human', content: text }] })"
APPROVE = {
    "modes": "(answer) => void chat.stream.submit(undefined, { command: { resume: answer } })",
    "protocol": "(answer) => void chat.stream.respond(answer, { interruptId: chat.stream.interrupt.id })",
}

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's scripts."""
    folder = tmp_path_factory.mktemp("chat")
    assert Frontend(ROOT).run("build:clients", ["--outDir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(params=HOOKS)
def hook(request: pytest.FixtureRequest) -> dict[str, str]:
    """Which hook the page uses."""
    return HOOKS[request.param]


@pytest.fixture
def chat(
    browser: Browser, stack: RunningStack, backend: httpx.Client, bundle: Path, hook: dict[str, str]
) -> Iterator[Open]:
    """Opens the page with an assistant; fails if it has reported an error."""
    context = browser.new_context(base_url=stack.frontend_url)
    # A page that the test makes up is from nowhere, and may not reach this machine without being asked.
    context.grant_permissions(["local-network-access"])
    token = backend.headers["authorization"].removeprefix("Bearer ")
    context.add_init_script(f"window.token = {token!r}")
    if hook.get("transport") == "websocket":  # a browser's WebSocket has no headers
        context.add_cookies([{"name": "visual_ai_session", "value": token, "url": stack.frontend_url}])
    context.set_default_timeout(30_000)
    complaints: list[str] = []

    def serve(route: Route) -> None:
        name = route.request.url.partition("?")[0].rpartition("/")[2]
        if name.endswith(".js"):
            route.fulfill(path=bundle / name, content_type="text/javascript")
        else:
            route.fulfill(body="<script type=module src=/chat/chat.js></script>", content_type="text/html")

    def open_chat(assistant: str) -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"/chat/?{urlencode({**hook, 'assistant': assistant})}")
        return page

    context.route("**/chat/**", serve)
    yield open_chat
    context.close()
    assert complaints == []


def said(page: Page) -> list[str]:
    return page.locator("li").all_inner_texts()


def test_a_person_talks_is_asked_and_goes_on(chat: Open, hook: dict[str, str]) -> None:
    page = chat("interview")
    state = page.locator("output")
    page.evaluate(SEND, "Hello.")
    expect(state).to_have_text('idle asks "Shall I go on?"', timeout=30_000)
    before = said(page)
    assert before[:2] == ["human: Hello.", "ai: Good morning, message 1 is mine."]
    page.reload()
    expect(state).to_have_text('idle asks "Shall I go on?"', timeout=30_000)
    assert said(page) == before
    page.evaluate(APPROVE[hook["hook"]], "yes")
    expect(page.get_by_text("Good evening.")).to_be_visible(timeout=30_000)
    expect(state).to_have_text("idle", timeout=30_000)
    assert "ai: You said: yes" in said(page)


def test_words_arrive_as_they_are_said_also_after_a_reload(chat: Open) -> None:
    page = chat("musing")
    page.evaluate(SEND, "80")
    answer = page.locator("li").nth(1)
    expect(answer).to_contain_text("ai: 1 2 3", timeout=30_000)
    assert not answer.inner_text().endswith("80")
    page.reload()
    expect(answer).to_contain_text("ai: 1 2 3", timeout=30_000)
    assert not answer.inner_text().endswith("80"), "it goes on where it was"
    expect(page.locator("output")).to_have_text("idle", timeout=30_000)
    assert said(page) == ["human: 80", f"ai: {' '.join(map(str, range(1, 81)))}"]


def test_a_run_is_stopped(chat: Open, backend: httpx.Client) -> None:
    page = chat("musing")
    page.evaluate(SEND, "600")
    expect(page.locator("li").nth(1)).to_contain_text("ai: 1 2 3", timeout=30_000)
    page.evaluate("() => void chat.stream.stop()")
    expect(page.locator("output")).to_have_text("idle", timeout=30_000)
    page.wait_for_timeout(1_000)
    expect(page.locator("output")).to_have_text("idle")
    thread = re.search(r"thread=([\w-]+)", page.url)
    assert thread is not None

    def is_stopped() -> bool:
        (run,) = backend.get(f"/langgraph/threads/{thread[1]}/runs").raise_for_status().json()
        return bool(run["status"] == "interrupted")

    wait_until(is_stopped, timeout=30, what="the end of the run")


def test_a_thread_branches(chat: Open, hook: dict[str, str]) -> None:
    page = chat("nested")
    state = page.locator("output")
    page.evaluate(SEND, "one")
    expect(page.get_by_text("ai: From within.")).to_have_count(1, timeout=30_000)
    expect(state).to_have_text("idle", timeout=30_000)
    thread = re.search(r"thread=([\w-]+)", page.url)
    assert thread is not None
    begun: Any = page.evaluate(
        """async (thread) => {
            const history = await chat.client.threads.getHistory(thread);
            return history.find((one) => one.next[0] === "__start__").checkpoint;
        }""",
        thread[1],
    )
    fork: Any = begun["checkpoint_id"] if hook["hook"] == "protocol" else begun
    option = "forkFrom" if hook["hook"] == "protocol" else "checkpoint"
    page.evaluate(
        "([option, place]) => void chat.stream.submit({ messages: [{ type: 'human', content: 'two' }] }, "
        "{ [option]: place })",
        [option, fork],
    )
    expect(page.get_by_text("human: two")).to_be_visible(timeout=30_000)
    expect(state).to_have_text("idle", timeout=30_000)
    expect(page.locator("li")).to_have_text(["human: two", "ai: From within."], timeout=30_000)


def test_the_client_for_javascript(chat: Open, hook: dict[str, str]) -> None:
    if hook != HOOKS["modes"]:
        pytest.skip("the client is the same with each hook")
    page = chat("nested")
    found: Any = page.evaluate(
        """async () => {
            const { client } = chat;
            const thread = await client.threads.create({ metadata: { topic: "boats" } });
            const events = [];
            let created;
            const input = { messages: [{ role: "user", content: "Hello." }] };
            const streamMode = ["updates", "messages-tuple"];
            const options = { input, streamMode, onRunCreated: (run) => (created = run) };
            const running = client.runs.stream(thread.thread_id, "interview", options);
            for await (const part of running) events.push(part.event);
            const again = [];
            for await (const part of client.runs.joinStream(thread.thread_id, created.run_id, { lastEventId: "-1" }))
                again.push(part.event);
            const waited = await client.runs.wait(null, "nested", { input });
            const threads = await client.threads.search({ metadata: { topic: "boats" }, limit: 1 });
            await client.store.putItem(["web"], "a", { text: "boats" });
            return {
                events, again, waited: waited.messages.length,
                state: (await client.threads.getState(thread.thread_id)).values.messages.length,
                found: threads[0].thread_id === thread.thread_id,
                assistants: (await client.assistants.search({ graphId: "nested" })).length,
                item: (await client.store.getItem(["web"], "a")).value,
                run: (await client.runs.get(thread.thread_id, created.run_id)).status,
            };
        }"""
    )
    assert found["events"][0] == "metadata"
    assert {"updates", "messages"} <= set(found["events"])
    assert found["again"] == found["events"]
    assert (found["waited"], found["state"]) == (2, 4)
    assert (found["found"], found["assistants"], found["run"]) == (True, 1, "interrupted")
    assert found["item"] == {"text": "boats"}
