"""Checks for whatever serves the frontend: nginx in containers, and the server of `make up`."""

import json
from typing import Any

import httpx

from tests.kit.processes.stack import ROOT

RULES: dict[str, Any] = json.loads((ROOT / "frontend" / "serving.json").read_text())


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
        assert next(lines) == "id: 1"
        assert not release.is_set()
        release.set()
        assert "data: second" in list(lines)
