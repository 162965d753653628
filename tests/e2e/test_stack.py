"""The running stack as a user meets it, and how it recovers when its processes die."""

import os
import signal
import time

import httpx
import psutil
import pytest

from tests.kit.processes.stack import RunningStack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def pids(stack: RunningStack) -> dict[str, int]:
    lines = stack.command("status").stdout.splitlines()
    return {line.split()[0]: int(line.split()[3].rstrip(",")) for line in lines if " pid " in line}


@pytest.fixture
def service(stack: RunningStack) -> httpx.Client:
    """The backend's own account in Airflow."""
    lines = (stack.state / "secrets.env").read_text().splitlines()
    secrets = dict(line.split("=", 1) for line in lines)
    return stack.airflow("visual_ai_service", secrets["AIRFLOW_SERVICE_PASSWORD"])


def test_everything_is_healthy(stack: RunningStack) -> None:
    health = httpx.get(f"{stack.airflow_url}/api/v2/monitor/health").json()
    assert {part["status"] for part in health.values()} == {"healthy"}
    assert httpx.get(f"{stack.backend_url}/readyz").status_code == httpx.codes.OK
    assert stack.command("status").returncode == 0


def test_a_user_signs_in_to_airflow(stack: RunningStack) -> None:
    with stack.airflow() as client:
        assert client.get("/api/v2/dags").status_code == httpx.codes.OK


def test_the_backends_account_reads_runs_but_nothing_with_secrets(service: httpx.Client) -> None:
    with service:
        for path in ("/api/v2/dags", "/api/v2/dags/~/dagRuns", "/auth/fab/v1/users/airflow"):
            assert service.get(path).status_code == httpx.codes.OK, path
        for path in ("/api/v2/connections", "/api/v2/variables", "/api/v2/config", "/api/v2/plugins"):
            assert service.get(path).status_code == httpx.codes.FORBIDDEN, path
        new = {"key": "k", "value": "v"}
        assert service.post("/api/v2/variables", json=new).status_code == httpx.codes.FORBIDDEN
        assert service.delete("/auth/fab/v1/users/airflow").status_code == httpx.codes.FORBIDDEN


def test_a_token_is_printed_as_one_line(stack: RunningStack) -> None:
    printed = stack.command("token")
    assert printed.returncode == 0, printed.stderr
    assert len(printed.stdout.splitlines()) == 1


def test_the_stack_listens_only_on_the_loopback(stack: RunningStack) -> None:
    ours = {process.pid for process in psutil.process_iter() if _marker(process) == str(stack.state)}
    listening = [c for c in psutil.net_connections("tcp") if c.pid in ours and c.status == psutil.CONN_LISTEN]
    assert listening
    assert {connection.laddr.ip for connection in listening if connection.laddr} == {"127.0.0.1"}


def test_no_secret_is_on_a_command_line_or_in_a_log(stack: RunningStack) -> None:
    lines = (stack.state / "secrets.env").read_text().splitlines()
    secrets = [line.split("=", 1)[1] for line in lines]
    commands = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    logs = [path.read_text(errors="replace") for path in (stack.state / "logs").iterdir()]
    configuration = (stack.state / "run" / "supervisord.conf").read_text()
    for text in (*commands, *logs, configuration):
        assert not any(secret in text for secret in secrets)


def test_starting_again_is_quick_and_changes_nothing(stack: RunningStack) -> None:
    before, started = pids(stack), time.monotonic()
    again = stack.command("up")
    assert again.returncode == 0
    assert "Already running" in again.stdout
    assert time.monotonic() - started < 10
    assert pids(stack) == before


def test_a_port_in_use_is_reported_before_anything_starts(stack: RunningStack) -> None:
    other = {**stack.environment, "VISUAL_AI_STACK_DIR": str(stack.state / "second")}
    result = RunningStack(**{**vars(stack), "environment": other}).command("up")
    assert result.returncode == 1
    for name in ("VISUAL_AI_AIRFLOW_PORT", "VISUAL_AI_BACKEND_PORT", "POSTGRES_PORT"):
        assert name in result.stderr
    assert not (stack.state / "second" / "postgres").exists()


@pytest.mark.parametrize("name", ["scheduler", "backend"])
def test_a_killed_process_is_restarted(stack: RunningStack, name: str) -> None:
    before = pids(stack)[name]
    os.kill(before, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while pids(stack).get(name, before) == before or stack.command("status").returncode:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_after_the_supervisor_was_killed_the_stack_restarts_with_its_data(
    stack: RunningStack,
) -> None:
    os.kill(int((stack.state / "run" / "supervisord.pid").read_text()), signal.SIGKILL)
    assert stack.command("down").returncode == 0
    assert not [process for process in psutil.process_iter() if _marker(process) == str(stack.state)]
    assert "Nothing was running" in stack.command("down").stdout
    result = stack.command("up")
    assert result.returncode == 0, result.stderr
    assert "(once)" not in result.stdout  # Airflow's accounts are still there


def _marker(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("VISUAL_AI_STACK")
    except psutil.Error:
        return None
