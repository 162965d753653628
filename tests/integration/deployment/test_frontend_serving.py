"""The pages as `make up` serves them: built from the sources, with the rules of production."""

import re
from collections.abc import Iterator

import httpx
import pytest

from backend.stack.frontend import Frontend
from tests.kit.processes.proxied_backend import ProxiedBackend, proxied_backend
from tests.kit.processes.stack import ROOT
from tests.kit.serving import (
    RULES,
    check_event_source_comes_back,
    check_hashed_file,
    check_page,
    check_unbuffered,
    pages,
)

pytestmark = pytest.mark.timeout(600)  # the first run installs packages


@pytest.fixture(scope="module")
def backend() -> Iterator[ProxiedBackend]:
    with proxied_backend() as server:
        yield server


@pytest.fixture(scope="module")
def client(backend: ProxiedBackend) -> Iterator[httpx.Client]:
    with pages(backend.url) as url, httpx.Client(base_url=url, timeout=10, trust_env=False) as client:
        yield client


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


def test_an_event_source_comes_back_after_a_restart_of_the_backend(
    client: httpx.Client, backend: ProxiedBackend
) -> None:
    check_event_source_comes_back(client, backend)


def test_an_unreachable_backend_is_a_retryable_problem(client: httpx.Client) -> None:
    """After the test above, the backend is away."""
    answer = client.get("/workflows")
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "5"
