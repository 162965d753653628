"""Many tabs of one browser, each with a live run: the page in Chromium, as `make up` serves it, and a real backend."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from backend.core.events import NewEvent
from backend.core.states import TaskState
from backend.db.runs import events
from backend.db.runs.executions import RunState
from tests.kit.airflow import PASSWORD, FakeAirflow
from tests.kit.processes.backend import BackendProcess, environment
from tests.kit.processes.browser import CHROMIUM, Visitor, chromium
from tests.kit.processes.log_writer import LogWriter
from tests.kit.processes.stack import wait_until
from tests.kit.servers.airflow import AirflowServer
from tests.kit.serving import pages

pytestmark = [
    pytest.mark.timeout(600),  # the first run builds the pages
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

DAG = "visual_ai_workflow"
TASK = "analyse_image"
TABS = 7
"""More than the six connections that a browser makes to a host."""
LOGS = 4


def run_of(tab: int) -> RunState:
    return RunState(DAG, f"run-{tab}", "running")


@pytest.fixture
def backend(pg: Any) -> Iterator[BackendProcess]:
    airflow = FakeAirflow()
    airflow.add_dag(DAG)
    for tab in range(TABS):
        airflow.add_run(DAG, run_of(tab).dag_run_id, "running", {TASK: "running"})
        airflow.set_log(DAG, run_of(tab).dag_run_id, TASK, [{"event": f"log of tab {tab}"}])
    with AirflowServer(airflow) as server, BackendProcess(environment(pg.backend_url, server.url)) as backend:
        yield backend


@pytest.fixture
def writer(database_url: str) -> Iterator[LogWriter]:
    with LogWriter(database_url) as writer:
        yield writer


def say(writer: LogWriter, execution_ids: list[str], text: str) -> None:
    for tab, execution_id in enumerate(execution_ids):
        token = {"task_id": TASK, "map_index": -1, "try_number": 1, "agent": "vision", "node": "look", "call": 1}
        writer.run(events.append, execution_id, [NewEvent("token", {**token, "text": f" {text}-{tab}"})])


def open_streams(backend: BackendProcess) -> float:
    metrics = httpx.get(f"{backend.url}/metrics", trust_env=False).text
    return next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith("visual_ai_streams_open "))


def crowded(tabs: list[Page]) -> list[int]:
    """For each tab with an open log, whether it says that others follow theirs."""
    return [page.get_by_text("other tabs are following logs").count() for page in tabs[:LOGS]]


def check_live(tabs: list[Page], text: str) -> None:
    for tab, page in enumerate(tabs):
        expect(page.get_by_role("log", name=re.compile("^Output of"))).to_contain_text(f"{text}-{tab}")


def test_more_tabs_than_connections_are_live_and_answer(backend: BackendProcess, writer: LogWriter) -> None:
    ids = [writer.observe(run_of(tab), TaskState(TASK, -1, 1, "running")) for tab in range(TABS)]
    say(writer, ids, "first")
    with pages(backend.url) as url, chromium() as browser:
        visitor = Visitor(browser, url)
        visitor.sign_in("otto", PASSWORD)
        tabs = [visitor.page, *(visitor.context.new_page() for _ in range(TABS - 1))]
        for tab, page in enumerate(tabs):
            log = f"&task={TASK}" if tab < LOGS else ""
            page.goto(f"/runs/{DAG}/{run_of(tab).dag_run_id}?tab=agents{log}")
        check_live(tabs, "first")
        say(writer, ids, "second")
        check_live(tabs, "second")
        for page in tabs:
            expect(page.get_by_role("status", name="Connection")).to_have_text("Live")
        wait_until(lambda: open_streams(backend) == TABS, timeout=20, what="one stream for all tabs")

        for tab, page in enumerate(tabs[:LOGS]):
            expect(page.get_by_label(f"Log of {TASK}, try 1")).to_contain_text(f"log of tab {tab}")
        waiting = crowded(tabs)
        assert sum(waiting) == LOGS - 2, "two tabs follow their logs, whichever were first"
        tabs[waiting.index(0)].get_by_role("button", name="Close").click()
        # Whichever of the two reads its log next follows it.
        wait_until(lambda: sum(crowded(tabs)) == 1, timeout=15, what="a tab to follow its log")

        for page in tabs[LOGS:]:
            page.get_by_role("tab", name="Input").click()
            expect(page.get_by_label("JSON of the input")).to_be_visible()
        tabs[5].reload()  # which has to get a connection for the page itself
        tabs[6].close()
        del tabs[6], ids[6]
        for page in tabs[LOGS:]:
            page.get_by_role("tab", name="Agents").click()

        backend.kill()
        expect(tabs[1].get_by_role("status", name="Connection")).to_have_text("Reconnecting…")
        backend.start()
        say(writer, ids, "third")
        for page in tabs:
            words = page.get_by_role("log", name=re.compile("^Output of"))
            expect(words).to_have_text(re.compile(r"^\s*first-\d+ second-\d+ third-\d+$"))
        assert visitor.complaints == []
