"""docker/nginx.conf in a real nginx, filled in by the container's entry point."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.kit.processes.nginx import NGINX, SCRIPT, nginx, nginx_files
from tests.kit.processes.proxied_backend import ProxiedBackend, proxied_backend
from tests.kit.processes.stack import ROOT, wait_until
from tests.kit.serving import (
    RULES,
    check_event_source_comes_back,
    check_hashed_file,
    check_page,
    check_streams_while_the_backend_is_away,
    check_unbuffered,
)

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx isn't installed")


@pytest.fixture
def backend() -> Iterator[ProxiedBackend]:
    with proxied_backend() as server:
        yield server


@pytest.fixture
def folder() -> Iterator[Path]:
    with nginx_files() as folder:
        yield folder


@pytest.fixture
def client(folder: Path, backend: ProxiedBackend) -> Iterator[httpx.Client]:
    with (
        nginx(folder, backend.url) as url,
        httpx.Client(base_url=url, timeout=10, trust_env=False) as client,
    ):
        yield client


@pytest.mark.parametrize("path", ["/", "/index.html", "/runs?state=failed", "/run/visual_ai_workflow/manual__1"])
def test_pages(client: httpx.Client, path: str) -> None:
    check_page(client, path)


def test_hashed_files(client: httpx.Client) -> None:
    check_hashed_file(client, "/assets/index-0a1b2c3d.js")
    packed = client.get("/assets/index-0a1b2c3d.js", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.text == SCRIPT


@pytest.mark.parametrize("prefix", RULES["api"])
def test_responses_of_the_backend_pass_through(client: httpx.Client, prefix: str) -> None:
    answer = client.get(prefix, params={"a": "b"})
    assert answer.json()["path"] == f"{prefix}?a=b"
    assert answer.headers["cache-control"] == "no-store"  # its own
    assert answer.json()["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert answer.json()["headers"]["host"] == answer.request.headers["host"]
    if prefix not in ("/healthz", "/readyz", "/openapi.json"):
        deeper = client.get(f"{prefix}/x%2Fy/z")
        assert deeper.json()["path"] == f"{prefix}/x%2Fy/z"  # a run's id may hold an escaped slash
        assert client.get(f"{prefix}x").headers["content-type"].startswith("text/html")


def test_an_event_is_forwarded_immediately(client: httpx.Client, backend: ProxiedBackend) -> None:
    check_unbuffered(client, "/workflow-status/stream/dag/run", backend.release)


def test_uploads_up_to_the_backends_limit_pass_and_endless_ones_do_not(
    client: httpx.Client, backend: ProxiedBackend
) -> None:
    assert client.post("/images", content=b"x" * 2_100_000).json() == {"size": 2_100_000}
    refused = client.post("/images", content=b"x" * 4_100_000)
    assert refused.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["status"] == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert backend.bodies == [2_100_000]


def test_an_unreachable_backend_is_a_retryable_problem(client: httpx.Client, backend: ProxiedBackend) -> None:
    backend.shutdown()
    backend.server_close()
    answer = client.get("/workflows")
    assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["status"] == httpx.codes.SERVICE_UNAVAILABLE
    check_streams_while_the_backend_is_away(client)


def test_an_event_source_comes_back_after_a_restart_of_the_backend(
    client: httpx.Client, backend: ProxiedBackend
) -> None:
    check_event_source_comes_back(client, backend)


def test_hsts_is_sent_only_behind_tls(client: httpx.Client) -> None:
    behind_tls = client.get("/", headers={"X-Forwarded-Proto": "https"})
    assert behind_tls.headers["strict-transport-security"].startswith("max-age=")
    passed_on = client.get("/workflows", headers={"X-Forwarded-Proto": "https"}).json()["headers"]
    assert passed_on["x-forwarded-proto"] == "https"


def test_the_log_contains_no_token(client: httpx.Client, folder: Path) -> None:
    client.get("/workflows?token=in-the-query", headers={"Authorization": "Bearer in-the-header"})
    client.get("/workflows", headers={"Cookie": "visual_ai_session=in-the-cookie"})
    log = wait_until(lambda: text if '/workflows" 200' in (text := (folder / "log").read_text()) else None, timeout=5)
    assert "in-the" not in log


def test_an_invalid_limit_names_its_variable(folder: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "VISUAL_AI_MAX_IMAGE_BYTES": "20 MB"}
    refused = subprocess.run(
        [folder / "frontend-entry.sh"], env=environment, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "VISUAL_AI_MAX_IMAGE_BYTES" in refused.stderr


def test_the_configuration_has_the_frontends_rules() -> None:
    """Runs without nginx, too."""
    text = (ROOT / "docker" / "nginx.conf").read_text()
    for name, value in RULES["headers"].items():
        variable = re.search(rf"add_header {name} (\$\w+) always;", text)
        given = f'add_header {name} "{value}" always;' if variable is None else f'"" "{value}";'
        assert given in text
    assert f'"{RULES["cacheControl"]["hashed"]}"' in text
    assert f"location ~ {RULES['streams']} {{" in text
