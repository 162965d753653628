"""Rules for the repository as a whole."""

import re
import subprocess
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import MetaData, create_engine
from sqlalchemy.engine import Engine
from starlette.routing import Mount, Route

from backend.api.main import openapi_text
from backend.core.settings import Settings
from backend.db.migrate import CHECKPOINT_TABLES
from backend.db.schema import metadata
from backend.deployment.known_settings import unread_settings
from backend.deployment.options import StackOptions
from backend.stack.sbom import bill_of_materials
from tests.kit.airflow import FakeAirflow
from tests.kit.application import PRODUCTION, application, client_of

ROOT = Path(__file__).parents[2]

# The contract's paths. New paths are added here, and none is ever removed.
CONTRACT = {
    ("POST", "/auth/token"),
    ("GET", "/auth/airflow"),
    ("POST", "/auth/airflow"),
    ("POST", "/auth/logout"),
    ("GET", "/users/me"),
    ("POST", "/users/me/sign-out"),
    ("POST", "/users/{user_id}/sign-out"),
    ("GET", "/tokens"),
    ("POST", "/tokens"),
    ("DELETE", "/tokens/{token_id}"),
    ("GET", "/limits"),
    ("GET", "/limits/mine"),
    ("PUT", "/limits/{limit_id}"),
    ("DELETE", "/limits/{limit_id}"),
    ("GET", "/audit"),
    ("POST", "/workflows/trigger"),
    ("GET", "/workflows"),
    ("GET", "/workflows/{dag_id}"),
    ("POST", "/workflows/trigger/batch"),
    ("GET", "/workflows/{dag_id}/schedule"),
    ("PUT", "/workflows/{dag_id}/schedule"),
    ("DELETE", "/workflows/{dag_id}/schedule"),
    ("POST", "/workflows/{dag_id}/runs/{dag_run_id}/cancel"),
    ("POST", "/workflows/{dag_id}/runs/{dag_run_id}/retry"),
    ("POST", "/workflows/{dag_id}/runs/{dag_run_id}/fork"),
    ("POST", "/workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/fork"),
    ("GET", "/workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/checkpoints"),
    ("GET", "/workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/checkpoints/{checkpoint_id}"),
    ("GET", "/workflows/{dag_id}/runs/{dag_run_id}/tasks/{task_id}/checkpoints/{checkpoint_id}/values"),
    ("GET", "/workflow-status/compare"),
    ("GET", "/workflow-status"),
    ("GET", "/workflow-status/{dag_id}/{dag_run_id}"),
    ("GET", "/workflow-status/{dag_id}/{dag_run_id}/items/{task_id}"),
    ("GET", "/workflow-status/{dag_id}/{dag_run_id}/items/{task_id}/{index}/output"),
    ("GET", "/workflow-status/{dag_id}/{dag_run_id}/result"),
    ("GET", "/workflow-status/{dag_id}/{dag_run_id}/input"),
    ("GET", "/workflow-status/{dag_id}/{dag_run_id}/tasks"),
    ("GET", "/workflow-status/{dag_id}/{dag_run_id}/agents"),
    ("GET", "/workflow-status/{dag_id}/{dag_run_id}/errors"),
    ("GET", "/workflow-status/{dag_id}/{dag_run_id}/tool-calls"),
    ("GET", "/workflow-status/{dag_id}/{dag_run_id}/traces/{trace_id}"),
    ("GET", "/workflow-status/{dag_id}/{dag_run_id}/traces/{trace_id}/input"),
    ("GET", "/workflow-status/{dag_id}/{dag_run_id}/traces/{trace_id}/output"),
    ("GET", "/workflow-status/{dag_id}/{dag_run_id}/tasks/{task_id}/logs"),
    ("GET", "/workflow-status/stream/{dag_id}/{dag_run_id}"),
    ("GET", "/workflow-status/streams"),
    ("GET", "/monitoring/workflow-metrics"),
    ("GET", "/monitoring/agent-performance"),
    ("GET", "/monitoring/error-distribution"),
    ("GET", "/monitoring/system-health"),
    ("GET", "/users/me/preferences"),
    ("PUT", "/users/me/preferences"),
    ("GET", "/templates"),
    ("POST", "/templates"),
    ("GET", "/templates/schema"),
    ("GET", "/templates/{name}"),
    ("POST", "/templates/{name}/retire"),
    ("GET", "/templates/{name}/schedule"),
    ("PUT", "/templates/{name}/schedule"),
    ("DELETE", "/templates/{name}/schedule"),
    ("GET", "/templates/{name}/versions"),
    ("POST", "/templates/{name}/versions"),
    ("GET", "/templates/{name}/versions/{version}"),
    ("POST", "/templates/{name}/versions/{version}/activate"),
    ("GET", "/questions"),
    ("GET", "/questions/{question_id}"),
    ("POST", "/questions/{question_id}/answer"),
    ("POST", "/questions/{question_id}/assign"),
    ("GET", "/notifications"),
    ("POST", "/notifications/{notification_id}/resend"),
    ("POST", "/images"),
    ("GET", "/images/remote"),
    ("GET", "/images/{image_id}"),
    ("GET", "/images/samples/{name}"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
}
LANGGRAPHS_OWN = {*CHECKPOINT_TABLES, "checkpoint_migrations", "store_migrations", "store_vectors"}
PUBLIC = {
    ("GET", "/langgraph/ok"),
    ("GET", "/langgraph/info"),
    ("GET", "/langgraph/docs"),
    ("GET", "/langgraph/docs/assets/{name}"),
    ("GET", "/langgraph/redoc"),
    ("GET", "/langgraph/openapi.json"),
    ("POST", "/auth/token"),
    ("GET", "/auth/airflow"),
    ("POST", "/auth/airflow"),
    ("POST", "/auth/logout"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/docs"),
    ("GET", "/docs/assets/{name}"),
    ("GET", "/redoc"),
    ("GET", "/openapi.json"),
}


def test_the_airflow_folder_is_not_a_package() -> None:
    """With an `__init__.py` it would shadow Airflow itself."""
    assert not list((ROOT / "airflow").rglob("__init__.py"))
    assert not (ROOT / "tests/airflow").exists()
    import airflow.sdk

    assert not Path(str(airflow.sdk.__file__)).is_relative_to(ROOT / "airflow")


def test_the_plugin_scan_ignores_the_operators() -> None:
    ignored = (ROOT / "airflow/plugins/.airflowignore").read_text().split()
    for name in ("visual_ai_operators.py", "visual_ai_notifiers.py"):
        assert any(re.search(pattern, name) for pattern in ignored), name
    assert not any(re.search(pattern, "visual_ai_plugin.py") for pattern in ignored)


@pytest.fixture
def engine(pg: Any) -> Iterator[Engine]:
    engine = create_engine(pg.admin_url)
    yield engine
    engine.dispose()


def test_the_tables_match_the_migrations(engine: Engine) -> None:
    found = MetaData(schema="visual_ai")
    found.reflect(engine)

    def columns(tables: MetaData) -> dict[str, dict[str, tuple[str, bool, bool]]]:
        return {
            name: {
                column.name: (
                    str(column.type.compile(engine.dialect)), bool(column.nullable), bool(column.primary_key),
                )
                for column in table.c
            }
            for name, table in tables.tables.items()
            if table.name not in LANGGRAPHS_OWN
        }  # fmt: skip

    assert columns(metadata) == columns(found)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-build.lock", "tests/kit/fuzzing.lock"])
def test_locks_contain_hashes_and_no_host_names(lock: str) -> None:
    packages = re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip())
    for package in packages:
        first, *hashes = [line.removesuffix(" \\") for line in package.splitlines()]
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,._-]+\])?==[^\s;@/]+( ; .+)?", first), first
        assert hashes, first
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", one) for one in hashes), first


def test_packages_are_installed_with_their_hashes() -> None:
    laptop, image = (ROOT / "backend/stack/bootstrap.py").read_text(), (ROOT / "docker/Dockerfile").read_text()
    assert laptop.count('"--require-hashes"') == 2
    assert image.count("--require-hashes") == 3  # the installer, the packages, what builds the project
    assert laptop.count('"--build-constraint", BUILD_LOCK') == 1
    for name in ("pyproject.toml", "requirements.lock", "requirements-build.lock", "Makefile"):
        content = (ROOT / name).read_text()
        assert not re.search(r"index-url|extra-index|find-links|files\.pythonhosted", content), name


def test_the_bill_of_materials_names_every_locked_package() -> None:
    bill = bill_of_materials(ROOT)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    found = [component["purl"] for component in bill["components"]]
    assert len(found) == len(set(found)) == len(bill["dependencies"][0]["dependsOn"])
    pinned = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line.split(";")[0]]
    assert len([one for one in found if one.startswith("pkg:pypi/")]) == len(pinned)
    assert any(one.startswith("pkg:npm/%40mantine/core@") for one in found)
    assert bill == bill_of_materials(ROOT)


def test_every_setting_is_in_the_example() -> None:
    """Commented out or not, so that users don't have to read the code to learn the settings."""
    named = set(re.findall(r"^(?:# )?([A-Z_]+[A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    aliases = {str(field.validation_alias) for kind in (Settings, StackOptions) for field in kind.model_fields.values()}
    assert aliases - named == set()


def test_every_setting_of_the_example_is_known() -> None:
    named = re.findall(r"^(?:# )?([A-Z_]+[A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert unread_settings(named) == []


def test_the_example_is_a_valid_configuration() -> None:
    settings = Settings(_env_file=ROOT / ".env.example")
    assert settings.environment == "development"


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[FastAPI]:
    async with application(database_url, FakeAirflow(), **PRODUCTION) as app:
        yield app


@pytest.fixture
async def http(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, address="192.0.2.7", base_url="https://api.test") as http:
        yield http


async def test_openapi_has_every_path_of_the_contract(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    found = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    assert found == CONTRACT
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path} has no description"


async def test_the_frontends_copy_of_the_openapi_document_is_current(app: FastAPI) -> None:
    kept = (ROOT / "frontend/src/shared/api/openapi.json").read_text()
    remedy = "python -m backend openapi --output frontend/src/shared/api/openapi.json && npm --prefix frontend run api"
    assert kept == openapi_text(app), f"the API has changed: {remedy}"


async def test_every_path_outside_the_public_list_requires_a_token(app: FastAPI, http: httpx.AsyncClient) -> None:
    [graphs] = [route for route in app.routes if isinstance(route, Mount)]
    routes = [(route, "") for route in app.routes] + [(route, graphs.path) for route in graphs.routes]
    served = [(route, f"{at}{route.path}") for route, at in routes if isinstance(route, Route)]
    assert len(routes) == len(served) + 2, "there is a route that this test cannot call"  # the mount, and a WebSocket
    calls = {(method, path) for route, path in served for method in (route.methods or ()) if method != "HEAD"}
    assert calls >= CONTRACT | PUBLIC
    for method, path in sorted(calls):
        address = re.sub(r"\{\w+\}", str(uuid.uuid4()) if path.startswith(graphs.path) else "x", path)
        for headers in ({}, {"Authorization": "Bearer forged"}, {"Cookie": "visual_ai_session=forged"}):
            body = {"dag_id": "x", "input_data": {}} if method == "POST" else None
            response = await http.request(method, address, headers=headers, json=body)
            if (method, path) in PUBLIC:
                assert response.status_code in (200, 204, 307, 404, 422, 503), (method, path)
            else:
                assert response.status_code == 401, (method, path)
                assert response.headers["content-type"] == "application/problem+json"


def test_no_folder_has_more_than_25_python_files() -> None:
    """A folder holds one subject, small enough to take in at a glance."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    files = Counter(Path(name).parent for name in tracked.stdout.splitlines() if (ROOT / name).exists())
    assert {str(folder): count for folder, count in files.items() if count > 25} == {}
