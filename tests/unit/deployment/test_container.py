"""The environment of each container of docker/docker-compose.airflow.yml, and the images' entry point."""

import os
import stat
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path

import pytest
import yaml

from backend.core.settings import Settings
from backend.deployment import entrypoint as module
from backend.deployment.credentials import read_credentials
from backend.deployment.entrypoint import AIRFLOW, BACKEND, SECRETS, WORKER, Container, gateway, main
from backend.deployment.environment import AIRFLOW_DEFAULTS
from backend.deployment.layout import StackError
from tests.kit.processes.stack import ROOT

OWNER = "4242"
COMPOSE = yaml.safe_load((ROOT / "docker" / "docker-compose.airflow.yml").read_text())
GUIDE = {
    "AIRFLOW_UID": OWNER,
    "POSTGRES_HOST": "postgres",
    "POSTGRES_DB": "airflow",
    "POSTGRES_USER": "airflow",
    "POSTGRES_PASSWORD": "the owner's",
    "_AIRFLOW_WWW_USER_PASSWORD": "the person's",
    "OPENAI_API_KEY": "sk-key",
    "LANGFUSE_PUBLIC_KEY": "your_langfuse_public_key",
    "PYTHONDONTWRITEBYTECODE": "1",
    "AIRFLOW_CONN_MY_MODEL": "langchain://:conn-secret@",
    "AIRFLOW_VAR_MY_TOKEN": "var-secret",
}


@pytest.fixture(autouse=True)
def _nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("POSTGRES_", "VISUAL_AI_", "AIRFLOW", "_AIRFLOW"))]:
        monkeypatch.delenv(name)
    for name, value in GUIDE.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The volumes that `init` created."""
    owners: dict[Path, tuple[int, int]] = {}
    monkeypatch.setattr(os, "chown", lambda path, user, group: owners.__setitem__(Path(path), (user, group)))
    Container({**GUIDE, "AIRFLOW_HOME": str(tmp_path / "home")}, tmp_path / "run").init()
    assert set(owners.values()) == {(int(OWNER), 0)}
    return tmp_path / "run"


def mounted(volumes: Path, tmp_path: Path, *names: str) -> Path:
    """The volumes that one container mounts."""
    view = tmp_path / "view"
    view.mkdir()
    for name in names:
        (view / name).symlink_to(volumes / name)
    return view


def all_secrets(volumes: Path) -> dict[str, str]:
    return {name: value for part in SECRETS for name, value in read_credentials(volumes / part / "secrets.env").items()}


def secrets_in(environment: Mapping[str, str], volumes: Path) -> set[str]:
    text = "\n".join(environment.values())
    return {name for name, value in all_secrets(volumes).items() if value in text}


def test_secrets_are_generated_once_and_owned_by_the_services_user(volumes: Path, tmp_path: Path) -> None:
    before = all_secrets(volumes)
    Container({**GUIDE, "AIRFLOW_HOME": str(tmp_path / "home")}, volumes).init()
    assert all_secrets(volumes) == before
    assert len(set(before.values())) == sum(len(names) for names in SECRETS.values())
    for part in SECRETS:
        assert stat.S_IMODE((volumes / part).stat().st_mode) == 0o700
        assert stat.S_IMODE((volumes / part / "secrets.env").stat().st_mode) == 0o600
    assert (tmp_path / "home" / "logs").is_dir()


def test_a_setting_that_nothing_reads_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "chown", lambda *_: None)
    person = {**GUIDE, "AIRFLOW_HOME": str(tmp_path / "home"), "VISUAL_AI_MODEL_TIMOUT": "5"}
    Container(person, tmp_path / "run").init()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "VISUAL_AI_" in line]
    assert line == "note: VISUAL_AI_MODEL_TIMOUT is not a setting; did you mean VISUAL_AI_MODEL_TIMEOUT?"


def test_airflows_own_processes(volumes: Path, tmp_path: Path) -> None:
    env = Container(GUIDE, mounted(volumes, tmp_path, AIRFLOW, WORKER)).airflow_environment()
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith(
        "postgresql+psycopg2://airflow:the%20owner%27s@postgres:5432"
    )
    assert env["VISUAL_AI_DATABASE_URL"].startswith("postgresql+psycopg://visual_ai_worker:")
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://airflow-webserver:8080/execution/"
    assert env["AIRFLOW__CORE__EXECUTOR"] == AIRFLOW_DEFAULTS["AIRFLOW__CORE__EXECUTOR"]
    assert AIRFLOW_DEFAULTS.items() <= env.items()
    assert env["OPENAI_API_KEY"] == "sk-key"
    assert secrets_in(env, volumes) == {*SECRETS[AIRFLOW], *SECRETS[WORKER]}
    assert (env["AIRFLOW_CONN_MY_MODEL"], env["AIRFLOW_VAR_MY_TOKEN"]) == ("langchain://:conn-secret@", "var-secret")
    assert "the person's" not in env.values()
    assert "LANGFUSE_PUBLIC_KEY" not in env  # the guide's placeholder is not a key
    assert "PYTHONDONTWRITEBYTECODE" not in env


def test_a_celery_worker_has_no_access_to_airflows_tables(volumes: Path, tmp_path: Path) -> None:
    person = {**GUIDE, "COMPOSE_PROFILES": "celery"}
    del person["POSTGRES_PASSWORD"]  # as docker-compose leaves it empty
    env = Container(person, mounted(volumes, tmp_path, WORKER)).airflow_environment()
    assert env["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert env["AIRFLOW_CONN_MY_MODEL"] == "langchain://:conn-secret@"
    workers = [name for name in COMPOSE["services"] if name.startswith("airflow-worker")]
    slots = len(workers) * int(env["AIRFLOW__CELERY__WORKER_CONCURRENCY"])
    assert int(env["AIRFLOW__CORE__PARALLELISM"]) == slots  # the scheduler can fill all of them
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in env
    assert env["VISUAL_AI_DATABASE_URL"].startswith("postgresql+psycopg://visual_ai_worker:")
    assert secrets_in(env, volumes) == set(SECRETS[WORKER])


def test_the_users_own_executor_is_kept(volumes: Path, tmp_path: Path) -> None:
    person = {**GUIDE, "AIRFLOW__CORE__EXECUTOR": "LocalExecutor", "COMPOSE_PROFILES": "celery"}
    env = Container(person, mounted(volumes, tmp_path, AIRFLOW, WORKER)).airflow_environment()
    assert env["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"


def test_the_backend_has_its_role_and_account_and_nothing_of_airflow(volumes: Path, tmp_path: Path) -> None:
    env = Container(GUIDE, mounted(volumes, tmp_path, BACKEND)).backend_environment()
    assert env["VISUAL_AI_DATABASE_URL"].startswith("postgresql+psycopg://visual_ai_backend:")
    assert env["VISUAL_AI_AIRFLOW_URL"] == "http://airflow-webserver:8080"
    assert env["VISUAL_AI_AIRFLOW_PUBLIC_URL"] == "http://localhost:8080"
    assert secrets_in(env, volumes) == set(SECRETS[BACKEND])
    assert not {"the owner's", "the person's"} & set(env.values())
    assert not any(name.startswith(("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_")) for name in env)


def test_the_users_own_secrets_are_kept(volumes: Path, tmp_path: Path) -> None:
    own = {**GUIDE, "VISUAL_AI_JWT_SECRET": "s" * 40, "VISUAL_AI_BACKEND_DB_PASSWORD": "role"}
    env = Container(own, mounted(volumes, tmp_path, BACKEND)).backend_environment()
    assert env["VISUAL_AI_JWT_SECRET"] == "s" * 40
    assert ":role@" in env["VISUAL_AI_DATABASE_URL"]


def test_without_volumes_the_environment_is_unchanged(tmp_path: Path) -> None:
    container = Container(GUIDE, tmp_path)
    assert container.airflow_environment() == container.backend_environment() == GUIDE


@pytest.mark.parametrize(
    ("person", "trusted"),
    [
        ({}, True),
        ({"VISUAL_AI_BIND_ADDRESS": "0.0.0.0"}, False),
        ({"VISUAL_AI_ENVIRONMENT": "production"}, False),
    ],
)
def test_requests_from_the_host_are_local_unless_others_can_connect_too(
    volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, person: dict[str, str], trusted: bool
) -> None:
    monkeypatch.setattr(module, "gateway", lambda: "172.18.0.1")
    env = Container({**GUIDE, **person}, mounted(volumes, tmp_path, BACKEND)).backend_environment()
    monkeypatch.setenv("VISUAL_AI_LOCAL_NETWORKS", env.get("VISUAL_AI_LOCAL_NETWORKS", ""))
    assert [str(network) for network in Settings(_env_file=None).local_networks] == ["172.18.0.1/32"] * trusted


@pytest.mark.parametrize(("address", "trusted"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_what_nginx_reports_is_believed_unless_others_can_connect_too(
    volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, trusted: bool
) -> None:
    person = {**GUIDE, "VISUAL_AI_BIND_ADDRESS": address}
    env = Container(person, mounted(volumes, tmp_path, BACKEND)).backend_environment()
    monkeypatch.delenv("VISUAL_AI_TRUSTED_PROXIES", raising=False)
    if "VISUAL_AI_TRUSTED_PROXIES" in env:
        monkeypatch.setenv("VISUAL_AI_TRUSTED_PROXIES", env["VISUAL_AI_TRUSTED_PROXIES"])
    networks = Settings(_env_file=None).trusted_proxies
    assert any(ip_address("172.18.0.5") in network for network in networks) is trusted


def test_the_gateway_is_read_from_the_routing_table(tmp_path: Path) -> None:
    routes = tmp_path / "route"
    routes.write_text(
        "Iface\tDestination\tGateway\tFlags\nlo\t0000007F\t00000000\t0001\n"
        f"eth0\t00000000\t{int.from_bytes(bytes([172, 18, 0, 1]), 'little'):08X}\t0003\n"
    )
    assert gateway(routes) == "172.18.0.1"
    assert gateway(tmp_path / "none") is None


def test_commands_become_processes_with_their_environments(
    volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[tuple[str, list[str], Mapping[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *call: started.append(call))
    monkeypatch.setattr(os, "execv", lambda program, arguments: started.append((program, arguments, {})))
    monkeypatch.setenv("VISUAL_AI_SECRETS_DIR", str(volumes))
    assert main(["airflow", "dags", "list"]) == 0
    program, arguments, environment = started.pop()
    assert (Path(program).name, arguments[1:]) == ("airflow", ["dags", "list"])
    assert "AIRFLOW__CORE__FERNET_KEY" in environment
    assert main(["serve", "--port", "8000"]) == 0
    assert started.pop()[1][1:] == ["-m", "backend.api.server", "--port", "8000"]
    assert main(["sh", "-c", "true"]) == 0
    assert started.pop()[1] == ["sh", "-c", "true"]
    assert main(["no-such-program"]) == 2
    assert "migrate" in capsys.readouterr().err
    assert started == []


@pytest.mark.parametrize("given", ["0", "airflow"])
def test_root_is_refused_as_the_user(tmp_path: Path, given: str) -> None:
    with pytest.raises(StackError, match=f"AIRFLOW_UID={given}"):
        Container({"AIRFLOW_UID": given, "AIRFLOW_HOME": str(tmp_path)}, tmp_path).init()


def test_missing_secrets_name_the_service_that_creates_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISUAL_AI_SECRETS_DIR", str(tmp_path))
    monkeypatch.setattr("backend.deployment.database.wait_until_reachable", lambda *_, **__: None)
    assert main(["migrate"]) == 1
    assert "airflow-init" in capsys.readouterr().err
