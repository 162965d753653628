"""The pages as `make up` serves them: built from the sources, with the rules of production."""

import os
import re
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from backend.stack.frontend import Frontend
from tests.kit.processes.proxied_backend import ProxiedBackend, proxied_backend
from tests.kit.processes.stack import ROOT, free_port, wait_until
from tests.kit.serving import RULES, check_hashed_file, check_page, check_unbuffered

pytestmark = pytest.mark.timeout(600)  # the first run installs packages


@pytest.fixture(scope="module")
def backend() -> Iterator[ProxiedBackend]:
    with proxied_backend() as server:
        yield server


@pytest.fixture(scope="module")
def client(backend: ProxiedBackend) -> Iterator[httpx.Client]:
    nodejs = Frontend(ROOT).build()
    port = free_port()
    command = [str(nodejs.program), "node_modules/vite/bin/vite.js", "preview", "--host", "127.0.0.1"]
    environment = {**os.environ, "VISUAL_AI_FRONTEND_PORT": str(port), "VISUAL_AI_BACKEND_URL": backend.url, "CI": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT / "frontend", env=nodejs.environment(environment), stdout=subprocess.DEVNULL
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
            wait_until(lambda: _answers(client), timeout=60, what="the pages")
            yield client
    finally:
        process.terminate()
        process.wait(10)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/").is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("path", ["/", "/index.html", "/runs?state=failed", "/run/visual_ai_workflow/manual__1"])
def test_pages(client: httpx.Client, path: str) -> None:
    check_page(client, path)


def test_hashed_files(client: httpx.Client) -> None:
    found = re.search(r'src="(/assets/[^"]+\.js)"', client.get("/").text)
    assert found
    check_hashed_file(client, found[1])


@pytest.mark.parametrize("prefix", RULES["api"])
def test_responses_of_the_backend_pass_through(client: httpx.Client, prefix: str) -> None:
    answer = client.get(prefix, params={"a": "b"})
    assert answer.json()["path"] == f"{prefix}?a=b"
    assert answer.headers["cache-control"] == "no-store"  # its own
    assert answer.json()["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert answer.json()["headers"]["host"] == answer.request.headers["host"]
    assert client.get(f"{prefix}x").headers["content-type"].startswith("text/html")


def test_an_event_is_forwarded_immediately(client: httpx.Client, backend: ProxiedBackend) -> None:
    check_unbuffered(client, "/workflow-status/stream/dag/run", backend.release)


def test_a_second_build_does_nothing() -> None:
    Frontend(ROOT, lambda name: pytest.fail(f"it began again: {name}")).build()


def test_an_unreachable_backend_is_a_retryable_problem(client: httpx.Client, backend: ProxiedBackend) -> None:
    backend.shutdown()
    backend.server_close()
    answer = client.get("/workflows")
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "5"
