"""The environment of each process of the stack."""

from pathlib import Path

import pytest

from backend.deployment.environment import Databases, pages_url, setup_accounts
from backend.deployment.known_settings import overridden_settings, unread_settings
from backend.deployment.layout import Layout, StackError
from backend.deployment.options import StackOptions, read_environment, read_options
from backend.stack.environment import airflow_environment, backend_environment, frontend_environment

ROOT = Path(__file__).resolve().parents[3]
LAYOUT = Layout(root=ROOT, state=ROOT / ".stack")
DATABASES = Databases(airflow="pg://owner:o", backend="pg://backend:b", worker="pg://worker:w")
CREDENTIALS = {
    "POSTGRES_ADMIN_PASSWORD": "admin-secret",
    "AIRFLOW_JWT_SECRET": "jwt-secret",
    "AIRFLOW_FERNET_KEY": "fernet-secret",
    "AIRFLOW_SECRET_KEY": "api-secret",
    "AIRFLOW_SERVICE_PASSWORD": "service-secret",
    "VISUAL_AI_JWT_SECRET": "backend-secret",
}
PERSON = {
    "HOME": "/home/someone",
    "PATH": "/usr/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENAI_API_KEY": "key",
    "OPENAI_BASE_URL": "http://model",
    "LANGFUSE_SECRET_KEY": "trace",
    "POSTGRES_PASSWORD": "admin-secret",
    "_AIRFLOW_WWW_USER_PASSWORD": "person-secret",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "somebody else's",
    "AIRFLOW__CORE__PARALLELISM": "3",
    "AIRFLOW_CONN_MY_MODEL": "langchain://:conn-secret@",
    "AIRFLOW_VAR_MY_TOKEN": "var-secret",
}


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POSTGRES_HOST", "POSTGRES_PORT", "VISUAL_AI_AIRFLOW_PORT", "VISUAL_AI_BACKEND_PORT"):
        monkeypatch.delenv(name, raising=False)


def airflow() -> dict[str, str]:
    return airflow_environment(LAYOUT, StackOptions(), PERSON, CREDENTIALS, DATABASES)


def backend() -> dict[str, str]:
    return backend_environment(LAYOUT, StackOptions(), PERSON, CREDENTIALS, DATABASES)


def test_airflow_gets_the_worker_role_and_no_password_of_others() -> None:
    env = airflow()
    assert env["VISUAL_AI_DATABASE_URL"] == DATABASES.worker
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == DATABASES.airflow
    assert not {"admin-secret", "service-secret", "backend-secret", "person-secret", DATABASES.backend} & set(
        env.values()
    )


def test_the_backend_has_no_access_to_airflows_database() -> None:
    env = backend()
    assert env["VISUAL_AI_DATABASE_URL"] == DATABASES.backend
    assert not any(name.startswith("AIRFLOW__") for name in env)
    others = {
        "admin-secret",
        "jwt-secret",
        "fernet-secret",
        "api-secret",
        "person-secret",
        DATABASES.airflow,
        DATABASES.worker,
    }
    assert not others & set(env.values())


@pytest.mark.parametrize("build", [airflow, backend])
def test_every_process_is_marked_and_may_write_bytecode(build: object) -> None:
    env = build()  # type: ignore[operator]
    assert env["VISUAL_AI_STACK"] == str(ROOT)
    assert env["SPT_NOENV"] == "1"
    assert "PYTHONDONTWRITEBYTECODE" not in env


def test_models_and_tracing_settings_pass_through() -> None:
    env = airflow()
    assert (env["OPENAI_API_KEY"], env["OPENAI_BASE_URL"], env["LANGFUSE_SECRET_KEY"]) == (
        "key",
        "http://model",
        "trace",
    )


def test_tasks_know_the_public_addresses() -> None:
    env = airflow()
    assert (env["VISUAL_AI_PAGES_URL"], env["VISUAL_AI_AIRFLOW_PUBLIC_URL"]) == (
        "http://localhost:3000", "http://localhost:8080",
    )  # fmt: skip
    one_origin = {"VISUAL_AI_PUBLIC_URL": "https://agents.example.com"}
    assert pages_url(one_origin, 3000) == "https://agents.example.com"
    assert (
        pages_url({**one_origin, "VISUAL_AI_PAGES_URL": "https://pages.example.com"}, 3000)
        == "https://pages.example.com"
    )


def test_users_may_tune_airflow_but_not_move_its_database() -> None:
    env = airflow()
    assert env["AIRFLOW__CORE__PARALLELISM"] == "3"
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == DATABASES.airflow


def test_connections_and_variables_reach_airflow_and_nothing_else() -> None:
    given = {name: value for name, value in PERSON.items() if name.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_"))}
    assert given.items() <= airflow().items()
    for others in (backend(), frontend_environment(LAYOUT, StackOptions(), PERSON)):
        assert not any("conn-secret" in value or "var-secret" in value for value in others.values())


def test_airflows_public_address_can_be_set() -> None:
    person = {**PERSON, "VISUAL_AI_AIRFLOW_PUBLIC_URL": "https://airflow.example.com/"}
    env = airflow_environment(LAYOUT, StackOptions(), person, CREDENTIALS, DATABASES)
    assert env["AIRFLOW__API__BASE_URL"] == env["VISUAL_AI_AIRFLOW_PUBLIC_URL"] == "https://airflow.example.com"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("VISUAL_AI_EVENT_RETENTION_DAY", "VISUAL_AI_EVENT_RETENTION_DAYS"),
        ("VISUAL_AI_EVENTS_RETENTION_DAYS", "VISUAL_AI_EVENT_RETENTION_DAYS"),
        ("VISUAL_AI_BACKEND_PROT", "VISUAL_AI_BACKEND_PORT"),
        ("VISUAL_AI_STARTUP_TIMEOUT", "VISUAL_AI_START_TIMEOUT"),
        ("VISUALAI_MODEL_TIMEOUT", "VISUAL_AI_MODEL_TIMEOUT"),
        ("VISUAL_IA_MODEL_TIMEOUT", "VISUAL_AI_MODEL_TIMEOUT"),
        ("POSTGRES_PASSWROD", "POSTGRES_PASSWORD"),
        ("_AIRFLOW_WWW_USER_PASSWD", "_AIRFLOW_WWW_USER_PASSWORD"),
        ("OPENAI_API_KEYS", "OPENAI_API_KEY"),
        ("LANGFUSE_PUBLICKEY", "LANGFUSE_PUBLIC_KEY"),
        ("VISUAL_AI_COFFEE", None),
    ],
)
def test_a_setting_that_nothing_reads_is_named_with_the_nearest_one(name: str, nearest: str | None) -> None:
    (line,) = unread_settings([name])
    assert line.startswith(f"{name} is not a setting")
    assert ("did you mean" in line) == (nearest is not None)
    assert nearest is None or line.endswith(f"did you mean {nearest}?")


@pytest.mark.parametrize(
    "name",
    [
        *("OPENAI_ORGANIZATION", "OPENAI_ORG_ID", "OPENAI_LOG", "AZURE_OPENAI_API_KEY"),
        *("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "GOOGLE_API_KEY", "HF_TOKEN", "PATH", "HTTPS_PROXY"),
        *("LANGFUSE_DEBUG", "LANGFUSE_RELEASE", "LANGSMITH_API_KEY"),
        *("visual_ai_model_timeout", "VISUAL_AI_URL", "VISUAL_AI_TOKEN", "VISUAL_AI_STACK_DIR"),
        *("AIRFLOW_UID", "AIRFLOW_CONN_X", "AIRFLOW_VAR_Y", "AIRFLOW__CORE__PARALLELISM", "COMPOSE_PROFILES"),
    ],
)  # fmt: skip
def test_settings_that_something_reads_are_not_named(name: str) -> None:
    assert unread_settings([name]) == []


def test_settings_that_the_stack_sets_itself_are_named() -> None:
    person = {
        **PERSON,
        "AIRFLOW_UID": "50000",
        "AIRFLOW_HOME": "/somewhere",
        "VISUAL_AI_DATABASE_URL": "postgresql://elsewhere",
        "VISUAL_AI_JWT_SECRET": "mine",
        "VISUAL_AI_BACKEND_DB_PASSWORD": "role",
        "VISUAL_AI_MODEL_TIMEOUT": "60",
    }
    environments = [
        build(LAYOUT, StackOptions(), person, CREDENTIALS, DATABASES)
        for build in (airflow_environment, backend_environment)
    ]
    assert overridden_settings(person, environments) == [
        "AIRFLOW_HOME",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "VISUAL_AI_DATABASE_URL",
    ]


def test_a_password_from_the_environment_is_marked_as_set() -> None:
    accounts = setup_accounts("airflow", "person-secret", PERSON, CREDENTIALS)
    assert accounts["VISUAL_AI_SETUP_PASSWORD_IS_SET"] == "1"
    assert setup_accounts("airflow", "airflow", {}, CREDENTIALS)["VISUAL_AI_SETUP_PASSWORD_IS_SET"] == ""


def test_the_ports_of_airflows_log_servers_move_with_its_web_port() -> None:
    usual, moved = StackOptions(), StackOptions(airflow_port=18080)
    assert (usual.worker_log_port, usual.triggerer_log_port) == (8793, 8794)
    assert (moved.worker_log_port, moved.triggerer_log_port) == (18793, 18794)


def test_the_environment_takes_precedence_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("VISUAL_AI_AIRFLOW_PORT=8181\nVISUAL_AI_BACKEND_PORT=8001\nOPENAI_API_KEY=file\n")
    monkeypatch.setenv("VISUAL_AI_AIRFLOW_PORT", "8282")
    options = read_options(tmp_path)
    assert (options.airflow_port, options.backend_port) == (8282, 8001)
    assert read_environment(tmp_path)["VISUAL_AI_AIRFLOW_PORT"] == "8282"


def test_an_invalid_port_names_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL_AI_BACKEND_PORT", "eighty")
    with pytest.raises(StackError, match="VISUAL_AI_BACKEND_PORT"):
        read_options(tmp_path)


def test_the_embedded_database_is_used_unless_a_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.deployment.options._resolves", lambda _: False)
    assert StackOptions().embedded
    assert StackOptions().database_port == 54320
    assert not StackOptions(postgres_host="db.example").embedded
    assert StackOptions(postgres_host="db.example").database_port == 5432


def test_the_compose_files_host_name_is_ignored_outside_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.deployment.options._resolves", lambda _: False)
    assert StackOptions(postgres_host="postgres").embedded
    monkeypatch.setattr("backend.deployment.options._resolves", lambda _: True)
    assert not StackOptions(postgres_host="postgres").embedded
