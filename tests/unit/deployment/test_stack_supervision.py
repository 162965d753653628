"""The supervisor's configuration and the checks before a start."""

import configparser
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backend.deployment.layout import Layout, StackError
from backend.deployment.options import StackOptions
from backend.stack.checks import check_ports, port_is_free
from backend.stack.control import Stack
from backend.stack.frontend import Frontend
from backend.stack.health import Readiness
from backend.stack.supervision import ProgramState, Supervisor, programs, render_configuration
from tests.kit.processes.stack import free_port

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def parsed(layout: Layout) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(" ;",))
    parser.read_string(render_configuration(layout, list(programs(layout))))
    return parser


def test_every_process_of_the_procfile_is_restarted_and_stopped_with_its_children_except_tasks() -> None:
    config = parsed(Layout(root=ROOT, state=ROOT / ".stack"))
    assert set(programs(Layout(ROOT, ROOT / ".stack"))) == {
        "api-server", "scheduler", "dag-processor", "triggerer", "backend", "frontend",
    }  # fmt: skip
    for name in programs(Layout(ROOT, ROOT / ".stack")):
        section = config[f"program:{name}"]
        assert section["autorestart"] == "true"
        # The scheduler's children are tasks, which outlive it.
        children = "false" if name == "scheduler" else "true"
        assert section["stopasgroup"] == section["killasgroup"] == children
        assert section["stdout_logfile"] == str(ROOT / ".stack" / "logs" / f"{name}.log")
        assert section["stdout_logfile_maxbytes"]


def test_the_api_server_is_stopped_last() -> None:
    config = parsed(Layout(root=ROOT, state=ROOT / ".stack"))
    assert int(config["group:api"]["priority"]) < int(config["group:services"]["priority"])
    assert "api-server" not in config["group:services"]["programs"]


def test_a_start_that_takes_too_long_names_the_setting_for_it(tmp_path: Path) -> None:
    class Starting(Supervisor):
        def states(self) -> list[ProgramState]:
            return [ProgramState("backend", "RUNNING", 1, 1.0)]

    layout = Layout(root=ROOT, state=tmp_path)
    options = StackOptions(backend_port=free_port())
    readiness = Readiness(layout, options, "", datetime.now(UTC))
    with pytest.raises(StackError, match=r"Backend: not ready after 0 s\..* VISUAL_AI_START_TIMEOUT to more"):
        readiness.wait(Starting(layout), 0.1, frontend=False)


def test_a_path_with_a_percent_sign_and_a_space_is_literal(tmp_path: Path) -> None:
    config = parsed(Layout(root=ROOT, state=tmp_path / "50% of it"))
    assert config["program:backend"]["command"].endswith(f'"{tmp_path}/50%% of it/run/backend.json"')


def test_a_taken_port_names_the_variable_and_the_process(taken_port: int) -> None:
    options = StackOptions(airflow_port=taken_port if taken_port < 64000 else 8080, backend_port=taken_port)
    if options.airflow_port == taken_port:
        options = StackOptions(backend_port=taken_port)
    with pytest.raises(
        StackError, match=rf"Port {taken_port} is taken \(.*process {os.getpid()}.*VISUAL_AI_BACKEND_PORT="
    ):
        check_ports(options, database_runs=True)


def test_two_services_on_one_port_are_refused() -> None:
    with pytest.raises(StackError, match="same port"):
        check_ports(StackOptions(airflow_port=8123, backend_port=8123), database_runs=True)


def test_a_port_is_free_again_after_its_server_exits(taken_port: int) -> None:
    assert not port_is_free(taken_port)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert port_is_free(port)


@pytest.mark.parametrize(
    "failure", [StackError("`npm ci` failed: ENOTFOUND"), PermissionError(13, "a checkout that can't be written to")]
)
def test_a_frontend_that_cannot_be_built_is_reported_and_does_not_stop_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failure: Exception
) -> None:
    def build(_: Frontend) -> None:
        raise failure

    monkeypatch.setattr(Frontend, "build", build)
    assert Stack(Layout(root=ROOT, state=tmp_path))._prepare_frontend() == {}
    assert f"the frontend isn't served: {failure}" in capsys.readouterr().out


def test_without_the_frontend_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL_AI_FRONTEND", "false")
    monkeypatch.setattr(Frontend, "build", lambda _: pytest.fail("it was built"))
    assert Stack(Layout(root=ROOT, state=tmp_path))._prepare_frontend() == {}
