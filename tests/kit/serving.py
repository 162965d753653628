"""Checks for whatever serves the frontend: nginx in containers, and the server of `make up`."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from backend.stack.frontend import Frontend
from tests.kit.processes.browser import CHROMIUM, chromium
from tests.kit.processes.proxied_backend import ProxiedBackend, proxied_backend
from tests.kit.processes.stack import ROOT, free_port, wait_until

RULES: dict[str, Any] = json.loads((ROOT / "frontend" / "serving.json").read_text())


@contextmanager
def pages(backend_url: str) -> Iterator[str]:
    """The pages as `make up` serves them, in front of a backend."""
    nodejs = Frontend(ROOT).build()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(nodejs.program), "node_modules/vite/bin/vite.js", "preview", "--host", "127.0.0.1"]
    environment = {**os.environ, "VISUAL_AI_FRONTEND_PORT": str(port), "VISUAL_AI_BACKEND_URL": backend_url, "CI": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT / "frontend", env=nodejs.environment(environment), stdout=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: _answers(url), timeout=60, what="the pages")
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def check_page(client: httpx.Client, path: str) -> None:
    """The page has all its headers and is revalidated on each request."""
    answer = client.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == httpx.codes.OK, path
    assert answer.headers["content-type"].startswith("text/html")
    for name, value in RULES["headers"].items():
        assert answer.headers.get(name) == value, f"{path}: {name}"
    assert "no-cache" in answer.headers["cache-control"]
    assert "strict-transport-security" not in answer.headers


def check_hashed_file(client: httpx.Client, path: str) -> None:
    """A file with a hash in its name may be cached forever; a missing one is 404, not the page."""
    answer = client.get(path)
    assert answer.status_code == httpx.codes.OK
    assert answer.headers["cache-control"] == RULES["cacheControl"]["hashed"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/.vite/manifest.json").status_code == httpx.codes.NOT_FOUND
    gone = client.get(f"{RULES['hashed']}gone-00000000.js")
    assert gone.status_code == httpx.codes.NOT_FOUND
    assert "immutable" not in gone.headers.get("cache-control", "")


def check_unbuffered(client: httpx.Client, path: str, release: Any) -> None:
    """An event of a stream arrives before the backend has sent the next one."""
    with client.stream("GET", path, headers={"Accept": "text/event-stream", "Accept-Encoding": "gzip"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in stream.headers
        lines = stream.iter_lines()
        assert next(lines) == "retry: 500"
        assert next(lines) == "id: 1"
        assert not release.is_set()
        release.set()
        assert "data: second" in list(lines)


STREAMS = ["/workflow-status/stream/dag/run", "/workflow-status/streams?run=dag/run"]


def check_streams_while_the_backend_is_away(client: httpx.Client) -> None:
    """An `EventSource` is asked to come back; whoever may take the end of a stream for the run's end gets an error."""
    event_source = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
    for path in STREAMS:
        answer = client.get(path, headers=event_source)
        assert answer.status_code == httpx.codes.OK
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in answer.headers["cache-control"]
        assert answer.text.startswith("retry: 2000\n:")
        assert "data" not in answer.text
        for headers in ({"Accept": "text/event-stream"}, {"Accept": "*/*", "Cache-Control": "no-cache"}):
            answer = client.get(path, headers=headers)
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert answer.headers["retry-after"] == "5"
        assert client.post(path, headers=event_source).status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert client.get("/workflow-status", headers=event_source).status_code == httpx.codes.SERVICE_UNAVAILABLE


def check_event_source_comes_back(client: httpx.Client, backend: ProxiedBackend) -> None:
    """A browser's plain `EventSource` goes on after its last event when the backend has been away."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    backend.release.clear()
    with chromium() as browser:
        page = browser.new_page(bypass_csp=True)
        page.goto(str(client.base_url))
        page.evaluate("""() => {
            const source = new EventSource("/workflow-status/stream/dag/run");
            window.ids = [];
            source.onmessage = ({ lastEventId }) => window.ids.push(lastEventId);
        }""")
        page.wait_for_function("window.ids.length === 1")
        backend.shutdown()
        backend.server_close()
        backend.release.set()
        page.wait_for_function("window.ids.length === 2")
        page.wait_for_timeout(4_000)  # several attempts fail
        with proxied_backend(backend.server_address[1]):
            page.wait_for_function("window.ids.length === 3")
            assert page.evaluate("window.ids") == ["1", "2", "3"]
