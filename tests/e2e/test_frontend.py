"""The page on its port, and a run through it: a single origin, as a browser sees it."""

import json
import time

import httpx
import pytest

from tests.kit.processes.stack import RunningStack
from tests.kit.serving import check_page

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture
def browser(stack: RunningStack) -> httpx.Client:
    return httpx.Client(base_url=stack.frontend_url, timeout=60, trust_env=False)


def test_the_page_is_served_on_its_port(stack: RunningStack, browser: httpx.Client) -> None:
    with browser:
        check_page(browser, "/")
    again = stack.command("up").stdout
    assert f"Frontend     http://localhost:{httpx.URL(stack.frontend_url).port}" in again


def test_a_run_is_watched_through_the_page_with_only_the_cookie(stack: RunningStack, browser: httpx.Client) -> None:
    with browser:
        # Proxied requests don't count as local, so reading requires signing in.
        assert browser.get("/workflow-status").status_code == httpx.codes.UNAUTHORIZED
        given = {"username": stack.username, "password": stack.password}
        browser.post("/auth/token", json=given).raise_for_status()
        body = {"dag_id": "visual_ai_workflow", "input_data": {"query": "What?", "image_url": "sample://invoice"}}
        accepted = browser.post("/workflows/trigger", json=body).raise_for_status().json()
        came: dict[str, float] = {}
        with browser.stream("GET", accepted["stream_url"]) as stream:
            for line in stream.iter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    came.setdefault(value, time.monotonic())
                if line == "event: end":
                    break
        assert came["end"] > came["workflow_update"]  # events arrived one by one, not in one block
        status = browser.get(accepted["status_url"]).json()
        assert status["state"] == "success", json.dumps(status)


def test_the_frontend_process_has_no_secrets(stack: RunningStack) -> None:
    environment = stack.specification("frontend")
    assert not {"OPENAI_API_KEY", "VISUAL_AI_DATABASE_URL", "VISUAL_AI_JWT_SECRET"} & environment.keys()
