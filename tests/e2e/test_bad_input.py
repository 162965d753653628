"""Invalid input: it is rejected before anything is written, or the run fails at once with the reason."""

import base64
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import psycopg
import pytest

from backend.db.address import plain_url
from tests.kit import pictures
from tests.kit.processes.stack import RunningStack, wait_for_dag
from tests.kit.runs import check_order, follow, of_type, snapshot, trigger, upload

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PICTURE = {"image_url": "sample://invoice"}
NO_UPLOAD = "upload://00000000-0000-4000-8000-000000000000"


@pytest.fixture
def unchanged(stack: RunningStack, airflow: httpx.Client) -> Iterator[None]:
    """A rejected request leaves nothing behind, neither in the backend nor in Airflow."""
    url = plain_url(stack.specification("backend")["VISUAL_AI_DATABASE_URL"])
    tables = ("workflow_executions", "workflow_tasks", "workflow_events", "workflow_errors", "agent_traces",
              "idempotency_keys", "images")  # fmt: skip

    def rows() -> dict[str, Any]:
        with psycopg.connect(url) as connection:
            counted = {
                table: connection.execute(f"SELECT count(*) FROM visual_ai.{table}").fetchone() for table in tables
            }
        runs = airflow.get("/api/v2/dags/~/dagRuns", params={"limit": 1}).json()["total_entries"]
        return {**counted, "airflow": runs}

    before = rows()
    yield
    assert rows() == before


class PrivateHost(ThreadingHTTPServer):
    """A server on the loopback that returns the same response to each request, and keeps the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}/picture.png"
        self.status, self.content = 200, pictures.encode(pictures.photo())
        self.asked: list[str] = []


class _Answer(BaseHTTPRequestHandler):
    server: PrivateHost

    def do_GET(self) -> None:  # the name that http.server calls
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def private_host() -> Iterator[PrivateHost]:
    with PrivateHost() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def check_problem(answer: httpx.Response, status: int, pointer: str | None = None) -> dict[str, Any]:
    """Problem details with this status, which name the field and leak nothing."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-ID"]
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    if pointer is not None:
        assert pointer in [error["pointer"] for error in problem["errors"]], problem
        assert pointer in problem["detail"]
    for secret in ("Traceback", "127.0.0.1", "postgresql", ".py"):
        assert secret not in answer.text
    return problem


def test_an_unknown_workflow(backend: httpx.Client, unchanged: None) -> None:
    answer = backend.post("/workflows/trigger", json={"dag_id": "no_such_dag", "input_data": {}})
    assert "no_such_dag" in check_problem(answer, 404)["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"dag_id": "visual_ai_workflow"}, "/body/input_data"),
        ({"dag_id": "visual_ai_workflow", "input_data": []}, "/body/input_data"),
        ({"input_data": PICTURE}, "/body/dag_id"),
        ({"dag_id": "visual_ai_workflow", "input_data": PICTURE, "mode": 1}, "/body/mode"),
        ({"dag_id": "visual_ai_workflow", "input_data": {}}, "/input_data/image_url"),
        ({"dag_id": "visual_ai_workflow", "input_data": {"query": "?"}}, "/input_data/image_url"),
        ({"dag_id": "visual_ai_workflow", "input_data": {"image_url": NO_UPLOAD}}, "/input_data/image_url"),
        ({"dag_id": "visual_ai_workflow", "input_data": {"image_url": ""}}, "/input_data/image_url"),
        ({"dag_id": "visual_ai_workflow", "input_data": {"image_url": "file:///etc/passwd"}}, "/input_data/image_url"),
        ({"dag_id": "multi_agent_workflow", "input_data": {"image_url": "ftp://host/p"}}, "/input_data/image_url"),
        ({"dag_id": "visual_ai_workflow", "input_data": {**PICTURE, "query": 7}}, "/input_data/query"),
        (
            {"dag_id": "multi_agent_workflow", "input_data": {"orchestration_mode": "x"}},
            "/input_data/orchestration_mode",
        ),
        ({"dag_id": "multi_agent_workflow", "input_data": {}}, "/input_data"),
        ({"dag_id": "multi_agent_workflow", "input_data": {"text": "x" * 1_000_001}}, "/input_data/text"),
        (
            {
                "dag_id": "multi_agent_workflow",
                "input_data": {"text": "a", "agents": [{"name": "a", "type": "oracle"}]},
            },
            "/input_data/agents/0/type",
        ),
        ({"dag_id": "visual_ai_workflow", "input_data": {**PICTURE, "_visual_ai": {}}}, "/input_data/_visual_ai"),
    ],
)
def test_a_wrong_body(backend: httpx.Client, unchanged: None, body: Mapping[str, Any], pointer: str) -> None:
    answer = backend.post("/workflows/trigger", json=body, headers={"Idempotency-Key": "bad-body"})
    problem = check_problem(answer, 422)
    pointers = [error["pointer"] for error in problem["errors"]]
    assert [pointer.removeprefix("/body")] == [found.removeprefix("/body") for found in pointers]


def test_a_body_that_is_not_json(backend: httpx.Client, unchanged: None) -> None:
    headers = {"Content-Type": "application/json"}
    check_problem(backend.post("/workflows/trigger", content=b"{no json", headers=headers), 422)


def test_a_body_of_ten_megabytes(backend: httpx.Client, unchanged: None) -> None:
    body = {"dag_id": "multi_agent_workflow", "input_data": {"text": "x" * 10_000_000}}
    check_problem(backend.post("/workflows/trigger", json=body), 413)


def test_no_token(stack: RunningStack, unchanged: None) -> None:
    body = {"dag_id": "visual_ai_workflow", "input_data": PICTURE}
    answer = httpx.post(f"{stack.backend_url}/workflows/trigger", json=body)
    check_problem(answer, 401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    answer = httpx.post(f"{stack.backend_url}/images", files={"file": b"x"})
    check_problem(answer, 401)


def test_an_expired_and_a_forged_token(stack: RunningStack, backend: httpx.Client, unchanged: None) -> None:
    token = backend.headers["Authorization"].removeprefix("Bearer ")
    secret = stack.specification("backend")["VISUAL_AI_JWT_SECRET"]
    claims = jwt.decode(token, secret, algorithms=["HS256"], options={"verify_iss": False, "verify_aud": False})
    expired = jwt.encode({**claims, "exp": int(time.time()) - 1}, secret, algorithm="HS256")
    forged = jwt.encode(claims, "another secret of a fitting length, 32+", algorithm="HS256")
    unsigned = jwt.encode(claims, "", algorithm="none")
    body = {"dag_id": "visual_ai_workflow", "input_data": PICTURE}
    for wrong in (expired, forged, unsigned, "nonsense"):
        headers = {"Authorization": f"Bearer {wrong}"}
        answer = httpx.post(f"{stack.backend_url}/workflows/trigger", json=body, headers=headers)
        problem = check_problem(answer, 401)
        assert ("expired" in problem["detail"]) == (wrong == expired)
        # An invalid token is rejected even where no token is required.
        assert httpx.get(f"{stack.backend_url}/workflow-status", headers=headers).status_code == 401


@pytest.mark.parametrize("content", [b"", b"This is no picture.", pictures.bomb()], ids=["empty", "text", "bomb"])
def test_an_upload_that_is_not_a_picture(backend: httpx.Client, unchanged: None, content: bytes) -> None:
    check_problem(backend.post("/images", files={"file": ("picture.png", content)}), 422, "/file")


def test_an_upload_without_its_field(backend: httpx.Client, unchanged: None) -> None:
    check_problem(backend.post("/images", files={"picture": b"x"}), 422)


def failed_run(backend: httpx.Client, dag_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The snapshot of a run that failed quickly: in its first task, without a retry, with one input error."""
    started = time.monotonic()
    accepted = trigger(backend, dag_id, given, model="local:vision")
    found = follow(backend, accepted)
    assert time.monotonic() - started < 20
    check_order(found)
    now = snapshot(backend, accepted)
    assert now["state"] == "failed"
    assert now["result"] is None
    assert {task["try_number"] for task in now["tasks"] if task["state"] == "failed"} == {1}
    (error,) = now["errors"]
    assert of_type(found, "error") == [error]
    assert (error["category"], error["action"]) == ("input", "fail")
    return now


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize(
    ("image_url", "reason"),
    [
        (data_url(b"This is no picture."), "not a picture"),
        (data_url(pictures.bomb()), "pixels"),
        ("http://127.0.0.1/picture.png", "public internet"),
        ("http://169.254.169.254/latest/meta-data/", "public internet"),
        ("http://[::1]/picture.png", "public internet"),
    ],
    ids=["no picture", "bomb", "loopback", "metadata service", "loopback IPv6"],
)
def test_a_picture_that_cannot_be_used(backend: httpx.Client, image_url: str, reason: str) -> None:
    now = failed_run(backend, "visual_ai_workflow", {"image_url": image_url})
    (error,) = now["errors"]
    assert error["message"].startswith("image_url")
    assert reason in error["message"]
    assert error["task_id"] == "validate_input"
    tasks = {task["task_id"]: task["state"] for task in now["tasks"]}
    assert tasks == {
        "validate_input": "failed", "analyse_image": "upstream_failed", "store_result": "upstream_failed",
    }  # fmt: skip
    assert now["agents"] == []


def test_no_request_reaches_a_private_host(backend: httpx.Client, private_host: PrivateHost) -> None:
    failed_run(backend, "visual_ai_workflow", {"image_url": private_host.url})
    assert private_host.asked == []


@pytest.mark.parametrize(
    ("status", "content", "reason"), [(404, b"gone", "404"), (200, b"<html>Sign in</html>", "not a picture")]
)
def test_a_response_that_is_not_a_picture(
    backend: httpx.Client, airflow: httpx.Client, private_host: PrivateHost, status: int, content: bytes, reason: str
) -> None:
    wait_for_dag(airflow, "trusting_workflow")
    private_host.status, private_host.content = status, content
    now = failed_run(backend, "trusting_workflow", {"image_url": private_host.url})
    assert private_host.asked
    (error,) = now["errors"]
    assert error["message"].startswith("image_url")
    assert reason in error["message"]
    assert error["agent"] == "vision"


def test_errors_are_counted(backend: httpx.Client) -> None:
    upload(backend, pictures.encode(pictures.photo()))
    failed_run(backend, "visual_ai_workflow", {"image_url": data_url(b"nothing")})
    distribution = backend.get("/monitoring/error-distribution", params={"time_range": "1h"}).json()
    by_category = {group["name"]: group["count"] for group in distribution["by_category"]}
    assert by_category["input"] >= 1
